"""What fits together: the records (one a row and sample) of a result, and the results of a table or comparison."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rlvr_world.errors import InputError


def by_row(records: Sequence[Mapping[str, Any]]) -> list[list[dict[str, Any]]]:
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


def same_protocol(results: Sequence[Mapping[str, Any]]) -> None:
    """Raises InputError, which names the fields that differ, unless the results were measured in the same way."""
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
