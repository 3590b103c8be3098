"""What the results say: comparisons with their reading, a verdict, the story in plain sentences, and the tables."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from .summary import (
    OVERALL,
    Result,
    across_seeds,
    cell_text,
    columns_of,
    compare_baseline,
    markdown_table,
    paper_table,
    seed_differences,
)

TITLES = {"rl": "RL", "sft": "SFT", "control": "the compute-matched control", "base": "the base model"}


def headline_part(results: Mapping[str, Result]) -> str:
    """The part that the page is about: ``exact`` where it is measured, else the reward, ``value``."""
    parts = next(iter(results.values()))["slices"][OVERALL]["parts"] if results else {}
    return "exact" if "exact" in parts else "value"


def reading(difference: Mapping[str, Mapping[str, Any]]) -> str:
    """``better`` or ``worse`` when every interval that can be given leaves out 0, else ``no difference shown``.

    With one seed only the rows can speak; with more, the difference must survive other rows and other seeds.
    """
    bounds = [(i["low"], i["high"]) for i in difference.values() if i["low"] is not None]
    if bounds and all(low > 0 for low, _ in bounds):
        return "better"
    return "worse" if bounds and all(high < 0 for _, high in bounds) else "no difference shown"


def _runs(results: Mapping[str, Result], family: str) -> dict[str, Result]:
    """The runs of a family (rl -> rl/seed0, rl/seed1) by seed."""
    return {name.partition("/")[2]: result for name, result in results.items() if name.split("/")[0] == family}


def _comparisons(results: Mapping[str, Result]) -> list[tuple[str, str, list[Result], list[Result] | str]]:
    """(family, what it is compared with, runs, runs or the name of a baseline): of the last trained model only."""
    family = next((f for f in ("rl", "sft", "base") if _runs(results, f)), "")
    if not family:
        return []
    runs = _runs(results, family)
    output: list[tuple[str, str, list[Result], list[Result] | str]] = []
    for other in ("sft", "control") if family == "rl" else ("base",) if family == "sft" else ():
        rivals = _runs(results, other)
        shared = sorted(set(runs) & set(rivals)) if other == "control" else []
        if shared:
            output.append((family, other, [runs[s] for s in shared], [rivals[s] for s in shared]))
        elif other != "control" and rivals:
            output.append((family, other, list(runs.values()), [next(iter(rivals.values()))]))
    baselines = next(iter(runs.values()))["rows"]["baselines"]
    return output + [(family, name, list(runs.values()), name) for name in baselines]


def findings(results: Mapping[str, Result], part: str = "") -> dict[str, Any]:
    """``verdict`` (one sentence), ``findings`` (comparison rows by slice) and whether one seed had to do.

    They are about ``part``, by default the headline.
    """
    part, found = part or headline_part(results), []
    for family, other, runs, rivals in _comparisons(results):
        if isinstance(rivals, str):
            if part not in runs[0]["rows"]["baselines"][rivals]:
                continue
            differences = {s: {"rows": v[part]} for s, v in compare_baseline(runs, rivals).items()}
        else:
            differences = {s: v[part] for s, v in seed_differences(runs, rivals).items()}
        percent = part in runs[0]["binary"]
        cells = [
            {
                "slice": slice_,
                "reading": reading(differences[slice_]),
                "rows": cell_text(differences[slice_]["rows"], percent, sign=True),
                "seeds": _seed_text(differences[slice_], percent),
            }
            for slice_ in columns_of(runs[0])
        ]
        found.append({"ours": TITLES[family], "theirs": _theirs(other, rivals), "cells": cells, "percent": percent})
    seeds = len(_runs(results, "rl"))
    return {"verdict": _verdict(found), "findings": found, "one_seed": seeds == 1, "several_seeds": seeds > 1}


def _theirs(other: str, rivals: list[Result] | str) -> str:
    return f"the trivial answer “{other}”" if isinstance(rivals, str) else TITLES[other]


def _seed_text(difference: Mapping[str, Mapping[str, Any]], percent: bool) -> str:
    seeds = difference.get("seeds")
    return cell_text(seeds, percent, sign=True) if seeds and seeds["low"] is not None else ""


def _verdict(found: Sequence[Mapping[str, Any]]) -> str:
    """Whether the last model beat each rival: over all rows, then on changed rows, where imitation falls short."""
    if not found:
        return "Nothing has been compared yet."
    text = f"{found[0]['ours']} {_clauses(found, OVERALL)}."
    changed = _clauses(found, "changed")
    return f"{text} On changed rows it {changed}." if changed else text


def _clauses(found: Sequence[Mapping[str, Any]], slice_: str) -> str:
    """``beats SFT and the trivial answer, shows no difference from the control``."""
    words = {"better": "beats", "worse": "does worse than", "no difference shown": "shows no difference from"}
    rivals: dict[str, list[str]] = {verb: [] for verb in words.values()}
    for finding in found:
        for cell in finding["cells"]:
            if cell["slice"] == slice_:
                rivals[words[cell["reading"]]].append(finding["theirs"])
    return ", but ".join(f"{verb} {_and(names)}" for verb, names in rivals.items() if names)


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def story(config: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]], results: Mapping[str, Result]) -> list[str]:
    """Two paragraphs in plain sentences: what was trained, and what came out."""
    steps = {family: _last(metrics, family, "step") for family in ("sft", "rl", "control")}
    source = (config.get("model") or {}).get("source", "")
    start = {"scratch": "A small language model, trained from random weights,", "": "A language model"}
    text = [
        f"{start.get(source, f'The model {source}')} learned to predict what happens next: the next state of a world, "
        "given its state and an action."
    ]
    if steps["sft"]:
        text.append(
            f"Supervised fine-tuning (SFT) taught it to imitate recorded transitions for {steps['sft']:,} steps."
        )
    if steps["rl"]:
        seeds = len({line["stage"] for line in metrics if line["stage"].startswith("rl/")})
        text.append(
            f"Reinforcement learning (RL) then rewarded predictions that came true, for {steps['rl']:,} steps"
            + (f", with {seeds} seeds." if seeds > 1 else ", with one seed.")
        )
    else:
        text.append("No reinforcement learning has been run yet.")
    if steps["control"]:
        text.append("The compute-matched control went on with SFT instead, for as many tokens as RL processed.")
    elif steps["rl"]:
        text.append("No compute-matched control was run, so a gain of RL may come from the extra training alone.")
    if not results:
        return [" ".join(text), "No model has been evaluated yet."]
    return [" ".join(text), _outcome(results)]


def _outcome(results: Mapping[str, Result]) -> str:
    part = headline_part(results)
    first = next(iter(results.values()))
    percent = part in first["binary"]
    said = []
    for family in ("rl", "sft", "control", "base"):
        runs = list(_runs(results, family).values())
        if runs:
            several = len(runs) > 1
            mean = across_seeds(runs)[OVERALL][part] if several else runs[0]["slices"][OVERALL]["parts"][part]
            seeds = f" (mean of {len(runs)} seeds)" if several else ""
            said.append(f"{TITLES[family]} {cell_text(mean, percent)}{seeds}")
    measure = "Percent exactly right" if part == "exact" else f"Mean {part}"
    rows = first["slices"][OVERALL]["rows"]
    return f"{measure} on {rows:,} held-out rows, with 95 % intervals: {', '.join(said)}."


def _last(metrics: Sequence[Mapping[str, Any]], family: str, key: str) -> int:
    return max((int(line.get(key, 0)) for line in metrics if line["stage"].split("/")[0] == family), default=0)


def tables(results: Mapping[str, Result]) -> dict[str, Any]:
    """The tables of the models measured under one protocol."""
    part = headline_part(results)
    rows = paper_table(results, part)
    first = next(iter(results.values()))
    columns, several = columns_of(first), []
    for family in ("rl", "control"):
        runs = _runs(results, family)
        if len(runs) > 1:
            several.append(family)
            means = across_seeds(list(runs.values()))
            at = next(i for i, row in enumerate(rows) if row["model"].startswith(f"{family}/"))
            row = {"model": f"{family}, mean of {len(runs)} seeds", "baseline": False, "percent": rows[0]["percent"]}
            rows.insert(at, row | {"slices": {s: means[s][part] for s in columns}})
    bounds = [c[k] for row in rows for c in row["slices"].values() for k in ("mean", "low", "high") if c[k] is not None]
    low, high = (0.0, 1.0) if rows[0]["percent"] else (min(bounds), max(bounds))
    return {
        "part": part,
        "samples": first["slices"][OVERALL]["samples"],
        "columns": [{"name": s, "rows": first["slices"][s]["rows"]} for s in columns],
        "table": [_table_row(row, low, (high - low) or 1.0, several) for row in rows],
        "markdown": markdown_table(rows),
        "fingerprint": first["fingerprint"],
        "protocol": flatten(first["protocol"]),
        "details": _details(results),
    }


def _table_row(row: Mapping[str, Any], low: float, span: float, several: Sequence[str]) -> dict[str, Any]:
    """Texts and, in percent of the column, where the mean and its interval lie."""
    family = row["model"].split("/")[0].split(",")[0]
    one_of_many = family in several and "/" in row["model"]
    style = "baseline" if row["baseline"] else "seed" if one_of_many else "model"
    cells = []
    for interval in row["slices"].values():
        mean, left, right = (interval["mean"] if interval[k] is None else interval[k] for k in ("mean", "low", "high"))
        text, _, bounds = cell_text(interval, row["percent"]).partition(" ")
        mean, left, right = (max(0.0, min(100.0, 100 * (v - low) / span)) for v in (mean, left, right))
        cells.append({"text": text, "bounds": bounds, "mean": mean, "low": left, "high": right})
    return {"model": row["model"], "style": style, "family": family, "cells": cells}


def _details(results: Mapping[str, Result]) -> dict[str, Any]:
    """Every part over all rows, malformed answers, and best-of-N where several samples were drawn."""
    first = next(iter(results.values()))
    overall = first["slices"][OVERALL]
    best = [(f"{p} (best of {overall['samples']})", p) for p in overall["best_of"]]
    rows = []
    for name, result in results.items():
        slice_, binary = result["slices"][OVERALL], result["binary"]
        cells = [cell_text(slice_["parts"][p], p in binary) for p in overall["parts"]]
        cells += [cell_text(slice_["best_of"][p], p in binary) for _, p in best]
        rows.append({"model": name, "cells": [*cells, cell_text(slice_["malformed"], True)]})
    titles = [f"{p} (%)" if p in first["binary"] else p for p in overall["parts"]]
    return {"columns": [*titles, *(title for title, _ in best), "malformed (%)"], "rows": rows}


def flatten(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as (dotted name, value) pairs."""
    pairs: list[tuple[str, str]] = []
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            pairs += flatten(value, f"{prefix}{key}.")
        else:
            pairs.append((f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)))
    return pairs
