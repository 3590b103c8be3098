"""The tables of a report page: texts, and where on a bar each mean and its interval lie."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rlvr_world.evaluation.differences import across_seeds, runs_of
from rlvr_world.evaluation.summary import (
    OVERALL,
    PERCENT,
    Column,
    Result,
    Row,
    column,
    layout,
    markdown_table,
    table_rows,
)


def tables(results: Mapping[str, Result]) -> dict[str, Any]:
    """The tables of the models measured under one protocol."""
    first = next(iter(results.values()))
    return {
        "samples": first["slices"][OVERALL]["samples"],
        "panels": [_panel(results, title, columns) for title, columns in layout(results).items()],
        "fingerprint": first["fingerprint"],
        "protocol": flatten(first["protocol"]),
        "details": _details(results),
    }


def _panel(results: Mapping[str, Result], title: str, columns: Sequence[Column]) -> dict[str, Any]:
    """One table: of a headline part by slice, or of a slice by part."""
    rows, several = table_rows(results, columns), []
    for family in ("rl", "control"):
        runs = runs_of(results, family)
        if len(runs) > 1:
            several.append(family)
            at = next(i for i, row in enumerate(rows) if row.model.startswith(f"{family}/"))
            means = {c: across_seeds(list(runs.values()), c.slice, c.part) for c in columns}
            rows.insert(at, Row(f"{family}, mean of {len(runs)} seeds", means))
    slices = next(iter(results.values()))["slices"]
    return {
        "title": title,
        "by_slice": columns[0].by_slice,
        "rows": slices[columns[0].slice]["rows"],
        "columns": [
            {"name": c.title, "note": f"{slices[c.slice]['rows']:,} rows"}
            if c.by_slice
            else {"name": f"{c.title} {c.better}", "note": c.unit}
            for c in columns
        ],
        "table": [_table_row(row, {c: _range(rows, c) for c in columns}, several) for row in rows],
        "markdown": markdown_table(rows),
    }


def _range(rows: Sequence[Row], column: Column) -> tuple[float, float]:
    """Where the bars of a column start, and their span: 0 to 100 %, else all bounds but those of an untrained model,
    beside which all others would look the same."""
    trained = [row for row in rows if row.model != "base"] or rows
    cells = [cell for row in trained if (cell := row.cells[column])]
    bounds = [cell[key] for cell in cells for key in ("mean", "low", "high") if cell[key] is not None]
    low, high = (0.0, 1.0) if column.unit == "%" else (min(bounds), max(bounds))
    return low, (high - low) or 1.0


def _table_row(row: Row, ranges: Mapping[Column, tuple[float, float]], several: Sequence[str]) -> dict[str, Any]:
    """Texts and, in percent of the column, where the mean and its interval lie."""
    family = row.model.split("/")[0].split(",")[0]
    one_of_many = family in several and "/" in row.model
    style = "baseline" if row.baseline else "seed" if one_of_many else "model"
    cells = []
    for c, cell in row.cells.items():
        text, bracket, bounds = c.text(cell).partition("[")
        low, span = ranges[c]
        ends = [cell["mean"] if cell[k] is None else cell[k] for k in ("mean", "low", "high")] if cell else []
        places = [max(0.0, min(100.0, 100 * (value - low) / span)) for value in ends]
        cells.append({"text": text.rstrip(), "bounds": bracket + bounds, "places": places})
    return {"model": row.model, "style": style, "family": family, "cells": cells}


def _details(results: Mapping[str, Result]) -> dict[str, Any]:
    """What the tables leave out: by slice all other parts, and of every part the best of several samples; malformed
    answers. ``title`` is empty where there is nothing."""
    overall = next(iter(results.values()))["slices"][OVERALL]
    by_slice = next(iter(layout(results).values()))[0].by_slice
    columns = [column(results, OVERALL, part) for part in overall["parts"]]
    best_of = f"best of {overall['samples']}"
    rows = []
    for row in table_rows(results, columns):
        slice_ = {} if row.baseline else results[row.model]["slices"][OVERALL]
        cells = [[c.text(row.cells[c])] if by_slice else [] for c in columns]
        for c, lines in zip(columns, cells, strict=True):
            if c.part in slice_.get("best_of", ()):
                lines.append(f"{best_of}: {c.text(slice_['best_of'][c.part])}")
        if any(cells):
            rows.append({"model": row.model, "cells": [*cells, [PERCENT.text(slice_.get("malformed"))]]})
    title = "Every measured part, over all rows" if by_slice else f"The {best_of} predictions of each row, part by part"
    return {"title": title if rows else "", "columns": [*(c.heading for c in columns), "malformed (%)"], "rows": rows}


def flatten(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as (dotted name, value) pairs."""
    pairs: list[tuple[str, str]] = []
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            pairs += flatten(value, f"{prefix}{key}.")
        else:
            pairs.append((f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)))
    return pairs
