"""From scored predictions to the figures a report may state: means by slice, paired comparisons, tables.

    records (one for each row x sample) -> summarise -> result -> compare / across_seeds / paper_table

A *slice* is one kind of row (changed, unchanged) or ``overall``. A *result* is plain JSON. Knows no text or video.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import InputError
from .intervals import Interval, bootstrap, paired_bootstrap, t_interval, wilson

OVERALL = "overall"
Result = Mapping[str, Any]


def fingerprint(protocol: Mapping[str, Any]) -> str:
    """First 12 hex digits of the SHA-256 of the protocol's canonical JSON: equal means measured in the same way."""
    text = json.dumps(protocol, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def summarise(records: Sequence[Mapping[str, Any]], protocol: Mapping[str, Any]) -> dict[str, Any]:
    """The result of one model over a split.

    ``records`` hold, for each row and sample: ``id``, ``kind``, ``world``, ``parts`` (name -> number), ``value``,
    ``malformed`` (reason or ""), ``baselines`` (name -> parts). Every record names the same parts, malformed or not,
    so that a missing number can never pass for a good or a bad one. ``value`` is reported as one more part.

    Returns ``protocol``, ``fingerprint``, ``binary`` (parts that are 0 or 1), ``slices`` (slice -> ``rows``,
    ``samples``, ``parts``, ``malformed``, ``best_of``, ``baselines``), ``malformed_reasons`` and ``rows``, the
    per-row means that ``compare`` pairs. The mean over samples is pass@1; ``best_of`` is the mean over rows of the
    best sample, for ``value`` and the 0/1 parts (elsewhere smaller may be better).
    Raises InputError for records that do not fit together.
    """
    rows = _group(records)
    names = list(rows[0][0]["numbers"])
    table = np.array([[[r["numbers"][name] for name in names] for r in row] for row in rows])  # [rows, samples, parts]
    malformed = np.array([[bool(r["malformed"]) for r in row] for row in rows], dtype=np.float64).mean(axis=1)
    reasons = Counter(r["malformed"] for row in rows for r in row if r["malformed"])
    kinds = [row[0]["kind"] for row in rows]
    base = {
        name: {part: np.array([row[0]["baselines"][name][part] for row in rows], dtype=np.float64) for part in parts}
        for name, parts in rows[0][0]["baselines"].items()
    }
    seen = {n: [table[:, :, i].ravel(), *(b[n] for b in base.values() if n in b)] for i, n in enumerate(names)}
    binary = [n for n in names if n != "value" and np.isin(np.concatenate(seen[n]), (0.0, 1.0)).all()]
    slices = {}
    for slice_ in [*sorted({kind for kind in kinds if kind}), OVERALL]:
        pick = np.array([slice_ in (OVERALL, kind) for kind in kinds])
        slices[slice_] = {
            "rows": int(pick.sum()),
            "samples": table.shape[1],
            **_means(table[pick], names, binary),
            "malformed": _interval(malformed[pick], True),
            "baselines": {
                name: {part: _interval(values[pick], part in binary) for part, values in parts.items()}
                for name, parts in base.items()
            },
        }
    return {
        "protocol": dict(protocol),
        "fingerprint": fingerprint(protocol),
        "binary": binary,
        "slices": slices,
        "malformed_reasons": dict(reasons.most_common(8)),
        "rows": {
            "id": [row[0]["id"] for row in rows],
            "kind": kinds,
            "world": [row[0]["world"] for row in rows],
            "parts": {name: table[:, :, i].mean(axis=1).tolist() for i, name in enumerate(names)},
            "baselines": {name: {part: v.tolist() for part, v in parts.items()} for name, parts in base.items()},
        },
    }


def compare(result_a: Result, result_b: Result) -> dict[str, dict[str, dict[str, Any]]]:
    """Paired differences a - b on the same rows: slice -> part -> interval, with ``n`` rows.

    Raises InputError when the two were not measured in the same way.
    """
    differences = seed_differences([result_a], [result_b])
    return {slice_: {part: both["rows"] for part, both in parts.items()} for slice_, parts in differences.items()}


def compare_baseline(results: Sequence[Result], baseline: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Paired differences of the seed-averaged model - ``baseline``: slice -> part -> interval over rows."""
    _same_protocol(results)
    base = results[0]["rows"]["baselines"][baseline]
    return {
        slice_: {
            part: paired_bootstrap(_mean_rows(results, part)[pick], np.array(values)[pick]).as_dict()
            for part, values in base.items()
        }
        for slice_, pick in _slices(results[0]).items()
    }


def seed_differences(
    results_a: Sequence[Result], results_b: Sequence[Result]
) -> dict[str, dict[str, dict[str, dict[str, Any]]]]:
    """Differences a - b over several runs: slice -> part -> ``{"rows": interval, "seeds": interval}``.

    ``rows`` resamples rows of the seed-averaged difference (what other rows would change); ``seeds`` is the t interval
    of the per-seed differences (what other seeds would change). Runs are paired in the order given; a single
    ``results_b``, such as the SFT start, is compared with every run of ``results_a``.
    """
    _same_protocol([*results_a, *results_b])
    if len(results_b) not in (1, len(results_a)):
        raise InputError(
            f"runs are compared seed by seed: expected {len(results_a)} runs on the second side or one for all, "
            f"got {len(results_b)}; evaluate the missing seeds"
        )
    output: dict[str, dict[str, dict[str, dict[str, Any]]]] = {}
    for slice_, pick in _slices(results_a[0]).items():
        output[slice_] = {}
        for part in results_a[0]["rows"]["parts"]:
            a, b = _part_rows(results_a, part)[:, pick], _part_rows(results_b, part)[:, pick]
            output[slice_][part] = {
                "rows": paired_bootstrap(a.mean(axis=0), b.mean(axis=0)).as_dict(),
                "seeds": t_interval((a - b).mean(axis=1)).as_dict(),
            }
    return output


def across_seeds(results: Sequence[Result]) -> dict[str, dict[str, dict[str, Any]]]:
    """Means over runs that differ only in their seed: slice -> part -> t interval, with ``n`` seeds.

    The difference to the start of training is ``seed_differences(results, [sft])``.
    """
    _same_protocol(results)
    return {
        slice_: {
            part: t_interval([r["slices"][slice_]["parts"][part]["mean"] for r in results]).as_dict() for part in parts
        }
        for slice_, parts in ((s, v["parts"]) for s, v in results[0]["slices"].items())
    }


def paper_table(results: Mapping[str, Result], part: str = "exact") -> list[dict[str, Any]]:
    """Rows in the layout of the paper's table 1: model | unchanged | changed | overall, trivial baselines last.

    Each row: ``model``, ``baseline`` (bool), ``percent`` (the part is 0/1) and ``slices`` (slice -> interval or None).
    Raises InputError when the results do not share a protocol or none has the part.
    """
    if not results:
        return []
    _same_protocol(list(results.values()))
    first = next(iter(results.values()))
    known = list(first["slices"][OVERALL]["parts"])
    if part not in known:
        raise InputError(
            f'the table asks for part "{part}", but the results have {", ".join(known)}; name one of these'
        )
    percent = all(part in result["binary"] for result in results.values())
    columns = columns_of(first)
    rows = [
        {"model": name, "baseline": False, "percent": percent}
        | {"slices": {s: result["slices"][s]["parts"][part] for s in columns}}
        for name, result in results.items()
    ]
    for name, parts in first["slices"][OVERALL]["baselines"].items():
        if part in parts:
            cells = {s: first["slices"][s]["baselines"][name][part] for s in columns}
            rows.append({"model": name, "baseline": True, "percent": percent, "slices": cells})
    return rows


def columns_of(result: Result) -> list[str]:
    """The slices of a result in the order of the paper: unchanged, changed, any others, overall."""
    order = {"unchanged": 0, "changed": 1, OVERALL: 3}
    return sorted(result["slices"], key=lambda name: (order.get(name, 2), name))


def markdown_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """``paper_table`` rows as Markdown, each cell ``mean [low, high]``: percent for 0/1 parts, else plain numbers."""
    if not rows:
        return ""
    columns = list(rows[0]["slices"])
    unit = " (%)" if rows[0]["percent"] else ""
    lines = ["| model | " + " | ".join(f"{c}{unit}" for c in columns) + " |", "|---" + "|---:" * len(columns) + "|"]
    for row in rows:
        name = f"*{row['model']}*" if row["baseline"] else row["model"]
        cells = [cell_text(row["slices"][c], row["percent"]) for c in columns]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return "\n".join(lines)


def cell_text(interval: Mapping[str, Any], percent: bool, sign: bool = False) -> str:
    """``38.9 [37.1, 40.7]``: a mean with its interval, times 100 for percent."""
    values = [interval[key] for key in ("mean", "low", "high") if interval[key] is not None]
    plus = "+" if sign else ""
    texts = [f"{100 * v:{plus}.1f}" if percent else f"{v:{plus}.3f}" for v in values]
    texts = [t.lstrip("+-") if float(t) == 0 else t.replace("-", "−") for t in texts]
    return texts[0] if len(texts) < 3 else f"{texts[0]} [{texts[1]}, {texts[2]}]"


def _means(table: np.ndarray, names: Sequence[str], binary: Sequence[str]) -> dict[str, Any]:
    """``parts`` and ``best_of`` of a table [rows, samples, parts]."""
    means, best = table.mean(axis=1), table.max(axis=1)
    ranked = [name for name in names if table.shape[1] > 1 and name in ("value", *binary)]
    return {
        "parts": {name: _interval(means[:, i], name in binary) for i, name in enumerate(names)},
        "best_of": {name: _interval(best[:, i], name in binary) for i, name in enumerate(names) if name in ranked},
    }


def _interval(values: np.ndarray, binary: bool) -> dict[str, Any]:
    """Wilson over rows for shares of right samples, else bootstrap over rows; samples of a row are not independent."""
    result: Interval = wilson(float(values.sum()), len(values)) if binary else bootstrap(values)
    return result.as_dict()


def _group(records: Sequence[Mapping[str, Any]]) -> list[list[dict[str, Any]]]:
    """Records of each row together, in the order of first appearance, checked, with ``numbers`` = parts and value."""
    if not records:
        raise InputError("no predictions to summarise: the split is empty, so choose another split or a higher limit")
    rows: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        rows.setdefault(record["id"], []).append({**record, "numbers": {**record["parts"], "value": record["value"]}})
    first = next(iter(rows.values()))
    for row_id, row in rows.items():
        if len(row) != len(first):
            raise InputError(f"row {row_id}: expected {len(first)} samples as for the first row, got {len(row)}")
        for record in row:
            _check(record, first[0])
    return list(rows.values())


def _check(record: Mapping[str, Any], first: Mapping[str, Any]) -> None:
    """Every record has the parts and baselines of the first, and only finite numbers."""
    sets = {"parts": (record["numbers"], first["numbers"]), "baselines": (record["baselines"], first["baselines"])}
    sets |= {f"baseline {name}": (record["baselines"].get(name, {}), p) for name, p in first["baselines"].items()}
    for what, (got, expected) in sets.items():
        if set(got) != set(expected):
            raise InputError(
                f"row {record['id']}, {what}: expected {sorted(expected)} as in row {first['id']}, got {sorted(got)}; "
                "let score() name all parts for every prediction, malformed ones too"
            )
    for part, number in record["numbers"].items():
        if not math.isfinite(number):
            raise InputError(f"row {record['id']}, part {part}: expected a finite number, got {number}; mend score()")


def _same_protocol(results: Sequence[Result]) -> None:
    first = results[0]
    for other in results[1:]:
        pair = f"results {first.get('name', '?')} and {other.get('name', '?')}"
        if other["fingerprint"] != first["fingerprint"]:
            keys = sorted(set(first["protocol"]) | set(other["protocol"]))
            differ = [key for key in keys if first["protocol"].get(key) != other["protocol"].get(key)]
            raise InputError(
                f"{pair} were measured under different protocols ({first['fingerprint']}, {other['fingerprint']}; "
                f"fields that differ: {', '.join(differ)}); evaluate both in the same way"
            )
        if other["rows"]["id"] != first["rows"]["id"]:
            raise InputError(f"{pair} hold different rows under one protocol; evaluate both on the same split")


def _slices(result: Result) -> dict[str, np.ndarray]:
    """Slice -> bool [rows]."""
    kinds = result["rows"]["kind"]
    return {slice_: np.array([slice_ in (OVERALL, kind) for kind in kinds]) for slice_ in columns_of(result)}


def _part_rows(results: Sequence[Result], part: str) -> np.ndarray:
    """[runs, rows]."""
    return np.array([result["rows"]["parts"][part] for result in results])


def _mean_rows(results: Sequence[Result], part: str) -> np.ndarray:
    return _part_rows(results, part).mean(axis=0)
