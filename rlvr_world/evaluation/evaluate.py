"""A model over a split: sample, decode, score, and sum up with intervals, baselines and the protocol."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlvr_world.errors import InputError
from rlvr_world.evaluation.summary import summarise
from rlvr_world.models.head import Model
from rlvr_world.sampling.engine import Sampling, sample
from rlvr_world.scoring import AT_ONCE, about, judge, score
from rlvr_world.system.files import write_whole
from rlvr_world.types import (
    BatchDomain,
    Domain,
    Picture,
    Rollout,
    Score,
    Transition,
)

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
    model: Model,
    domain: Domain,
    rows: Sequence[Transition],
    plan: Plan,
    settings: dict[str, Any],
    brief: bool = False,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Result (see ``summarise``) and one shown prediction a row (its first sample); pictures of some rows only.

    ``brief`` leaves out baselines and shown predictions, for validation during training.

    ``settings`` are the domain's settings that a number depends on; with the rows and the plan they make
    the protocol, whose fingerprint stands in the result.
    """
    shown = set() if brief else set(range(0, len(rows), max(1, len(rows) // PICTURES)))
    if not brief and not isinstance(domain, BatchDomain):
        shown = set(range(len(rows)))
    answers = _predict(model, domain, rows, plan, shown)
    trivial = [{} for _ in rows] if brief else _baselines(domain, rows)
    records = [
        {**_row(row), "parts": dict(s.parts), "value": s.value, "malformed": s.malformed, "baselines": baselines}
        for row, answer, baselines in zip(rows, answers, trivial, strict=True)
        for s in answer.scores
    ]
    samples = [
        {**_row(row), **_first(row, answer.scores[0]), **_explained(answer.explanation)}
        for row, answer in zip(rows, answers, strict=True)
        if answer.explanation is not None
    ]
    protocol = {
        "rows": len(rows),
        "rows_hash": rows_hash(rows),
        "samples": plan.samples,
        **asdict(plan.sampling),
        **({"reject": plan.reject, "attempts": plan.attempts} if plan.reject else {}),
        "seed": plan.seed,
        "precision": str(next(model.parameters()).dtype).removeprefix("torch."),
        **settings,
    }
    return summarise(records, protocol, domain.lower_is_better), samples


@dataclass
class _Answer:
    """What a model predicts for a row: the score of each sample, and the first sample explained."""

    scores: list[Score]
    explanation: str | Picture | None


def _predict(
    model: Model, domain: Domain, rows: Sequence[Transition], plan: Plan, shown: Collection[int]
) -> list[_Answer]:
    """Answers with ``plan.samples`` samples a row; rejected samples are drawn again from further streams."""
    scripts = [domain.encode(row) for row in rows]
    streams: list[tuple[int, ...]] = [(plan.seed, i) for i in range(len(rows))]
    groups = sample(model, scripts, plan.samples, plan.sampling, streams, max_rows=plan.max_rows)
    answers = []
    for i, (row, judged) in enumerate(zip(rows, _judged(domain, groups, rows), strict=True)):
        with about(row):
            explanation = domain.explain(judged[0][0], row) if i in shown else None
        answers.append(_Answer([score for _, score in judged], explanation))
    if plan.reject and answers and plan.reject not in answers[0].scores[0].parts:
        known = ", ".join(answers[0].scores[0].parts)
        raise InputError(f"eval.reject={plan.reject}: no such part of the score; there are: {known}")
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
            if k == 0 and i in shown:
                with about(rows[i]):
                    answers[i].explanation = domain.explain(prediction, rows[i])
    return answers


def _judged(
    domain: Domain, groups: Sequence[Sequence[Rollout]], rows: Sequence[Transition]
) -> Iterator[list[tuple[Any, Score]]]:
    return judge(domain, [[rollout.written for rollout in group] for group in groups], rows)


def _row(row: Transition) -> dict[str, Any]:
    return {"id": row.id, "kind": row.kind, "world": row.world}


def _first(row: Transition, scored: Score) -> dict[str, Any]:
    right = scored.parts.get("exact") == 1
    return {"action": str(row.action), "right": right, "reason": scored.malformed, "value": scored.value}


def _explained(explanation: str | Picture | None) -> dict[str, str]:
    if isinstance(explanation, Picture):
        return {"picture": explanation.uri}
    return {"diff": explanation or ""}


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
    write_whole(folder / f"samples-{stem}.json", json.dumps(shown))
    write_whole(folder / f"{stem}.json", json.dumps({"name": name, **result}))
