"""What the results say: comparisons with their reading, a verdict, and the story in plain sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlvr_world.evaluation.differences import across_seeds, difference, runs_of
from rlvr_world.evaluation.summary import (
    OVERALL,
    PERCENT,
    Column,
    Result,
    layout,
    resampled,
    title_of,
)

TITLES = {"rl": "RL", "sft": "SFT", "control": "the compute-matched control", "base": "the base model"}
SAME = "no difference shown"
VERBS = {"better": "beats", "worse": "does worse than", SAME: "shows no difference from"}
_Rival = tuple[str, str, list[Result], list[Result] | str]
"""A family, what it is compared with, its runs, and the other's runs or the name of a baseline."""


def reading(found: Mapping[str, Mapping[str, Any]], lower: bool = False) -> str:
    """``better`` or ``worse`` when every interval that can be given leaves out 0, else ``no difference shown``.

    With one seed only the rows can speak; with more, the difference must survive other rows and other seeds.
    """
    intervals = [found[key] for key in ("rows", "seeds") if key in found]
    bounds = [(i["low"], i["high"]) for i in intervals if i["low"] is not None]
    if bounds and all(low > 0 for low, _ in bounds):
        return "worse" if lower else "better"
    if bounds and all(high < 0 for _, high in bounds):
        return "better" if lower else "worse"
    return SAME


def _comparisons(results: Mapping[str, Result]) -> list[_Rival]:
    """Of the last trained model only."""
    family = next((f for f in ("rl", "sft", "base") if runs_of(results, f)), "")
    if not family:
        return []
    runs = runs_of(results, family)
    output: list[_Rival] = []
    for other in ("sft", "control") if family == "rl" else ("base",) if family == "sft" else ():
        rivals = runs_of(results, other)
        shared = sorted(set(runs) & set(rivals)) if other == "control" else []
        if shared:
            output.append((family, other, [runs[s] for s in shared], [rivals[s] for s in shared]))
        elif other != "control" and rivals:
            output.append((family, other, list(runs.values()), [next(iter(rivals.values()))]))
    baselines = next(iter(runs.values()))["rows"]["baselines"]
    return output + [(family, name, list(runs.values()), name) for name in baselines]


def findings(results: Mapping[str, Result], part: str = "") -> dict[str, Any]:
    """``verdict`` (sentences), ``blocks`` (the comparisons of each table of ``layout``), whether one seed had to do."""
    rivals = _comparisons(results)
    blocks = [block for t, c in layout(results, part).items() if (block := _block(t, c, rivals))["findings"]]
    seeds = len(runs_of(results, "rl"))
    return {"verdict": _verdict(blocks), "blocks": blocks, "one_seed": seeds == 1, "several_seeds": seeds > 1}


def _block(title: str, columns: Sequence[Column], comparisons: Sequence[_Rival]) -> dict[str, Any]:
    """``findings`` (one a rival, with a cell a column); ``rows`` of the page, one a column, have a cell a finding."""
    by_slice, found = columns[0].by_slice, []
    for family, other, runs, rivals in comparisons:
        cells = [_cell(runs, rivals, c) for c in columns]
        if any(cells):
            trivial = f"the trivial answer “{other}”" if by_slice else f"“{other}”"
            theirs = trivial if isinstance(rivals, str) else TITLES[other]
            found.append({"ours": TITLES[family], "theirs": theirs, "cells": cells})
    heads = [c.title if by_slice else c.heading for c in columns]
    rows = zip(heads, zip(*(f["cells"] for f in found), strict=True), strict=False)
    return {
        "title": title,
        "by_slice": by_slice,
        "percent": all(c.unit == "%" for c in columns),
        "findings": found,
        "rows": [{"head": head, "cells": list(cells)} for head, cells in rows],
    }


def _cell(runs: Sequence[Result], rivals: Sequence[Result] | str, column: Column) -> dict[str, Any] | None:
    """The reading of one difference and its intervals as text; None where a baseline lacks the part, or repeats the
    frame before always: to repeat less often than copying does is no merit.
    """
    if isinstance(rivals, str):
        trivial = runs[0]["rows"]["baselines"][rivals].get(column.part)
        if trivial is None or (column.part.startswith("repetition") and min(trivial) == 1):
            return None
    found = difference(runs, rivals, column.slice, column.part)
    cell: dict[str, Any] = {"title": column.title, "reading": reading(found, column.better == "↓")}
    for unit, relative in (("rows", "relative"), ("seeds", "relative_seeds")):
        known = unit == "rows" or found.get(unit, {}).get("low") is not None
        texts = [column.text(found[unit], sign=True)] if known else []
        if known and relative in found and not column.by_slice:
            change = PERCENT.text(found[relative], sign=True).replace(" ", " % ", 1)
            texts = [change, *texts] if unit == "rows" else [change]  # over seeds one of the two says it all
        cell[unit] = texts
    return cell


def _verdict(blocks: Sequence[Mapping[str, Any]]) -> str:
    """Whether the last model beat each rival: by slice over all rows, then on changed rows, where imitation falls
    short; or part by part."""
    if not blocks:
        return "Nothing has been compared yet."
    found, ours = blocks[0]["findings"], blocks[0]["findings"][0]["ours"]
    if not blocks[0]["by_slice"]:
        alike: dict[tuple[tuple[str, str], ...], list[str]] = {}
        for finding in found:
            said = tuple((cell["title"], cell["reading"]) for cell in finding["cells"] if cell)
            alike.setdefault(said, []).append(finding["theirs"])
        return f"{ours} {'. It '.join(_over_parts(said, _and(names)) for said, names in alike.items())}."
    changed = _over_rivals(found, "changed")
    return f"{ours} {_over_rivals(found, OVERALL)}." + (f" On changed rows it {changed}." if changed else "")


def _over_rivals(found: Sequence[Mapping[str, Any]], slice_: str) -> str:
    """``beats SFT and the trivial answer, but shows no difference from the control``."""
    rivals: dict[str, list[str]] = {said: [] for said in VERBS}
    for finding in found:
        for cell in finding["cells"]:
            if cell and cell["title"] == slice_:
                rivals[cell["reading"]].append(finding["theirs"])
    return ", but ".join(f"{VERBS[said]} {_and(names)}" for said, names in rivals.items() if names)


def _over_parts(said: Sequence[tuple[str, str]], theirs: str) -> str:
    """``beats SFT on LPIPS and MSE, but shows no difference on SSIM``, from (part, reading) pairs."""
    clauses: list[str] = []
    for which, verb in VERBS.items():
        if parts := [part for part, reading_ in said if reading_ == which]:
            start = verb.rpartition(" ")[0] if clauses else f"{verb} {theirs}"
            clauses.append(f"{start} on {'every measure' if len(parts) == len(said) > 1 else _and(parts)}")
    return ", but ".join(clauses)


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def story(
    config: Mapping[str, Any],
    metrics: Sequence[Mapping[str, Any]],
    results: Mapping[str, Result],
    blocks: Sequence[Mapping[str, Any]],
) -> list[str]:
    """Two paragraphs in plain sentences: what was trained, and what came out."""
    steps = {family: _last(metrics, family, "step") for family in ("tokenizer", "sft", "rl", "control")}
    source = (config.get("model") or {}).get("source", "")
    start = {"scratch": "A world model, a small transformer trained from random weights,", "": "A world model"}
    text = [
        f"{start.get(source, f'The model {source}')} learned to predict what happens next: the next state of a world, "
        "given its state and an action."
    ]
    if steps["tokenizer"]:
        text.append(f"A visual tokenizer first learned to write frames as tokens, in {steps['tokenizer']:,} steps.")
    if steps["sft"]:
        text.append(f"Likelihood training (SFT) taught it to imitate recorded transitions for {steps['sft']:,} steps.")
    if steps["rl"]:
        seeds = len({line["stage"] for line in metrics if line["stage"].startswith("rl/")})
        text.append(
            f"Reinforcement learning (RL) then rewarded predictions for how right they came out, for {steps['rl']:,} "
            + (f"steps, with {seeds} seeds." if seeds > 1 else "steps, with one seed.")
        )
    else:
        text.append("No reinforcement learning has been run yet.")
    if steps["control"]:
        text.append("The compute-matched control went on with SFT instead, for as many tokens as RL processed.")
    elif steps["rl"]:
        text.append("No compute-matched control was run, so a gain of RL may come from the extra training alone.")
    if not results:
        return [" ".join(text), "No model has been evaluated yet."]
    return [" ".join(text), _outcome(results, blocks)]


def _outcome(results: Mapping[str, Result], blocks: Sequence[Mapping[str, Any]]) -> str:
    columns = next(iter(layout(results).values()))
    held_out = f"{next(iter(results.values()))['slices'][OVERALL]['rows']:,} held-out rows"
    if not columns[0].by_slice:
        finding = blocks[0]["findings"][0] if blocks else {"cells": []}
        said = [f"{c['title']} by {c['rows'][0]}" for c in finding["cells"] if c and len(c["rows"]) > 1]
        if not said:
            return f"It was measured on {held_out}."
        differs = f"{finding['ours']} differs from {finding['theirs']} in {', '.join(said)}"
        over = resampled(next(iter(results.values()))["protocol"])
        return f"Measured on {held_out}, {differs}: relative to the latter, with 95 % intervals over {over}."
    overall, said = columns[-1], []
    for family in ("rl", "sft", "control", "base"):
        runs = list(runs_of(results, family).values())
        if runs:
            several = len(runs) > 1
            slice_, part = overall.slice, overall.part
            mean = across_seeds(runs, slice_, part) if several else runs[0]["slices"][slice_]["parts"][part]
            said.append(f"{TITLES[family]} {overall.text(mean)}" + (f" (mean of {len(runs)} seeds)" if several else ""))
    measure = "Percent exactly right" if overall.part == "exact" else f"Mean {title_of(overall.part)}"
    return f"{measure} on {held_out}, with 95 % intervals: {', '.join(said)}."


def _last(metrics: Sequence[Mapping[str, Any]], family: str, key: str) -> int:
    return max((int(line.get(key, 0)) for line in metrics if line["stage"].split("/")[0] == family), default=0)
