"""What every model said about every test row, packed for one page; and means by world and by verb.

samples by model, states -> one entry a row, all models side by side -> gzip -> base64 -> predictions.js
"""

from __future__ import annotations

import base64
import gzip
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rlvr_world.evaluation.intervals import of_mean
from rlvr_world.evaluation.summary import OVERALL, Result, runs_of
from rlvr_world.evaluation.tables import Row, Table, column_of, headline
from rlvr_world.types import verb_of

LONGEST = 4000
"""Characters of a state, an answer or a difference that the page shows; of longer ones its beginning and its end."""
LARGEST = 12_000_000
"""Characters that the predictions may take in the page."""
LINES = 40
"""Worlds, or verbs, that a table shows: those of the most rows."""
Samples = Mapping[str, Sequence[Mapping[str, Any]]]


def side_by_side(samples: Samples, states: Mapping[str, str]) -> list[dict[str, Any]]:
    """One entry a row: what it is, and by model what that said of it."""
    rows: dict[str, dict[str, Any]] = {}
    for model, of_model in samples.items():
        for sample in of_model:
            asked = {"id": sample["id"], "kind": sample["kind"], "world": sample.get("world", "")}
            action = {"action": _short(sample["action"]), "verb": verb_of(sample["action"])}
            row = rows.setdefault(sample["id"], {**asked, **action, "state": _short(states.get(sample["id"], ""))})
            texts = {key: _short(sample[key]) for key in ("text", "diff", "picture") if key in sample}
            others = {key: sample[key] for key in ("value", "right", "reason", "parts") if key in sample}
            row.setdefault("said", {})[model] = {**others, **texts, "columns": sample.get("columns", ())}
    return list(rows.values())


def _short(text: str) -> str:
    """A picture is shown whole, or it is none."""
    if text.startswith("data:image/") or len(text) <= LONGEST:
        return text
    return f"{text[: LONGEST // 2]}\n… {len(text) - LONGEST:,} characters left out …\n{text[-LONGEST // 2 :]}"


def packed(rows: Sequence[Mapping[str, Any]]) -> tuple[str, int]:
    """Rows as JSON, gzip and base64; and how many there are: every second, fourth ... where all would be too large.
    Pictures, of the first rows, take half of that."""
    step, room, light = 1, LARGEST // 2, []
    for row in rows:
        room -= len(row["state"]) + sum(len(said.get("picture", "")) for said in row["said"].values())
        bare = {model: {k: v for k, v in said.items() if k != "picture"} for model, said in row["said"].items()}
        light.append({**row, "said": bare, "state": ""} if room < 0 and bare != row["said"] else row)
    while True:
        text = json.dumps(light[::step], ensure_ascii=False, separators=(",", ":"))
        data = base64.b64encode(gzip.compress(text.encode(errors="replace"), mtime=0)).decode()
        if len(data) <= LARGEST or step >= len(rows):
            return data, len(light[::step])
        step *= 2


def breakdowns(results: Mapping[str, Result], samples: Samples) -> list[Table]:
    """A table by world and one by verb, where there are several: of each family of models, and of each baseline, the
    mean of the headline part over the rows, and over seeds, with its interval over rows."""
    first = next(iter(results.values()), None)
    if first is None:
        return []
    part = next(iter(parts)) if len(parts := headline(first["rows"]["parts"])) == 1 else "value"
    values: dict[str, Any] = {}
    for family in dict.fromkeys(name.split("/")[0] for name in results):
        values[family] = np.mean([run["rows"]["parts"][part] for run in runs_of(results, family).values()], axis=0)
    values |= {name: np.array(of[part]) for name, of in first["rows"]["baselines"].items() if part in of}
    verbs = {sample["id"]: verb_of(sample["action"]) for of_model in samples.values() for sample in of_model}
    named = {"world": first["rows"]["world"], "verb": [verbs.get(id_, "") for id_ in first["rows"]["id"]]}
    binary = part in first["binary"]
    columns = {n: column_of(part, 1, OVERALL, n, share=binary) for n in values}
    tables = []
    for title, names in named.items():
        lines, of_row = [], np.array(names)
        for name, count in Counter(filter(None, names)).most_common(LINES):
            picked = {columns[n]: v[of_row == name] for n, v in values.items()}
            cells = {c: of_mean(v, binary).as_dict() for c, v in picked.items()}
            lines.append(Row(f"{name} ({count:,} rows)", cells, ""))
        tables += [Table(title, lines)] if len(lines) > 1 else []
    return tables
