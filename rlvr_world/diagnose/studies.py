"""Questions asked of a finished run, each by one command; answers lie in ``RUN/studies``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rlvr_world import recipes
from rlvr_world.config import Config
from rlvr_world.diagnose.rollouts import told
from rlvr_world.errors import InputError
from rlvr_world.evaluation.evaluate import Plan, spread
from rlvr_world.evaluation.intervals import bootstrap
from rlvr_world.evaluation.plots import save_heat_map
from rlvr_world.evaluation.summary import OVERALL
from rlvr_world.models.head import Model
from rlvr_world.overrides import override
from rlvr_world.runs import runner
from rlvr_world.runs.checkpoints import latest
from rlvr_world.runs.folder import models_of
from rlvr_world.runs.jobs import Run, learner_and_domain, plan
from rlvr_world.sampling.engine import Sampling, sample
from rlvr_world.scoring import judge
from rlvr_world.system.files import read_object, write_whole
from rlvr_world.system.progress import track
from rlvr_world.training.advantages import max_at_k
from rlvr_world.training.shared import scored
from rlvr_world.types import Domain, Rows, Transition


def study_actions(run: Path, actions: int, rows: int) -> dict[str, Any]:
    """``action_following`` of the likelihood start and of each RL seed; also ``RUN/studies/actions.json``."""
    opened, answers = runner.opened_run(run), {}
    for name, model in models_of(run).items():
        if not name.startswith("control"):
            learner, domain = learner_and_domain(opened.recipe, opened.config, model, opened.world)
            some = spread(spread(opened.splits.test, opened.config.eval.rows), rows)
            answers[name] = action_following(learner.policy, domain, some, actions, plan(opened.config))
    write_whole(run / "studies" / "actions.json", json.dumps(answers, indent=1))
    return answers


def action_following(model: Model, domain: Domain, rows: Rows, actions: int, plan: Plan) -> dict[str, Any]:
    """Every row under its own action and ``actions`` - 1 of others (``domain.swap_action``), drawn with ``plan.seed``.

    All draw from the same random stream, so predictions differ by the action alone; each is scored against what came
    of the row's own action. Returns means with intervals over rows: ``closest``, the share of rows whose own action's
    prediction scores best (ties share the point; chance is 1 / ``actions``), and ``closest_lpips``, the same by that
    part alone, of each of which less is better; ``gain``, its score minus the mean of the others; ``tokens_changed``,
    the share of written tokens that another action changes.
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


def study_best_of(run: Path, samples: int, rows: int) -> str:
    """The expected best reward of 1 to ``samples`` draws a row, of each model, and from how many draws on the start of
    RL does as well as RL, whose draws differ less; also ``RUN/studies/best-of.json`` and ``.png``. Paper, figure 4a."""
    opened = runner.opened_run(run)
    base = {} if (source := opened.config.model.source) == "scratch" else {"base": Path(source)}
    some, bests = spread(opened.splits.test, rows), dict[str, Any]()
    for name, domain, groups in _drawn(opened, opened.config, some, samples, models_of(run) | base):
        judged = judge(domain, [[rollout.written for rollout in group] for group in groups], some)
        rewards = torch.tensor([[score.value for _, score in group] for group in judged])
        bests[name] = torch.stack([max_at_k(rewards, n) for n in range(1, samples + 1)], dim=1).numpy()
    at = [n for n in (1, 2, 4, 8, 16, 32, 64) if n < samples] + [samples]
    scores = {name: best[:, [n - 1 for n in at]].tolist() for name, best in bests.items()}
    text = told(run / "studies" / "best-of", scores, [row.world for row in some], at, ("best of", "reward"))
    start, trained = bests.get("sft", bests.get("base")), [one for name, one in bests.items() if name[:2] == "rl"]
    if start is None or not trained:
        return text
    behind = start.mean(0) < np.mean(trained, axis=(0, 1))
    first = "stays below" if behind.all() else f"from best of {behind.argmin() + 1} on does as well as"
    return f"{text}\n\nthe start of RL {first} RL"


def _drawn(opened: Run, config: Config, rows: Rows, samples: int, models: Mapping[str, Path]) -> Iterator[Any]:
    """Each model's name and domain, and so many rollouts of each row."""
    for name, model in track([*models.items()], "sampling", "models"):
        learner, domain = learner_and_domain(opened.recipe, config, model, opened.world)
        scripts, streams = [domain.encode(row) for row in rows], [(config.seed, i) for i in range(len(rows))]
        yield name, domain, sample(learner.policy, scripts, samples, Sampling(), streams, max_rows=config.eval.max_rows)


def study_energy(run: Path, samples: int, rows: int) -> str:
    """Whether frames are drawn as spread as the truth is: how far draws are from it, how far from each other (see
    ``data.reward.proper``), and the energy score, the first less half of the second; less is better. Intervals over
    episodes; also ``RUN/studies/energy.json``."""
    opened, measured = runner.opened_run(run), dict[str, list[list[float]]]()
    config = override(opened.config, ["data.reward.proper=true", "rl.advantage=none"])
    some = spread(opened.splits.test, rows)
    for name, domain, groups in _drawn(opened, config, some, samples, models_of(run)):
        for scores in scored(domain, groups, some):
            read = [(one.parts["apart"], one.value) for one in scores if "apart" in one.parts]
            if len(read) < 3:
                raise InputError(f"{run}: expected 3 draws a row that read, got {len(read)} of {samples} by {name}")
            others, value = np.mean(read, axis=0)
            far, apart = others - value, others * (len(read) - 2) / (len(read) - 1)  # see VideoDomain.among
            measured.setdefault(name, []).append([far, apart, far - apart / 2])
    at = ("far from the truth", "far from each other", "energy score")
    return told(run / "studies" / "energy", measured, [row.world for row in some], at, ("",))


def study_group_size(run: Path, sizes: Sequence[int], steps: int) -> str:
    """RL from the likelihood start of ``run`` with groups of each size, as many prompts a step: rewards of test rows.
    Each is a run of its own under ``RUN/studies/group-size``, resumed when cut short. Paper, figure 4b."""
    config, stem = runner.stored_config(run), run / "studies" / "group-size"
    if config.rl.advantage == "max@k":
        sizes = [size for size in sizes if size > config.rl.best_of]
    grouped = [override(config, [f"rl.group={size}"]) for size in sizes]
    pairs = [_rl_alone(one, f"group {one.rl.group}", run, steps, stem / str(one.rl.group)) for one in grouped]
    values = [[result["rows"]["parts"]["value"] for result in of] for of in zip(*pairs, strict=True)]
    scores = {name: list(zip(*of, strict=True)) for name, of in zip(("sft", "rl"), values, strict=True)}
    return told(stem, scores, pairs[0][0]["rows"]["world"], sizes, ("rollouts a group", "reward"))


def study_metrics(run: Path, steps: int) -> Path:
    """An RL run for each metric from the likelihood start of ``run``, rewarded by it alone and tested on all of them.

    Each is a run folder of its own under ``RUN/studies/metrics``, and is resumed when cut short. Returns the heat map:
    the change of each metric (column) under each reward (row), relative to the start. Paper, figure 4c.
    """
    config = runner.stored_config(run)
    rewarded = recipes.find(config.recipe).rewarded_by(config)
    if not rewarded:
        raise InputError(f"{run}: expected a video run with a finished sft stage; give the folder of one")
    folder, metrics = run / "studies" / "metrics", list(rewarded)
    table = []
    for metric, changed in rewarded.items():
        before, after = _rl_alone(changed, f"rewarded by {metric} alone", run, steps, folder / metric)
        old, new = (result["slices"][OVERALL]["parts"] for result in (before, after))
        table.append([new[column]["mean"] / old[column]["mean"] - 1 for column in metrics])
    changes = {"rewards": metrics, "metrics": metrics, "relative_change": table}
    write_whole(folder / "changes.json", json.dumps(changes, indent=1))
    title = "Relative change of each metric (columns) under each reward (rows)"
    return save_heat_map(folder / "heat_map.png", metrics, metrics, table, title, before["lower_is_better"])


def _rl_alone(config: Config, how: str, run: Path, steps: int, folder: Path) -> tuple[Any, Any]:
    """The results on test rows before and after RL from the likelihood start of ``run``, its first seed, ``how``."""
    start, seed = latest(run / "sft"), config.rl.seeds[0]
    if start is None:
        raise InputError(f"{run}: expected a run with a finished sft stage; give the folder of one")
    alone = [f"summary=RL, {how}", f"model.source={start}", "sft.steps=0", "control.enabled=false", f"rl.seeds={seed}"]
    runner.train(override(config, [*alone, f"rl.steps={steps or config.rl.steps}"]), folder)
    return read_object(folder / "eval" / "base.json"), read_object(folder / "eval" / f"rl-seed{seed}.json")
