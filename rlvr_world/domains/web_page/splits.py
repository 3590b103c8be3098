"""Which web-page rows are trained on, and which are kept apart: other seeds of the same tasks, and other tasks."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import replace

from rlvr_world.domains.web_page.prompt import build_prompt
from rlvr_world.domains.web_page.rows import PageState
from rlvr_world.errors import InputError
from rlvr_world.types import Transition

SEEDS, TASKS = "held-out seeds", "held-out tasks"


def split_rows(
    rows: Sequence[Transition], test_tasks: float, test_seeds: float, valid_seeds: float, seed: int
) -> tuple[list[Transition], list[Transition], list[Transition]]:
    """Training, validation and test rows, in order.

    A share of the tasks is for testing alone, variants of a task together; of the others, shares of the episodes are
    for testing and validation. Test rows bear ``held-out tasks`` or ``held-out seeds`` in their kind beside the class
    of their change. A test or validation row whose question stands in the training rows word for word is left out:
    simple tasks look the same under every seed.
    """
    families = set(_part(sorted({family(row.world) for row in rows}), test_tasks, seed, "tasks"))
    held = {row.world for row in rows if family(row.world) in families}
    episodes = sorted({_episode(row) for row in rows if row.world not in held})
    apart = _part(episodes, test_seeds + valid_seeds, seed, "episodes")
    first = round(len(apart) * test_seeds / max(1e-9, test_seeds + valid_seeds))
    testing, validating = set(apart[:first]), set(apart[first:])
    train = [r for r in rows if r.world not in held and _episode(r) not in testing | validating]
    if not train:
        raise InputError(
            f"data: {len(rows)} rows of {len({r.world for r in rows})} tasks leave none to train on; lower "
            "data.test_tasks, data.test_seeds or data.valid_seeds, or give more rows"
        )
    seen = {question(row) for row in train}
    test = [
        _kept_apart(row, TASKS if row.world in held else SEEDS)
        for row in rows
        if row.world in held or _episode(row) in testing
    ]
    valid = [row for row in rows if row.world not in held and _episode(row) in validating]
    return train, _unseen(valid, seen), _unseen(test, seen)


def family(task: str) -> str:
    """What variants of a task have in common: the first two words of their names.

    >>> family("click-tab-2-hard")
    'click-tab'
    """
    return "-".join(task.split("-")[:2])


def question(row: Transition) -> str:
    """What a compact prompt asks: the page without its browser ids, and the action."""
    return build_prompt(row.state, row.action, "compact")


def mix_unchanged(rows: Sequence[Transition], per_hundred_changed: float, seed: int, epoch: int) -> list[Transition]:
    """The rows of one epoch, shuffled: all that change something, and for 100 of them so many others, drawn anew."""
    changed = [row for row in rows if row.kind != "unchanged"]
    others = [row for row in rows if row.kind == "unchanged"]
    drawn = random.Random(f"mix {seed} {epoch}")
    mixed = changed + drawn.sample(others, min(len(others), round(len(changed) * per_hundred_changed / 100)))
    drawn.shuffle(mixed)
    return mixed


def _part(names: Sequence[str], share: float, seed: int, what: str) -> list[str]:
    """``share`` of the names at random; at least one where the share is not 0 and there are two."""
    if not 0 <= share < 1:
        raise InputError(f"data: the share of {what} held out is {share}; expected at least 0 and less than 1")
    count = min(max(round(share * len(names)), share > 0), max(0, len(names) - 1))
    return random.Random(f"{what} {seed}").sample(list(names), count)


def _episode(row: Transition) -> str:
    state: PageState = row.state
    return state.episode or row.id


def _kept_apart(row: Transition, how: str) -> Transition:
    return replace(row, kind=f"{row.kind}, {how}")


def _unseen(rows: Sequence[Transition], seen: Collection[str]) -> list[Transition]:
    return [row for row in rows if question(row) not in seen]
