"""Tables of results: models and trivial baselines as rows; the slices of one part, or all parts, as columns."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from rlvr_world.evaluation.summary import OVERALL, Result, across_seeds, runs_of, same_protocol

Cell = Mapping[str, Any]
"""An interval as JSON, with ``std`` besides where a mean over rows was measured in several sampling runs."""
UNITS = dict.fromkeys(("mse", "mae", "ssim", "lpips"), "×100") | {"psnr": "dB", "exact": "%", "repetition": "%"}
"""How parts of these names are written, as in the paper's tables; ``lpips_alex`` is written as ``lpips`` is."""
NAMES = {"value": "reward", **{part: part.upper() for part in ("mse", "mae", "ssim", "lpips", "psnr")}}
NAMES |= {"shortest": "the shortest way", "left": "what is left"}
BESIDE = {
    "f1": ("precision", "recall", "exact", "outcome"),
    "exact": ("exact_published",),
    "success": ("shortest", "left"),
}
"""Parts that speak for all where they are measured, and those that are shown beside them over all rows."""
_SHOWN = {"mean": "{}", "std": " ± {}", "low": " [{}", "high": ", {}]"}


@dataclass(frozen=True)
class Column:
    """One column of a table: a part on a slice, and how its numbers are written.

    >>> Column("LPIPS", "overall", "lpips", "×100", 2, "↓").text({"mean": 0.122, "low": 0.121, "high": 0.1231})
    '12.20 [12.10, 12.31]'
    """

    title: str  # what tells the columns of a table apart: the slice or the part
    slice: str
    part: str
    unit: str = ""
    decimals: int = 3
    better: str = ""

    @property
    def heading(self) -> str:
        """``LPIPS (×100) ↓``, or ``unchanged (%)``."""
        return " ".join(text for text in (self.title, self.unit and f"({self.unit})", self.better) if text)

    @property
    def scale(self) -> int:
        return 100 if self.unit in ("%", "×100") else 1

    def text(self, cell: Cell | None, sign: bool = False) -> str:
        """``38.9 ± 0.4 [37.1, 40.7]``: mean, deviation over sampling runs and interval, as far as they are known."""
        known = {key: self.scale * cell[key] for key in _SHOWN if cell.get(key) is not None} if cell else {}
        texts = {key: f"{value:{'+' if sign else ''}.{self.decimals}f}" for key, value in known.items()}
        texts = {key: t.lstrip("+-") if float(t) == 0 else t.replace("-", "−") for key, t in texts.items()}
        return "".join(_SHOWN[key].format(text) for key, text in texts.items()) or "–"


PERCENT = Column("", OVERALL, "", "%", 1)


def column_of(
    part: str,
    level: float = 1,
    slice_: str = OVERALL,
    title: str = "",
    lower: Collection[str] = (),
    share: bool = False,
) -> Column:
    """How a part is written: a share in percent, others in their unit, with three or four digits of numbers of about
    ``level``; with an arrow where the domain says of which parts less is better (``lower``)."""
    first, _, rest = part.partition("_")
    name = f"{NAMES[first]} {rest}".strip() if first in NAMES else part
    unit = "%" if share else UNITS.get(first, "")
    better = ("↓" if part in lower else "↑") if lower else ""
    column = Column(title or name, slice_, part, unit, better=better)
    digits, least = (4, 2) if unit == "×100" else (3, 3)
    size = math.floor(math.log10(abs(level) * column.scale or 1))
    return replace(column, decimals={"%": 1, "dB": 2}.get(unit) or min(4, max(least, digits - 1 - size)))


def headline(parts: Iterable[str]) -> list[str]:
    """What tables, verdicts and curves are about: ``f1``, ``exact`` or ``success`` alone where measured, else all."""
    parts = list(parts)
    return next(([part] for part in BESIDE if part in parts), parts)


def slice_order(names: Iterable[str]) -> list[str]:
    """The slices in the order of the paper: unchanged, changed, any others, overall."""
    order = {"unchanged": 0, "changed": 1, "navigation": 2, OVERALL: 4}
    return sorted(names, key=lambda name: (order.get(name, 3), name))


@dataclass(frozen=True)
class Row:
    """One row of a table: a model or a trivial baseline, and its cells by column; None where it lacks the part."""

    model: str
    cells: Mapping[Column, Cell | None]
    style: str = "model"  # or "seed" (one of several, whose mean has a row of its own), or "baseline"


@dataclass(frozen=True)
class Table:
    """``title`` is the part whose slices are the columns, or the slice whose parts are."""

    title: str
    rows: Sequence[Row]

    @property
    def columns(self) -> list[Column]:
        return list(self.rows[0].cells)

    @property
    def by_slice(self) -> bool:
        return self.columns[0].part == self.title


def tables(results: Mapping[str, Result]) -> list[Table]:
    """The tables that show these results: of a headline of one part one table by slice, of several a table a slice.
    Raises InputError when the results do not share a protocol."""
    if not results:
        return []
    same_protocol(list(results.values()))
    slices = next(iter(results.values()))["slices"]
    known, names = list(slices[OVERALL]["parts"]), slice_order(slices)
    if len(parts := headline(known)) == 1:
        by_slice = [_column(results, name, parts[0], name) for name in names]
        beside = [_column(results, OVERALL, part) for part in BESIDE.get(parts[0], ()) if part in known]
        return [Table(parts[0], _rows(results, by_slice + beside))]
    apart = [name for name in names if slices[name]["rows"] < slices[OVERALL]["rows"]]
    return [Table(name, _rows(results, [_column(results, name, part) for part in parts])) for name in (OVERALL, *apart)]


def _column(results: Mapping[str, Result], slice_: str, part: str, title: str = "") -> Column:
    """As these results ask for: the models' median is the level, and a part that is always 0 or 1 a share."""
    level = median(abs(r["slices"][slice_]["parts"][part]["mean"]) for r in results.values())
    share = all(part in result["binary"] for result in results.values())
    return column_of(part, level, slice_, title, next(iter(results.values()))["lower_is_better"], share)


def _rows(results: Mapping[str, Result], columns: Sequence[Column]) -> list[Row]:
    """Models in the order given, several seeds after their mean, then baselines."""
    rows = []
    for name, result in results.items():
        family = name.split("/")[0]
        if (several := len(runs := runs_of(results, family)) > 1) and result is next(iter(runs.values())):
            means = {c: across_seeds(list(runs.values()), c.slice, c.part) for c in columns}
            rows.append(Row(f"{family}, mean of {len(runs)} seeds", means))
        slices, cells = result["slices"], {}
        for c in columns:
            std = {"std": slices[c.slice]["run_std"][c.part]} if slices[c.slice]["run_std"] else {}
            cells[c] = {**slices[c.slice]["parts"][c.part], **std}
        rows.append(Row(name, cells, "seed" if several else "model"))
    slices = next(iter(results.values()))["slices"]
    for name in slices[OVERALL]["baselines"]:
        trivial = {c: slices[c.slice]["baselines"][name].get(c.part) for c in columns}
        rows += [Row(name, trivial, "baseline")] if any(trivial.values()) else []
    return rows


def details(results: Mapping[str, Result]) -> Table:
    """Over all rows every measured part, malformed answers, and of several samples the best."""
    rows, known = [], list(next(iter(results.values()))["slices"][OVERALL]["parts"])
    columns = [_column(results, OVERALL, part) for part in known]
    columns += [] if "malformed" in known else [Column("malformed", OVERALL, "malformed", "%", 1)]
    for name, result in results.items():
        one = result["slices"][OVERALL]
        measured = {"malformed": one["malformed"], **one["parts"]}
        rows.append(Row(name, {c: measured[c.part] for c in columns}))
        if one["best_of"]:
            rows.append(Row(f"{name}, best of {one['samples']}", {c: one["best_of"].get(c.part) for c in columns}))
    return Table("details", rows)


def markdown_table(rows: Sequence[Row]) -> str:
    """Rows as Markdown, each cell ``mean [low, high]``."""
    head = ["model", *(column.heading for column in rows[0].cells)]
    names = (f"*{row.model}*" if row.style == "baseline" else row.model for row in rows)
    texts = ([column.text(cell) for column, cell in row.cells.items()] for row in rows)
    return markdown([head, *([name, *cells] for name, cells in zip(names, texts, strict=True))])


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Texts as a table, whose first row is its head; all columns but the first are numbers."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" + "|---:" * (len(rows[0]) - 1) + "|", *lines[1:]])
