"""Which rows are trained on, and which are kept apart: by question, episode or world; and what RL draws of them.
All functions keep the order of the rows. Imports nothing heavy."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from rlvr_world.config import what
from rlvr_world.errors import InputError
from rlvr_world.types import Rows, Transition, verb_of

N = TypeVar("N", bound=Hashable)
Parts = tuple[list[Transition], list[Transition], list[Transition]]
"""Training, validation and test rows."""
Unit = Callable[[Transition], Hashable]
"""What rows that go together have in common."""


@dataclass(frozen=True)
class SplitRule:
    """Shares of the units that a domain's rows fall into: questions of a text game, episodes of pages or of video."""

    test: float = what(0.1, "share for testing: of questions (text games), of episodes (pages, video)", "fraction")
    valid: float = what(0.05, "share of them for validation", "fraction")
    seed: int = what(0, "another seed, another split")


@dataclass(frozen=True)
class WorldSplitRule(SplitRule):
    """The same, with whole worlds held out besides."""

    worlds: float = what(0.0, "share of the worlds (games, tasks) that are held out whole for testing", "fraction")
    sft: float = what(0.0, "share of training for SFT alone; RL and control take the rest; 0: all take all", "fraction")


@dataclass(frozen=True)
class RowsConfig:
    """The data settings that all recipes over rows of text have."""

    cache: str = what("~/.cache/rlvr_world", "folder where rows that are played here are kept", "folder")
    train: str = what(
        "",
        "files: training rows, .jsonl, .jsonl.gz, .json or .parquet: a file, a pattern, a folder, or owner/name of "
        "a data set on the hub; PLACE:NAME takes one of several splits",
        "path",
    )
    test: str = what("", "files: test rows, same layouts; empty splits data.train", "path")
    skip_faulty: bool = what(False, "files: leave out rows that do not read, and count them, instead of refusing all")
    split: WorldSplitRule = field(default_factory=WorldSplitRule)
    reasoning_column: str = what("", "column that holds a chain of thought with its answer, for sft.reasoning")
    even: float = what(0.0, "SFT, RL: 1 has every verb of every world as often, 0 takes rows as they come", "0 to 1")
    unchanged_per_hundred: float = what(
        -1.0,
        "RL rows: unchanged ones for 100 changed ones (paper, games: 40 binary, 5 task-specific); negative takes all",
    )


def split_rows(
    rows: Rows,
    rule: WorldSplitRule,
    unit: Unit,
    family: Callable[[str], str] = str,
    label: Callable[[Transition, bool], str] = lambda row, whole_world: "",
) -> Parts:
    """Training, validation and test rows. Rows of one ``unit`` go the same way, as do worlds of one ``family``.

    A share of the worlds is for testing alone; of the units of the others, shares are for testing and validation.
    ``label`` (of a test row, and whether its whole world is held out) is added to its kind, where it is not empty.
    """
    families = held_out(sorted({family(row.world) for row in rows}), rule.worlds, rule.seed, "worlds")
    held = {row.world for row in rows if family(row.world) in families}
    units = list(dict.fromkeys(unit(row) for row in rows if row.world not in held))
    apart = held_out(units, rule.test + rule.valid, rule.seed, "units")
    first = round(len(apart) * rule.test / max(1e-9, rule.test + rule.valid))
    if rule.valid and first == len(apart) > 1:
        first -= 1
    testing, validating = set(apart[:first]), set(apart[first:])
    parts: Parts = ([], [], [])
    for row in rows:
        key = unit(row)
        if row.world in held or key in testing:
            said = label(row, row.world in held)
            parts[2].append(replace(row, kind=f"{row.kind}, {said}") if said else row)
        else:
            parts[key in validating].append(row)
    if not parts[0]:
        got = f"{len(rows)} rows of {len({r.world for r in rows})} worlds leave none to train on"
        raise InputError(f"data: {got}; lower data.split.worlds, .test or .valid, or give more rows")
    return parts


def held_out(names: Sequence[N], share: float, seed: int, what: str) -> list[N]:
    """``share`` of the names at random: at least one where the share is above 0 and there are two, and never all."""
    if not 0 <= share < 1:
        raise InputError(f"data.split: the share of {what} held out is {share}; expected at least 0 and less than 1")
    count = min(max(round(share * len(names)), share > 0), max(0, len(names) - 1))
    return random.Random(f"{what} {seed}").sample(list(names), count)


def deduplicate(train: Rows, test: Rows, unit: Unit) -> list[Transition]:
    """The training rows whose question does not occur in ``test``, each question once (its first row). Of the published
    test questions 21 % stand word for word in the training rows, because that split is random inside each game."""
    first: dict[Hashable, Transition] = {}
    for row in train:
        first.setdefault(unit(row), row)
    seen = {unit(row) for row in test}
    return [row for key, row in first.items() if key not in seen]


def mix_unchanged(changed: Rows, others: Rows, per_hundred: float, seed: int, epoch: int) -> list[Transition]:
    """The rows of one epoch, shuffled: all that are ``changed``, and for 100 of them ``per_hundred`` others, drawn with
    replacement, anew in each epoch. A model trained on all rows would learn to answer that nothing changes.

    Published for text games: 40 and 5; RLVR-World (NeurIPS 2025, arXiv 2505.13934, section 4.2 and appendix).
    """
    count = round(len(changed) * per_hundred / 100)
    if not changed or per_hundred < 0:
        got = f"{len(changed)} of {len(changed) + len(others)} rows and {per_hundred}; give other rows, or -1"
        raise InputError(f"data.unchanged_per_hundred: expected rows that change and a number from 0 on, got {got}")
    drawn = random.Random(f"mix {seed} {epoch}")
    mixed = [*changed, *(drawn.choices(others, k=count) if others else [])]
    drawn.shuffle(mixed)
    return mixed


def evened(rows: Rows, share: float, seed: int, epoch: int = 0) -> Rows:
    """As many rows, shuffled, in which every verb of every world comes as often where ``share`` is 1, as often as in
    ``rows`` where it is 0, and in between by its number of rows to the power of 1 - share. The verb is the first word
    of an action. Of a verb with few rows each comes again, of one with many some are left out, others in other epochs.
    """
    if not 0 <= share <= 1:
        raise InputError(f"data.even: expected a number from 0 to 1, got {share}")
    if not share:
        return rows
    cells: dict[tuple[str, str], list[Transition]] = {}
    for row in rows:
        cells.setdefault((row.world, verb_of(str(row.action))), []).append(row)
    drawn, found, wanted = random.Random(f"even {seed} {epoch}"), list[Transition](), 0.0
    whole = sum(len(cell) ** (1 - share) for cell in cells.values())
    for cell in cells.values():
        wanted += len(rows) * len(cell) ** (1 - share) / whole
        again, rest = divmod(round(wanted) - len(found), len(cell))
        found += [*cell * again, *drawn.sample(cell, rest)]
    drawn.shuffle(found)
    return found
