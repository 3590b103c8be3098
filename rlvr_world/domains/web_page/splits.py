"""Which web-page rows are trained on, and which are kept apart: other seeds of the same tasks, and other tasks."""

from __future__ import annotations

from collections.abc import Sequence

from rlvr_world.domains import splits
from rlvr_world.domains.splits import Parts, WorldSplitRule
from rlvr_world.domains.web_page.prompt import build_prompt
from rlvr_world.types import Transition

SEEDS, TASKS, ROWS = "held-out seeds", "held-out tasks", "held-out rows"


def split_rows(rows: Sequence[Transition], rule: WorldSplitRule) -> Parts:
    """Training, validation and test rows: worlds are tasks, variants of a task together, and units are episodes. Rows
    of a task without seeds are one unit, because nothing tells its episodes apart. Rows whose question stands in the
    training rows are not held out: simple tasks look the same under every seed."""

    def label(row: Transition, whole_task: bool) -> str:
        if whole_task or (row.world and not row.state.episode):
            return TASKS
        return SEEDS if row.state.episode else ROWS

    train, valid, test = splits.split_rows(rows, rule, unit, family=family, label=label)
    seen = {question(row) for row in train}
    valid, test = ([row for row in part if question(row) not in seen] for part in (valid, test))
    return train, valid, test


def unit(row: Transition) -> str:
    """The episode of a row, as far as something tells it from others."""
    return str(row.state.episode or row.world or row.id)


def family(task: str) -> str:
    """What variants of a task have in common: two words, ``click-tab`` of ``click-tab-2-hard``."""
    return "-".join(task.split("-")[:2])


def question(row: Transition) -> str:
    """What a compact prompt asks: the page without its browser ids, and the action."""
    return build_prompt(row.state, row.action, "compact")
