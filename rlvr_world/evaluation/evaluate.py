"""A model over a split: sample, decode, score, and sum up with intervals, baselines and the protocol."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rlvr_world.evaluation.summary import summarise
from rlvr_world.models import Model
from rlvr_world.sampling.engine import Sampling, sample
from rlvr_world.scoring import about, judge
from rlvr_world.types import Domain, Score, Transition

GREEDY = Sampling(temperature=0.0)


def evaluate(
    model: Model,
    domain: Domain,
    rows: Sequence[Transition],
    sampling: Sampling,
    samples: int,
    max_rows: int,
    settings: dict[str, Any],
    seed: int = 0,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Result (see ``summarise``) and one shown prediction a row (its first sample).

    ``settings`` are the domain's settings that a number depends on; with the rows, the sampling and the
    seed they make the protocol, whose fingerprint stands in the result.
    """
    scripts = [domain.encode(row) for row in rows]
    streams = [(seed, i) for i in range(len(rows))]
    groups = sample(model, scripts, samples, sampling, streams, max_rows=max_rows)
    records: list[dict[str, Any]] = []
    shown: list[dict[str, Any]] = []
    for row, group in zip(rows, groups, strict=True):
        with about(row):
            baselines = {name: _numbers(domain.score(p, row)) for name, p in domain.baselines(row).items()}
        for number, rollout in enumerate(group):
            prediction, score = judge(domain, rollout.written, row)
            records.append(
                {
                    "id": row.id,
                    "kind": row.kind,
                    "world": row.world,
                    "parts": dict(score.parts),
                    "value": score.value,
                    "malformed": score.malformed,
                    "baselines": baselines,
                }
            )
            if number == 0:
                with about(row):
                    diff = domain.explain(prediction, row)
                shown.append(
                    {
                        "id": row.id,
                        "kind": row.kind,
                        "action": str(row.action),
                        "right": score.parts.get("exact") == 1,
                        "reason": score.malformed,
                        "diff": diff,
                        "value": score.value,
                    }
                )
    protocol = {
        "rows": len(rows),
        "rows_hash": rows_hash(rows),
        "samples": samples,
        **asdict(sampling),
        "seed": seed,
        **settings,
    }
    return summarise(records, protocol), shown


def _numbers(score: Score) -> dict[str, float]:
    return {**score.parts, "value": score.value}


def rows_hash(rows: Sequence[Transition]) -> str:
    """First 12 hex digits of the SHA-256 of the rows, states and all, in order."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(repr(row).encode())
    return digest.hexdigest()[:12]


def save_result(run: Path, name: str, result: dict[str, Any], shown: list[dict[str, Any]]) -> None:
    """``eval/<name>.json`` and ``eval/samples-<name>.json`` (slashes in the name become dashes)."""
    folder = run / "eval"
    folder.mkdir(exist_ok=True)
    stem = name.replace("/", "-")
    _write_json(folder / f"samples-{stem}.json", shown)
    _write_json(folder / f"{stem}.json", {"name": name, **result})


def _write_json(path: Path, value: Any) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value))
    partial.replace(path)
