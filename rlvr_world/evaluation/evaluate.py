"""A model over a split: sample, decode, score, and sum up with intervals, baselines and the protocol."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlvr_world.errors import InputError
from rlvr_world.evaluation.summary import summarise
from rlvr_world.models.head import Model
from rlvr_world.sampling.engine import Sampling, sample
from rlvr_world.scoring import about, baselines, judge
from rlvr_world.system import ranks
from rlvr_world.system.files import write_whole
from rlvr_world.system.progress import Update, progress
from rlvr_world.types import BatchDomain, Domain, Picture, Rows, Score, Script, Transition, Written

GREEDY = Sampling(temperature=0.0)
PICTURES = 24
"""About how many rows are kept with pictures, spread over the split; numbers and texts are kept of all."""


@dataclass(frozen=True)
class Plan:
    """How a split is predicted: what a result depends on besides model, rows and domain."""

    sampling: Sampling = GREEDY
    samples: int = 1  # predictions a row, each with its own random stream (seed, row, sample)
    reject: str = ""  # draw again where this 0/1 part of the score is 1; empty keeps every draw
    attempts: int = 10  # most draws of a prediction under ``reject``; the last one stands
    max_rows: int = 512  # rollouts that grow at once (memory)
    seed: int = 0


@dataclass(frozen=True)
class Shown:
    """How a person reads a state, and the tokens that a model wrote; without a tokenizer they stay numbers."""

    state: Callable[[Any], str | Picture]
    text: Callable[[Sequence[int]], str] = lambda ids: " ".join(map(str, ids))


def evaluate(
    model: Model,
    domain: Domain,
    rows: Rows,
    plan: Plan,
    settings: dict[str, Any],
    shown: Shown | None = None,
    brief: bool = False,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Result (see ``summarise``) and, where ``shown`` says how, a record of every row's first sample: ``id``, ``kind``,
    ``world``, ``action``, ``parts``, ``value``, ``right`` (None without a part ``exact``), ``reason`` (why malformed),
    ``state``, ``text`` (as written) and ``diff``; or, of some rows only, ``picture`` and its ``columns``. Ranks
    share the rows.

    ``settings`` are the domain's settings that a number depends on; with the rows and the plan they make the protocol.
    ``brief`` leaves out baselines and progress, for validation during training.
    """
    every = max(1, len(rows) // PICTURES)
    kept = range(0, len(rows) if shown else 0, every if isinstance(domain, BatchDomain) else 1)
    own = {i: rows[i] for i in ranks.mine(range(len(rows)))}
    with nullcontext(lambda *_: None) if brief else progress("evaluating", len(own), "rows") as update:
        scripts = {i: domain.encode(row) for i, row in own.items()}
        scores, firsts = _predict(model, domain, own, scripts, plan, kept, update)
    trivial = [{} for _ in own] if brief else baselines(domain, list(own.values()))
    answers: list[dict[str, Any]] = []
    for (i, row), named in zip(own.items(), trivial, strict=True):
        name = {"id": row.id, "kind": row.kind, "world": row.world}
        beside = {other: {**s.parts, "value": s.value} for other, s in named.items()}
        records = [
            {**name, "parts": dict(s.parts), "value": s.value, "malformed": s.malformed, "baselines": beside}
            for s in scores[i]
        ]
        said = []
        if shown:
            seen = _seen(domain, row, *firsts[i], shown, pictures=i % every == 0) if i in firsts else {}
            first: dict[str, Any] = {key: records[0][key] for key in ("parts", "value")}
            first["right"] = first["parts"]["exact"] == 1 if "exact" in first["parts"] else None
            said = [{**name, "action": str(row.action), **first, "reason": records[0]["malformed"], **seen}]
        answers.append({"records": records, "shown": said, "fits": scripts[i].fits})
    answers = ranks.gathered(answers, len(rows))
    records, samples = ([one for a in answers for one in a[kind]] for kind in ("records", "shown"))
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
    too_long = sum(not answer["fits"] for answer in answers)
    if too_long and not brief:
        say = f"of {too_long} of {len(rows)} test rows the true answer has more tokens than may be written"
        print(f"rlvr-world: {say}: no model can be right there; raise data.max_response", file=sys.stderr)
    return {**summarise(records, protocol, domain.lower_is_better), "too_long": too_long}, samples


def _predict(
    model: Model,
    domain: Domain,
    rows: Mapping[int, Transition],
    scripts: Mapping[int, Script],
    plan: Plan,
    kept: range,
    update: Update,
) -> tuple[dict[int, list[Score]], dict[int, tuple[Any, Written]]]:
    """The scores of ``plan.samples`` predictions of each row, by its number, and the first prediction of the rows in
    ``kept`` with what was written of it; rejected ones are drawn again from further streams."""
    scores: dict[int, list[Score]] = {}
    firsts: dict[int, tuple[Any, Written]] = {}
    streams: list[tuple[int, ...]] = [(plan.seed, i) for i in rows]
    drawn = sample(model, list(scripts.values()), plan.samples, plan.sampling, streams, plan.max_rows, update)
    groups = [[rollout.written for rollout in group] for group in drawn]
    for i, group, judged in zip(rows, groups, judge(domain, groups, list(rows.values())), strict=True):
        scores[i] = [score for _, score in judged]
        firsts |= {i: (judged[0][0], group[0])} if i in kept else {}
    parts = next((of_row[0].parts for of_row in scores.values()), None)
    if plan.reject and parts is not None and plan.reject not in parts:
        known = ", ".join(parts)
        raise InputError(f"eval.reject={plan.reject}: no such part of the score; there are: {known}")
    for attempt in range(1, plan.attempts if plan.reject else 1):
        again = [(i, k) for i, of_row in scores.items() for k, s in enumerate(of_row) if s.parts[plan.reject]]
        if not again:
            break
        update(len(rows), f"drawing {len(again)} predictions again")
        streams = [(plan.seed, i, k, attempt) for i, k in again]
        drawn = sample(model, [scripts[i] for i, _ in again], 1, plan.sampling, streams, plan.max_rows)
        groups = [[rollout.written] for [rollout] in drawn]
        fresh = judge(domain, groups, [rows[i] for i, _ in again])
        for (i, k), [(prediction, scored)], [written] in zip(again, fresh, groups, strict=True):
            scores[i][k] = scored
            firsts |= {i: (prediction, written)} if k == 0 and i in kept else {}
    return scores, firsts


def _seen(
    domain: Domain, row: Transition, prediction: Any, written: Written, shown: Shown, pictures: bool
) -> dict[str, Any]:
    """The state, what a model wrote, and its prediction beside what really happened; pictures where asked for."""
    with about(row):
        state, explained = shown.state(row.state), domain.explain(prediction, row)
    given = {"state": state.uri if isinstance(state, Picture) else state} if pictures or isinstance(state, str) else {}
    if isinstance(explained, str):
        return {**given, "text": "\n".join(map(shown.text, written)), "diff": explained}
    return {**given, "picture": explained.uri, "columns": explained.columns} if pictures else given


def spread(rows: Rows, most: int) -> Rows:
    """``most`` of the rows, as far apart as can be, because files come world by world; 0 takes all."""
    return [rows[i * len(rows) // most] for i in range(most)] if 0 < most < len(rows) else rows


def rows_hash(rows: Rows) -> str:
    """First 12 hex digits of the SHA-256 of the rows, states and all, in order; of arrays every byte."""
    digest = hashlib.sha256()
    for row in rows:
        for value in (row.id, row.state, row.action, row.next_state, row.kind, row.world):
            if isinstance(value, np.ndarray):
                digest.update(f"{value.dtype} {value.shape}".encode() + value.tobytes())
            else:
                digest.update(f"{value!r}\n".encode())
    return digest.hexdigest()[:12]


def save_result(run: Path, name: str, result: dict[str, Any], samples: list[dict[str, Any]]) -> None:
    """``eval/<name>.json`` and ``eval/samples-<name>.json`` (slashes in the name become dashes), and the states, which
    all models on these rows share, once: ``eval/states-<rows hash>.json``."""
    folder, stem = run / "eval", name.replace("/", "-")
    states = {sample["id"]: sample.pop("state") for sample in samples if "state" in sample}
    write_whole(folder / f"states-{result['protocol']['rows_hash']}.json", json.dumps(states))
    write_whole(folder / f"samples-{stem}.json", json.dumps(samples))
    write_whole(folder / f"{stem}.json", json.dumps({"name": name, **result}))
