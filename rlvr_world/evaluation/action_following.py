"""Does a model listen to the action? The same states under several actions, judged against what really happened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rlvr_world.errors import InputError
from rlvr_world.evaluation.evaluate import Plan
from rlvr_world.evaluation.intervals import bootstrap
from rlvr_world.models.head import Model
from rlvr_world.sampling.engine import sample
from rlvr_world.scoring import judge
from rlvr_world.types import Domain, Transition


def action_following(
    model: Model, domain: Domain, rows: Sequence[Transition], actions: int, plan: Plan
) -> dict[str, Any]:
    """Every row under its own action and ``actions`` - 1 of others (``domain.swap_action``), drawn with ``plan.seed``.

    All draw from the same random stream, so predictions differ by the action alone; each is scored against what came
    of the row's own action. Returns means with intervals over rows: ``closest``, the share of rows whose own action's
    prediction scores best (ties share the point; chance is 1 / ``actions``), and ``closest_lpips``, the same by that
    part alone, of each of which less is better; ``gain``, its score minus the mean of the
    others; ``tokens_changed``, the share of written tokens that another action changes.
    Raises InputError for fewer than two actions, or fewer rows than actions.
    """
    if not 2 <= actions <= len(rows):
        raise InputError(f"actions: expected 2 to {len(rows)}, the number of test rows, got {actions}")
    rng = np.random.default_rng(plan.seed)
    swap = getattr(domain, "swap_action", lambda row, other: replace(row, action=other.action))
    asked: list[Transition] = []
    for i, row in enumerate(rows):
        others = rng.choice([j for j in range(len(rows)) if j != i], actions - 1, replace=False)
        asked += [row, *(swap(row, rows[j]) for j in others)]
    scripts = [domain.encode(row) for row in asked]
    streams = [(plan.seed, i // actions) for i in range(len(asked))]
    groups = sample(model, scripts, 1, plan.sampling, streams, max_rows=plan.max_rows)
    scores = judge(domain, [[rollout.written for rollout in group] for group in groups], asked)
    scored = [score for [(_, score)] in scores]
    values_RK = np.array([one.value for one in scored]).reshape(-1, actions)
    parts = [part for part in scored[0].parts if part in domain.lower_is_better]
    errors = {part: np.array([one.parts[part] for one in scored]).reshape(-1, actions) for part in parts}
    closest = {f"closest_{part}": _closest(-error_RK) for part, error_RK in errors.items()}
    gain_R = values_RK[:, 0] - values_RK[:, 1:].mean(1)
    written = [[token for segment in group[0].written for token in segment] for group in groups]
    changed = [_changed(written[i - i % actions], written[i]) for i in range(len(asked)) if i % actions]
    changed_R = np.reshape(changed, (len(rows), actions - 1)).mean(1)
    measured = {"closest": _closest(values_RK), **closest, "gain": gain_R, "tokens_changed": changed_R}
    intervals = {name: bootstrap(values).as_dict() for name, values in measured.items()}
    return {"rows": len(rows), "actions": actions, "chance": 1 / actions, **intervals}


def _closest(values_RK: np.ndarray) -> np.ndarray:
    """Whether the first of each row is the best, float [R]."""
    best_R = values_RK.max(1)
    return (values_RK[:, 0] == best_R) / (values_RK == best_R[:, None]).sum(1)


def _changed(a: Sequence[int], b: Sequence[int]) -> float:
    """Share of tokens that differ; where lengths do too, what only one has counts as changed."""
    return 1 - sum(x == y for x, y in zip(a, b, strict=False)) / max(len(a), len(b), 1)
