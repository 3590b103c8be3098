"""From scored predictions to a result: means by slice with their intervals, trivial baselines beside them.

    records (one for each row x sample) -> summarise -> result -> tables, differences

A *slice* is one kind of row (changed, unchanged) or ``overall``. A *part* is a named number of a prediction, the reward
``value`` among them. A *result* is plain JSON. Knows no text or video.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from rlvr_world.errors import InputError
from rlvr_world.evaluation.intervals import Worlds, of_mean, t_interval

OVERALL = "overall"
Result = Mapping[str, Any]


def fingerprint(protocol: Mapping[str, Any]) -> str:
    """First 12 hex digits of the SHA-256 of the protocol's canonical JSON: equal means measured in the same way."""
    text = json.dumps(protocol, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def summarise(
    records: Sequence[Mapping[str, Any]], protocol: Mapping[str, Any], lower_is_better: Collection[str] = ()
) -> dict[str, Any]:
    """The result of one model over a split.

    ``records`` hold, for each row and sample: ``id``, ``kind``, ``world``, ``parts`` (name -> number), ``value``,
    ``malformed`` (reason or ""), ``baselines`` (name -> parts). Every record names the same parts, malformed or not, so
    that a missing number never passes for a good or a bad one. Where ``lower_is_better`` names one of the parts, more
    is better of all others; where it names none, only ``value`` and the 0/1 parts are taken to have a direction.

    Returns ``protocol``, ``fingerprint``, ``binary`` (parts that are 0 or 1), ``lower_is_better`` (of these parts),
    ``slices``, ``malformed_reasons`` and ``rows``, the per-row means that comparisons pair. Of a slice, ``parts`` are
    means over rows and samples (pass@1), ``best_of`` over rows of the best sample, for parts with a direction;
    ``run_std`` is the deviation of the mean over rows between sampling runs (sample s of every row is run s).
    Intervals are over rows; over worlds where the protocol says ``"resample": "world"``, because its rows are alike.
    Raises InputError for records that do not fit together.
    """
    rows = _by_row(records)
    firsts = [row[0] for row in rows]
    worlds = np.array([first["world"] for first in firsts]) if resampled(protocol) == "worlds" else None
    names = list(firsts[0]["numbers"])
    table = np.array([[[r["numbers"][name] for name in names] for r in row] for row in rows])  # [rows, samples, parts]
    malformed = np.array([[bool(r["malformed"]) for r in row] for row in rows], dtype=np.float64).mean(axis=1)
    reasons = Counter(r["malformed"] for row in rows for r in row if r["malformed"])
    kinds = [first["kind"] for first in firsts]
    base = {
        name: {part: np.array([first["baselines"][name][part] for first in firsts], np.float64) for part in parts}
        for name, parts in firsts[0]["baselines"].items()
    }
    seen = {n: [table[:, :, i].ravel(), *(b[n] for b in base.values() if n in b)] for i, n in enumerate(names)}
    binary = [n for n in names if n != "value" and np.isin(np.concatenate(seen[n]), (0.0, 1.0)).all()]
    lower = [n for n in names if n in lower_is_better]
    signs = {n: -1 if n in lower else 1 for n in names if lower or n in ("value", *binary)}
    slices = {}
    for slice_ in [*sorted({name for kind in kinds for name in kind.split(", ") if name}), OVERALL]:
        pick = in_slice(kinds, slice_)
        within = None if worlds is None else worlds[pick]
        slices[slice_] = {
            "rows": int(pick.sum()),
            "samples": table.shape[1],
            **_means(table[pick], names, binary, signs, within),
            "malformed": of_mean(malformed[pick], True, within).as_dict(),
            "baselines": {
                name: {part: of_mean(values[pick], part in binary, within).as_dict() for part, values in parts.items()}
                for name, parts in base.items()
            },
        }
    return {
        "protocol": dict(protocol),
        "fingerprint": fingerprint(protocol),
        "binary": binary,
        "lower_is_better": lower,
        "slices": slices,
        "malformed_reasons": dict(reasons.most_common(8)),
        "rows": {
            **{key: [first[key] for first in firsts] for key in ("id", "kind", "world")},
            "parts": {name: table[:, :, i].mean(axis=1).tolist() for i, name in enumerate(names)},
            "baselines": {name: {part: v.tolist() for part, v in parts.items()} for name, parts in base.items()},
        },
    }


def _by_row(records: Sequence[Mapping[str, Any]]) -> list[list[dict[str, Any]]]:
    """The records of each row, in the order of first appearance, checked, with ``numbers``: the parts and the value."""
    if not records:
        raise InputError("no predictions to summarise: the split is empty, so choose another split or a higher limit")
    rows: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        names = [f"{name}: {part}" for name, parts in record["baselines"].items() for part in parts]
        numbers = {**record["parts"], "value": record["value"]}
        rows.setdefault(record["id"], []).append({**record, "numbers": numbers, "named": (set(numbers), set(names))})
    first = next(iter(rows.values()))
    for row_id, row in rows.items():
        if len(row) != len(first):
            raise InputError(f"row {row_id}: expected {len(first)} samples as for the first row, got {len(row)}")
        for record in row:
            _check(record, first[0])
    return list(rows.values())


def _check(record: Mapping[str, Any], first: Mapping[str, Any]) -> None:
    """Every record has the parts and baselines of the first, and only finite numbers."""
    for what, got, expected in zip(("parts", "baselines"), record["named"], first["named"], strict=True):
        if got != expected:
            known = f"expected {sorted(expected)} as in row {first['id']}, got {sorted(got)}"
            mend = "let score() name all parts for every prediction, malformed ones too"
            raise InputError(f"row {record['id']}, {what}: {known}; {mend}")
    for part, number in record["numbers"].items():
        if not math.isfinite(number):
            raise InputError(f"row {record['id']}, part {part}: expected a finite number, got {number}; mend score()")


def _means(
    table: np.ndarray, names: Sequence[str], binary: Collection[str], signs: Mapping[str, int], worlds: Worlds
) -> dict[str, dict[str, Any]]:
    """``parts``, ``best_of`` and ``run_std`` of a table [rows, samples, parts]."""
    found: dict[str, dict[str, Any]] = {"parts": {}, "best_of": {}, "run_std": {}}
    for name, values in zip(names, np.moveaxis(table, 2, 0), strict=True):  # [rows, samples]
        found["parts"][name] = of_mean(values.mean(axis=1), name in binary, worlds).as_dict()
        if table.shape[1] > 1:
            found["run_std"][name] = float(values.mean(axis=0).std(ddof=1))
            if name in signs:
                best = signs[name] * (signs[name] * values).max(axis=1)
                found["best_of"][name] = of_mean(best, name in binary, worlds).as_dict()
    return found


def in_slice(kinds: Sequence[str], slice_: str) -> np.ndarray:
    """bool [rows]: which rows belong to a slice; a kind names one or several, separated by commas."""
    return np.array([slice_ == OVERALL or slice_ in kind.split(", ") for kind in kinds])


def resampled(protocol: Mapping[str, Any]) -> str:
    """What intervals are over: ``worlds`` or ``rows``."""
    return "worlds" if protocol.get("resample") == "world" else "rows"


def same_protocol(results: Sequence[Result]) -> None:
    """Raises InputError, which names the fields that differ, unless the results were measured in the same way."""
    first = results[0]
    for other in results[1:]:
        pair = f"results {first.get('name', '?')} and {other.get('name', '?')}"
        if other["fingerprint"] != first["fingerprint"]:
            keys = sorted(set(first["protocol"]) | set(other["protocol"]))
            differ = [key for key in keys if first["protocol"].get(key) != other["protocol"].get(key)]
            got = f"{first['fingerprint']}, {other['fingerprint']}; fields that differ: {', '.join(differ)}"
            raise InputError(f"{pair} were measured under different protocols ({got}); evaluate both in the same way")
        if other["rows"]["id"] != first["rows"]["id"]:
            raise InputError(f"{pair} hold different rows under one protocol; evaluate both on the same split")


def runs_of(results: Mapping[str, Result], family: str) -> dict[str, Result]:
    """The runs of a family (rl -> rl/seed0, rl/seed1) by seed."""
    return {name.partition("/")[2]: result for name, result in results.items() if name.split("/")[0] == family}


def across_seeds(results: Sequence[Result], slice_: str, part: str) -> dict[str, Any]:
    """The mean over runs that differ only in their seed: a t interval, with ``n`` seeds; of a share within 0 and 1."""
    same_protocol(results)
    found = t_interval([r["slices"][slice_]["parts"][part]["mean"] for r in results]).as_dict()
    if found["low"] is not None and all(part in r["binary"] for r in results):
        found |= {"low": max(0.0, found["low"]), "high": min(1.0, found["high"])}
    return found
