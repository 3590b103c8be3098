"""Questions asked of a finished run, each by one command; answers lie in ``RUN/studies``."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlvr_world import recipes
from rlvr_world.config import Config
from rlvr_world.errors import InputError
from rlvr_world.evaluation.action_following import action_following
from rlvr_world.evaluation.plots import save_heat_map
from rlvr_world.evaluation.summary import OVERALL
from rlvr_world.runs import runner
from rlvr_world.runs.checkpoints import latest
from rlvr_world.runs.jobs import learner_and_domain, plan
from rlvr_world.system.files import write_whole


def study_actions(run: Path, actions: int, rows: int) -> dict[str, Any]:
    """``action_following`` of the likelihood start and of each RL seed; also ``RUN/studies/actions.json``."""
    opened = runner.opened_run(run)
    config, answers = opened.config, {}
    for name in ("sft", *(f"rl/seed{seed}" for seed in config.rl.seeds)):
        if model := latest(run / name):
            learner, domain = learner_and_domain(opened.recipe, config, model, opened.world)
            some = opened.splits.test[: config.eval.rows or None][: rows or None]
            answers[name] = action_following(learner.policy, domain, some, actions, plan(config))
    if not answers:
        raise InputError(f"{run}: holds no trained model yet; `rlvr-world resume {run}` goes on with it")
    _write(run / "studies" / "actions.json", answers)
    return answers


def study_metrics(run: Path, steps: int) -> Path:
    """An RL run for each metric from the likelihood start of ``run``, rewarded by it alone and tested on all of them.

    Each is a run folder of its own under ``RUN/studies/metrics``, and is resumed when cut short. Returns the heat map:
    the change of each metric (column) under each reward (row), relative to the start. Paper, figure 4c.
    """
    config, start = runner.stored_config(run), latest(run / "sft")
    rewarded = recipes.find(config.recipe).rewarded_by(config)
    if not rewarded or start is None:
        raise InputError(f"{run}: expected a video run with a finished sft stage; give the folder of one")
    folder, metrics = run / "studies" / "metrics", list(rewarded)
    table = []
    for metric, changed in rewarded.items():
        runner.train(_rl_alone(changed, metric, start, steps), folder / metric)
        files = (folder / metric / "eval" / f"{name}.json" for name in ("base", f"rl-seed{config.rl.seeds[0]}"))
        before, after = (json.loads(file.read_text()) for file in files)
        old, new = (result["slices"][OVERALL]["parts"] for result in (before, after))
        table.append([new[column]["mean"] / old[column]["mean"] - 1 for column in metrics])
    _write(folder / "changes.json", {"rewards": metrics, "metrics": metrics, "relative_change": table})
    title = "Relative change of each metric (columns) under each reward (rows)"
    return save_heat_map(folder / "heat_map.png", metrics, metrics, table, title, before["lower_is_better"])


def _rl_alone(config: Config, metric: str, start: Path, steps: int) -> Config:
    return replace(
        config,
        summary=f"RL rewarded by {metric} alone",
        model=replace(config.model, source=str(start)),
        sft=replace(config.sft, steps=0),
        rl=replace(config.rl, steps=steps or config.rl.steps, seeds=config.rl.seeds[:1]),
        control=replace(config.control, enabled=False),
    )


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(value, indent=1))
