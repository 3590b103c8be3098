"""Paired differences between models measured on the same rows, over other rows and over other seeds; what they say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlvr_world.errors import InputError
from rlvr_world.evaluation.intervals import Interval, bootstrap, relative_bootstrap, t_interval
from rlvr_world.evaluation.summary import OVERALL, Result, in_slice, resampled, runs_of, same_protocol
from rlvr_world.evaluation.tables import PERCENT, Column, Row, Table, tables

TITLES = {"rl": "RL", "sft": "SFT", "control": "the compute-matched control", "base": "the base model"}
Rivals = Sequence[Result] | str
"""Runs paired with ours in the order given, a single run (such as the SFT start) that is compared with every one of
ours, or the name of a baseline, which has no seeds."""
SLICES = {OVERALL: "all", "changed": "changed"}
SAME, FEW = "no difference shown", "too few to tell"
VERBS = {
    "better": "beats",
    "worse": "does worse than",
    SAME: "shows no difference from",
    FEW: "has too few rows to be compared with",
}


def difference(ours: Sequence[Result], theirs: Rivals, slice_: str, part: str) -> dict[str, dict[str, Any]]:
    """``ours`` - ``theirs`` in one part on one slice, over several runs: the intervals of

    ``rows``: the seed-averaged difference, rows (or worlds, see ``summarise``) resampled: what others would change;
    ``seeds``: the per-seed differences, Student t (what other seeds would change);
    ``relative`` and ``relative_seeds``: the same in units of the other side's mean, where that is not 0.

    Raises InputError when the results were measured differently or do not pair.
    """
    rivals: Sequence[Result] = () if isinstance(theirs, str) else theirs
    same_protocol([*ours, *rivals])
    rows = ours[0]["rows"]
    pick = in_slice(rows["kind"], slice_)
    numbers = [rows["baselines"][theirs]] if isinstance(theirs, str) else [rival["rows"]["parts"] for rival in rivals]
    a, b = (np.array([n[part] for n in s])[:, pick] for s in ([run["rows"]["parts"] for run in ours], numbers))
    if len(b) not in (1, len(ours)):
        wanted = f"{len(ours)} runs on the second side or one for all"
        raise InputError(f"runs are compared seed by seed: expected {wanted}, got {len(b)}; evaluate the missing seeds")
    worlds = np.array(rows["world"])[pick] if resampled(ours[0]["protocol"]) == "worlds" else None
    one, two = a.mean(axis=0), b.mean(axis=0)
    found: dict[str, Interval | None] = {
        "rows": bootstrap(one - two, worlds),
        "relative": relative_bootstrap(one, two, worlds),
    }
    if rivals:
        gaps, scale = (a - b).mean(axis=1), np.abs(b.mean(axis=1))
        found["seeds"] = t_interval(gaps)
        found["relative_seeds"] = t_interval(gaps / scale) if scale.all() else None
    return {name: interval.as_dict() for name, interval in found.items() if interval}


def reading(found: Mapping[str, Mapping[str, Any]], lower: bool = False) -> str:
    """``better`` or ``worse`` when every interval that can be given leaves out 0: with one seed only rows can speak;
    with more, the difference must survive other rows and other seeds. Without an interval there is nothing to say."""
    bounds = [(i["low"], i["high"]) for key in ("rows", "seeds") if (i := found.get(key)) and i["low"] is not None]
    if bounds and all(low > 0 for low, _ in bounds):
        return "worse" if lower else "better"
    if bounds and all(high < 0 for _, high in bounds):
        return "better" if lower else "worse"
    return SAME if bounds else FEW


@dataclass(frozen=True)
class Comparison:
    """What stands beside a table: the last trained model against each rival, whose cells hold the ``reading`` and, as
    texts, the intervals over ``rows`` and over ``seeds``; ``caveat`` is what a gain of RL may still be owed to."""

    table: Table
    ours: str
    caveat: str
    rivals: Sequence[Row]


def comparisons(results: Mapping[str, Result]) -> list[Comparison]:
    """One for each table."""
    family = next((f for f in ("rl", "sft", "base") if runs_of(results, f)), "")
    caveats = ["one seed"] if len(runs_of(results, "rl")) == 1 else []
    caveats += [] if runs_of(results, "control") else ["no compute-matched control"]
    caveat = f" ({', '.join(caveats)})" if family == "rl" and caveats else ""
    found = []
    for table in tables(results):
        rivals = []
        for name, runs, others in _rivals(results, family):
            cells = {c: _cell(runs, others, c, table.by_slice) for c in table.columns}
            rivals += [Row(name, cells)] if any(cells.values()) else []
        found.append(Comparison(table, TITLES.get(family, ""), caveat, rivals))
    return found


def _rivals(results: Mapping[str, Result], family: str) -> list[tuple[str, list[Result], Rivals]]:
    """What a family is compared with: a name, the runs of the family, and those of the other side."""
    runs = runs_of(results, family)
    found: list[tuple[str, list[Result], Rivals]] = []
    for other in {"rl": ("sft", "control"), "sft": ("base",)}.get(family, ()):
        theirs = runs_of(results, other)
        if seeds := [seed for seed in runs if seed in theirs or "" in theirs]:
            rivals = [theirs[""]] if "" in theirs else [theirs[seed] for seed in seeds]
            found.append((TITLES[other], [runs[seed] for seed in seeds], rivals))
    baselines = [name for run in list(runs.values())[:1] for name in run["rows"]["baselines"]]
    return found + [(f"“{name}”", list(runs.values()), name) for name in baselines]


def _cell(runs: Sequence[Result], rivals: Rivals, column: Column, absolute: bool) -> dict[str, Any] | None:
    """The reading of one difference and its intervals as text, with relative ones unless ``absolute``; None where a
    baseline lacks the part, or repeats the frame before always: to repeat less often than copying does is no merit."""
    if isinstance(rivals, str):
        trivial = runs[0]["rows"]["baselines"][rivals].get(column.part)
        if trivial is None or (column.part.startswith("repetition") and min(trivial) == 1):
            return None
    found = difference(runs, rivals, column.slice, column.part)
    cell: dict[str, Any] = {"reading": reading(found, column.better == "↓")}
    for unit, relative in (("rows", "relative"), ("seeds", "relative_seeds")):
        known = unit == "rows" or found.get(unit, {}).get("low") is not None
        cell[unit] = [column.text(found[unit], sign=True)] if known else []
        if known and relative in found and not absolute:
            change = PERCENT.text(found[relative], sign=True).replace(" ", " % ", 1)
            cell[unit] = [change, *cell[unit]] if unit == "rows" else [change]  # over seeds one of the two says it all
    return cell


def verdict(found: Sequence[Comparison], rows: str = "rows") -> str:
    """What the first table says: all ``rows``, changed ones (imitation falls short there), and what stands beside."""
    alike: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for rival in found[0].rivals if found else ():
        known = {c.title: cell["reading"] for c, cell in rival.cells.items() if cell}
        if found[0].table.by_slice:
            beside = {c.title: known[c.title] for c, cell in rival.cells.items() if cell and c.title != c.slice}
            known = {f"{said} {rows}": known[title] for title, said in SLICES.items() if title in known} | beside
        alike.setdefault(tuple(known.items()), []).append(rival.model)
    clauses = [_clause(said, _and(names)) for said, names in alike.items() if said]
    return f"{found[0].ours}{found[0].caveat} {'; it '.join(clauses)}." if clauses else "Nothing has been compared yet."


def _clause(said: Sequence[tuple[str, str]], theirs: str) -> str:
    """``beats SFT on LPIPS and MSE, but shows no difference on SSIM``, from (where, reading) pairs."""
    clauses: list[str] = []
    for which, verb in VERBS.items():
        if places := [where for where, reading_ in said if reading_ == which]:
            start = verb.rpartition(" ")[0] if clauses else f"{verb} {theirs}"
            clauses.append(f"{start} on {'every measure' if len(places) == len(said) > 2 else _and(places)}")
    return ", but ".join(clauses)


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
