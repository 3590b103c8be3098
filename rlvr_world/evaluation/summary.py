"""From scored predictions to the figures a report may state: means by slice, and tables of them.

    records (one for each row x sample) -> summarise -> result -> layout -> result_table -> markdown_table

A *slice* is one kind of row (changed, unchanged) or ``overall``. A *part* is a named number of a prediction, the reward
``value`` among them. A *result* is plain JSON. Knows no text or video.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from rlvr_world.errors import InputError
from rlvr_world.evaluation.checks import by_row, same_protocol
from rlvr_world.evaluation.intervals import Interval, bootstrap, units, wilson

OVERALL = "overall"
Result = Mapping[str, Any]
Cell = Mapping[str, Any]
"""An interval as JSON, with ``std`` besides where a mean over rows was measured in several sampling runs."""

UNITS = dict.fromkeys(("mse", "mae", "ssim", "lpips"), "×100") | {"psnr": "dB", "exact": "%", "repetition": "%"}
"""How parts of these names are written, as in the paper's tables; ``lpips_alex`` is written as ``lpips`` is."""
NAMES = {"value": "reward", **{part: part.upper() for part in ("mse", "mae", "ssim", "lpips", "psnr")}}


def fingerprint(protocol: Mapping[str, Any]) -> str:
    """First 12 hex digits of the SHA-256 of the protocol's canonical JSON: equal means measured in the same way."""
    text = json.dumps(protocol, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def summarise(
    records: Sequence[Mapping[str, Any]], protocol: Mapping[str, Any], lower_is_better: Collection[str] = ()
) -> dict[str, Any]:
    """The result of one model over a split.

    ``records`` hold, for each row and sample: ``id``, ``kind``, ``world``, ``parts`` (name -> number), ``value``,
    ``malformed`` (reason or ""), ``baselines`` (name -> parts). Every record names the same parts, malformed or not,
    so that a missing number can never pass for a good or a bad one. ``value`` is reported as one more part. Where
    ``lower_is_better`` names one of the parts, more is better of all others; where it names none, only ``value`` and
    the 0/1 parts are taken to have a direction.

    Returns ``protocol``, ``fingerprint``, ``binary`` (parts that are 0 or 1), ``lower_is_better`` (of these parts),
    ``slices`` (slice -> ``rows``, ``samples``, ``parts``, ``malformed``, ``best_of``, ``run_std``, ``baselines``),
    ``malformed_reasons`` and ``rows``, the per-row means that comparisons pair. The mean over samples is pass@1;
    ``best_of`` is the mean over rows of the best sample, for parts with a direction; ``run_std`` is the standard
    deviation, over sampling runs (sample s of every row is run s), of the mean over rows.
    Intervals are over rows; over worlds where the protocol says ``"resample": "world"``, because its rows are alike.
    Raises InputError for records that do not fit together.
    """
    rows = by_row(records)
    worlds = np.array([row[0]["world"] for row in rows]) if resampled(protocol) == "worlds" else None
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
            "malformed": _interval(malformed[pick], True, within),
            "baselines": {
                name: {part: _interval(values[pick], part in binary, within) for part, values in parts.items()}
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
            "id": [row[0]["id"] for row in rows],
            "kind": kinds,
            "world": [row[0]["world"] for row in rows],
            "parts": {name: table[:, :, i].mean(axis=1).tolist() for i, name in enumerate(names)},
            "baselines": {name: {part: v.tolist() for part, v in parts.items()} for name, parts in base.items()},
        },
    }


def in_slice(kinds: Sequence[str], slice_: str) -> np.ndarray:
    """bool [rows]: which rows belong to a slice; a kind names one or several, separated by commas."""
    return np.array([slice_ == OVERALL or slice_ in kind.split(", ") for kind in kinds])


def resampled(protocol: Mapping[str, Any]) -> str:
    """What intervals are over: ``worlds`` or ``rows``."""
    return "worlds" if protocol.get("resample") == "world" else "rows"


def _means(
    table: np.ndarray,
    names: Sequence[str],
    binary: Collection[str],
    signs: Mapping[str, int],
    worlds: np.ndarray | None,
) -> dict[str, dict[str, Any]]:
    """``parts``, ``best_of`` and ``run_std`` of a table [rows, samples, parts]."""
    found: dict[str, dict[str, Any]] = {"parts": {}, "best_of": {}, "run_std": {}}
    for name, values in zip(names, np.moveaxis(table, 2, 0), strict=True):  # [rows, samples]
        found["parts"][name] = _interval(values.mean(axis=1), name in binary, worlds)
        if table.shape[1] > 1:
            found["run_std"][name] = float(values.mean(axis=0).std(ddof=1))
            if name in signs:
                best = signs[name] * (signs[name] * values).max(axis=1)
                found["best_of"][name] = _interval(best, name in binary, worlds)
    return found


def _interval(values: np.ndarray, binary: bool, worlds: np.ndarray | None) -> dict[str, Any]:
    """Wilson over rows for shares of right samples, else bootstrap; samples of a row are not independent."""
    alone = binary and worlds is None
    result: Interval = wilson(float(values.sum()), len(values)) if alone else bootstrap(units(values, worlds))
    return result.as_dict()


_SHOWN = {"mean": "{}", "std": " ± {}", "low": " [{}", "high": ", {}]"}


@dataclass(frozen=True)
class Column:
    """One column of a table: a part on a slice, and how its numbers are written.

    >>> Column("LPIPS", "overall", "lpips", "×100", 2, "↓").text({"mean": 0.122, "low": 0.121, "high": 0.1231})
    '12.20 [12.10, 12.31]'
    """

    title: str
    """What tells the columns of a table apart: the slice or the part."""
    slice: str
    part: str
    unit: str = ""
    decimals: int = 3
    better: str = ""
    """``↓`` where less is better, ``↑`` where more is, "" where the domain does not say."""

    @property
    def by_slice(self) -> bool:
        """Whether it stands among the slices of one part, not among the parts of one slice."""
        return self.title == self.slice

    @property
    def heading(self) -> str:
        """``LPIPS (×100) ↓``, or ``unchanged (%)``."""
        texts = (self.title, self.unit and f"({self.unit})", "" if self.by_slice else self.better)
        return " ".join(text for text in texts if text)

    def text(self, cell: Cell | None, sign: bool = False) -> str:
        """``38.9 ± 0.4 [37.1, 40.7]``: mean, deviation over sampling runs and interval, as far as they are known."""
        if cell is None:
            return "–"
        known = {key: scale_of(self.unit) * cell[key] for key in _SHOWN if cell.get(key) is not None}
        texts = {key: number_text(value, self.decimals, sign) for key, value in known.items()}
        return "".join(_SHOWN[key].format(text) for key, text in texts.items())


PERCENT = Column("", OVERALL, "", "%", 1)


def number_text(value: float, decimals: int, sign: bool = False) -> str:
    text = f"{value:{'+' if sign else ''}.{decimals}f}"
    return text.lstrip("+-") if float(text) == 0 else text.replace("-", "−")


def scale_of(unit: str) -> int:
    return 100 if unit in ("%", "×100") else 1


def unit_of(part: str) -> str:
    return UNITS.get(part.split("_")[0], "")


def decimals_of(unit: str, level: float) -> int:
    """Decimals that show three or four digits of a number of about ``level``."""
    digits, least = (4, 2) if unit == "×100" else (3, 3)
    size = math.floor(math.log10(abs(level) * scale_of(unit) or 1))
    return {"%": 1, "dB": 2}.get(unit) or min(4, max(least, digits - 1 - size))


def title_of(part: str) -> str:
    """``reward``, ``LPIPS``, ``LPIPS alex``, and other names as they are."""
    first, _, rest = part.partition("_")
    return f"{NAMES[first]} {rest}".strip() if first in NAMES else part


def arrow(part: str, lower: Collection[str]) -> str:
    """``↓`` where less is better, ``↑`` elsewhere; nothing where the domain does not tell parts apart."""
    return ("↓" if part in lower else "↑") if lower else ""


BESIDE = {"f1": ("precision", "recall", "exact"), "exact": ()}
"""Parts that speak for all where they are measured, and those that are shown beside them over all rows."""


def headline(parts: Iterable[str]) -> list[str]:
    """The parts that tables, findings and curves are about: ``f1`` or else ``exact`` alone where measured, else all.

    One part gets a table with slices as columns; several get a table a slice, with parts as columns.
    """
    parts = list(parts)
    return next(([part] for part in BESIDE if part in parts), parts)


def slice_order(names: Iterable[str]) -> list[str]:
    """The slices in the order of the paper: unchanged, changed, any others, overall."""
    order = {"unchanged": 0, "changed": 1, "navigation": 2, OVERALL: 4}
    return sorted(names, key=lambda name: (order.get(name, 3), name))


def layout(results: Mapping[str, Result], part: str = "") -> dict[str, list[Column]]:
    """The tables that show these results, by title: the columns of each. ``part`` asks for the slices of one part.

    Raises InputError when the results do not share a protocol or have no such part.
    """
    if not results:
        return {}
    same_protocol(list(results.values()))
    first = next(iter(results.values()))["slices"]
    known = list(first[OVERALL]["parts"])
    if part and part not in known:
        raise InputError(
            f'the table asks for part "{part}", but the results have {", ".join(known)}; name one of these'
        )
    parts = [part] if part else headline(known)
    if len(parts) == 1:
        by_slice = {parts[0]: [column(results, s, parts[0], s) for s in slice_order(first)]}
        beside = [] if part else [p for p in BESIDE.get(parts[0], ()) if p in known]
        return by_slice | ({OVERALL: [column(results, OVERALL, p) for p in [parts[0], *beside]]} if beside else {})
    apart = [s for s in slice_order(first) if first[s]["rows"] < first[OVERALL]["rows"]]
    return {s: [column(results, s, p) for p in parts] for s in (OVERALL, *apart)}


def column(results: Mapping[str, Result], slice_: str, part: str, title: str = "") -> Column:
    """Percent for 0/1 parts, else the part's unit; as many decimals as the models' median asks for."""
    lower = next(iter(results.values())).get("lower_is_better", [])  # results written before parts had a direction
    unit = "%" if all(part in result["binary"] for result in results.values()) else unit_of(part)
    level = median(abs(r["slices"][slice_]["parts"][part]["mean"]) for r in results.values())
    return Column(title or title_of(part), slice_, part, unit, decimals_of(unit, level), arrow(part, lower))


@dataclass(frozen=True)
class Row:
    """One row of a table: a model or a trivial baseline, and its cells by column; None where it lacks the part."""

    model: str
    cells: Mapping[Column, Cell | None]
    baseline: bool = False


def result_table(results: Mapping[str, Result]) -> list[Row]:
    """The first table of ``layout``: slices of the one headline part, or all parts over all rows."""
    return table_rows(results, next(iter(layout(results).values()), []))


def paper_table(results: Mapping[str, Result], part: str = "exact") -> list[Row]:
    """Rows in the layout of the paper's table 1: model | unchanged | changed | overall, trivial baselines last."""
    return table_rows(results, layout(results, part).get(part, []))


def table_rows(results: Mapping[str, Result], columns: Sequence[Column]) -> list[Row]:
    """Models in the order given, then baselines."""
    rows = []
    for name, result in results.items():
        cells = {}
        for c in columns:
            of_slice = result["slices"][c.slice]
            std = {"std": of_slice["run_std"][c.part]} if of_slice.get("run_std") else {}
            cells[c] = {**of_slice["parts"][c.part], **std}
        rows.append(Row(name, cells))
    slices = next(iter(results.values()))["slices"] if results else {}
    for name in slices[OVERALL]["baselines"] if slices else ():
        trivial = {c: slices[c.slice]["baselines"][name].get(c.part) for c in columns}
        if any(trivial.values()):
            rows.append(Row(name, trivial, baseline=True))
    return rows


def markdown_table(rows: Sequence[Row]) -> str:
    """Rows as Markdown, each cell ``mean [low, high]``."""
    if not rows:
        return ""
    columns = list(rows[0].cells)
    lines = ["| model | " + " | ".join(c.heading for c in columns) + " |", "|---" + "|---:" * len(columns) + "|"]
    for row in rows:
        name = f"*{row.model}*" if row.baseline else row.model
        lines.append("| " + " | ".join([name, *(c.text(row.cells[c]) for c in columns)]) + " |")
    return "\n".join(lines)
