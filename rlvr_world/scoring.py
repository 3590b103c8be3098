"""From written tokens to a score, for training and evaluation alike: a failure names its row."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rlvr_world.errors import InputError
from rlvr_world.types import Domain, Score, Transition


def judge(domain: Domain, written: Sequence[Sequence[int]], row: Transition) -> tuple[Any, Score]:
    """The prediction that tokens decode to (or ``Malformed``), and its score.

    Raises RuntimeError with the row's id where the domain's code fails or scores with a number that is not
    finite: a bug must never look like a bad prediction.
    """
    with about(row):
        prediction = domain.decode(written, row)
        score = domain.score(prediction, row)
        if not math.isfinite(score.value):
            raise ValueError(f"the score is {score.value}")
    return prediction, score


@contextmanager
def about(row: Transition) -> Iterator[None]:
    """Inside, any failure of the domain's code is raised as a RuntimeError that names ``row``."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise RuntimeError(f"row {row.id}: the domain failed on it ({type(error).__name__}: {error})") from error
