"""The learners of ``tests/training``, for what saves, stops and resumes them."""

from tests.training.conftest import learner_of, tiny

__all__ = ["learner_of", "tiny"]
