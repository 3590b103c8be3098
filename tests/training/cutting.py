"""A stage that is cut in the middle, for tests of going on."""

from __future__ import annotations

from rlvr_world.runs.stage import Stage


class Cut(Exception):
    """A stop in the middle of a stage."""


def cut_before(stage: Stage, cut_at: int | None) -> None:
    """Have ``stage`` raise Cut instead of working on step ``cut_at``; None leaves it whole."""
    step = stage.step

    def steps(number: int, progress: float) -> tuple[dict[str, float], int]:
        if number == cut_at:
            raise Cut
        return step(number, progress)

    stage.step = steps  # type: ignore[method-assign]
