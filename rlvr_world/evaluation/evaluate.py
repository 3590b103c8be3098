"""A model over a split: sample, decode, score, and sum up with intervals, baselines and the protocol."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlvr_world.evaluation.summary import summarise
from rlvr_world.models import Model
from rlvr_world.sampling.engine import Sampling, sample
from rlvr_world.scoring import AT_ONCE, about, judge, score
from rlvr_world.types import Domain, Picture, Rollout, Score, Transition

GREEDY = Sampling(temperature=0.0)

PICTURES = 24
"""About how many rows a result keeps pictures of, spread over the split; texts are kept of all."""


@dataclass(frozen=True)
class Plan:
    """How a split is predicted: what a result depends on besides model, rows and domain."""

    sampling: Sampling = GREEDY
    samples: int = 1
    """Predictions a row, each with its own random stream (seed, row, sample)."""
    reject: str = ""
    """Draw again where this 0/1 part of the score is 1; empty keeps every draw."""
    attempts: int = 10
    """Most draws of a prediction under ``reject``; the last one stands."""
    max_rows: int = 512
    """Rollouts that grow at once (memory)."""
    seed: int = 0


def evaluate(
    model: Model, domain: Domain, rows: Sequence[Transition], plan: Plan, settings: dict[str, Any]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Result (see ``summarise``) and one shown prediction a row (its first sample).

    ``settings`` are the domain's settings that a number depends on; with the rows and the plan they make
    the protocol, whose fingerprint stands in the result.
    """
    records: list[dict[str, Any]] = []
    shown: list[dict[str, Any]] = []
    stride = max(1, len(rows) // PICTURES)
    answers = zip(rows, _predict(model, domain, rows, plan), _baselines(domain, rows), strict=True)
    for number, (row, answer, trivial) in enumerate(answers):
        for scored in answer.scores:
            numbers = {"parts": dict(scored.parts), "value": scored.value, "malformed": scored.malformed}
            records.append({"id": row.id, "kind": row.kind, "world": row.world, **numbers, "baselines": trivial})
        if isinstance(answer.explanation, str):
            shown.append({**_about(row, answer.scores[0]), "diff": answer.explanation})
        elif number % stride == 0:
            data = base64.b64encode(answer.explanation.data).decode()
            picture = f"data:{answer.explanation.media};base64,{data}"
            shown.append({**_about(row, answer.scores[0]), "picture": picture})
    protocol = {
        "rows": len(rows),
        "rows_hash": rows_hash(rows),
        "samples": plan.samples,
        **asdict(plan.sampling),
        **({"reject": plan.reject, "attempts": plan.attempts} if plan.reject else {}),
        "seed": plan.seed,
        **settings,
    }
    return summarise(records, protocol, domain.lower_is_better), shown


@dataclass
class _Answer:
    """What a model predicts for a row: the score of each sample, and the first sample explained."""

    scores: list[Score]
    explanation: str | Picture


def _predict(model: Model, domain: Domain, rows: Sequence[Transition], plan: Plan) -> list[_Answer]:
    """Answers with ``plan.samples`` samples a row; rejected samples are drawn again from further streams."""
    scripts = [domain.encode(row) for row in rows]
    streams: list[tuple[int, ...]] = [(plan.seed, i) for i in range(len(rows))]
    groups = sample(model, scripts, plan.samples, plan.sampling, streams, max_rows=plan.max_rows)
    answers = []
    for row, judged in zip(rows, _judged(domain, groups, rows), strict=True):
        with about(row):
            answers.append(_Answer([score for _, score in judged], domain.explain(judged[0][0], row)))
    for attempt in range(1, plan.attempts if plan.reject else 1):
        again = [
            (i, k) for i, answer in enumerate(answers) for k, s in enumerate(answer.scores) if s.parts[plan.reject]
        ]
        if not again:
            break
        streams = [(plan.seed, i, k, attempt) for i, k in again]
        groups = sample(model, [scripts[i] for i, _ in again], 1, plan.sampling, streams, max_rows=plan.max_rows)
        fresh = _judged(domain, groups, [rows[i] for i, _ in again])
        for (i, k), [(prediction, scored)] in zip(again, fresh, strict=True):
            answers[i].scores[k] = scored
            if k == 0:
                with about(rows[i]):
                    answers[i].explanation = domain.explain(prediction, rows[i])
    return answers


def _judged(
    domain: Domain, groups: Sequence[Sequence[Rollout]], rows: Sequence[Transition]
) -> Iterator[list[tuple[Any, Score]]]:
    return judge(domain, [[rollout.written for rollout in group] for group in groups], rows)


def _about(row: Transition, scored: Score) -> dict[str, Any]:
    return {
        "id": row.id,
        "kind": row.kind,
        "action": str(row.action),
        "right": scored.parts.get("exact") == 1,
        "reason": scored.malformed,
        "value": scored.value,
    }


def _baselines(domain: Domain, rows: Sequence[Transition]) -> list[dict[str, dict[str, float]]]:
    """For every row the numbers of each trivial prediction."""
    numbers: list[dict[str, dict[str, float]]] = []
    for start in range(0, len(rows), AT_ONCE):
        some, trivial = rows[start : start + AT_ONCE], []
        for row in some:
            with about(row):
                trivial.append(domain.baselines(row))
        scores = score(domain, [list(named.values()) for named in trivial], some)
        numbers += [
            {name: {**s.parts, "value": s.value} for name, s in zip(named, of_row, strict=True)}
            for named, of_row in zip(trivial, scores, strict=True)
        ]
    return numbers


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
