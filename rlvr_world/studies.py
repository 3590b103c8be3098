"""Questions asked of a finished run, each by one command; answers lie in ``RUN/studies``."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from rlvr_world import runner
from rlvr_world.config import Config
from rlvr_world.errors import InputError
from rlvr_world.evaluation.action_following import action_following
from rlvr_world.evaluation.plots import heat_map
from rlvr_world.evaluation.summary import OVERALL
from rlvr_world.training.checkpoint import latest
from rlvr_world.vision.metrics import LOWER_IS_BETTER

METRICS = ("mae", "mse", "psnr", "ssim", "lpips")
PAGE = """<!doctype html><meta charset="utf-8"><title>{title}</title>
<style>:root {{ --rl: #2f6fde; --ink: #555; --text: #222; }} body {{ font: 14px sans-serif; max-width: 44rem; }}</style>
<p>{title}</p>{figure}
"""


def study_actions(run: Path, actions: int, rows: int) -> dict[str, Any]:
    """``action_following`` of the likelihood start and of each RL seed; also ``RUN/studies/actions.json``."""
    config = runner.stored_config(run)
    answers = {}
    for name in ("sft", *(f"rl/seed{seed}" for seed in config.rl.seeds)):
        if model := latest(run / name):
            learner, domain, test = runner.opened(model, config, run)
            swaps = {"swap": domain.swap_action} if hasattr(domain, "swap_action") else {}
            some = test[: rows or None]
            answers[name] = action_following(learner.policy, domain, some, actions, runner.plan(config), **swaps)
    if not answers:
        raise InputError(f"{run}: holds no trained model yet; `rlvr-world resume {run}` goes on with it")
    _write(run / "studies" / "actions.json", answers)
    return answers


def study_metrics(run: Path, steps: int) -> Path:
    """Five RL runs from the likelihood start of ``run``, each rewarded by one metric alone, tested on all five.

    Each is a run folder of its own under ``RUN/studies/metrics``, and is resumed when cut short. Returns the heat map's
    page: the change of each metric (column) under each reward (row), relative to the start. Paper, figure 4c.
    """
    from rlvr_world.domains.video.config import VideoConfig

    config, start = runner.stored_config(run), latest(run / "sft")
    if not isinstance(config.data, VideoConfig) or start is None:
        raise InputError(f"{run}: expected a video run with a finished sft stage; give the folder of one")
    folder = run / "studies" / "metrics"
    table = []
    for metric in METRICS:
        runner.train(_rewarded_by(config, metric, run, start, steps), folder / metric)
        results = {name: _means(folder / metric, name) for name in ("base", f"rl-seed{config.rl.seeds[0]}")}
        before, after = results.values()
        table.append([after[column] / before[column] - 1 for column in METRICS])
    _write(folder / "changes.json", {"rewards": METRICS, "metrics": METRICS, "relative_change": table})
    title = "Relative change of each metric (columns) under each reward (rows), against the likelihood start"
    page = folder / "heat_map.html"
    page.write_text(PAGE.format(title=title, figure=heat_map(METRICS, METRICS, table, title, LOWER_IS_BETTER)))
    return page


def _rewarded_by(config: Config, metric: str, run: Path, start: Path, steps: int) -> Config:
    weights = {field.name: 0.0 for field in fields(config.data.reward) if isinstance(field.default, float)}
    reward = replace(config.data.reward, **{**weights, metric: 1.0})
    tokenizer = replace(config.data.tokenizer, source=config.data.tokenizer.source or str(latest(run / "tokenizer")))
    return replace(
        config,
        summary=f"RL rewarded by {metric} alone",
        data=replace(config.data, reward=reward, tokenizer=tokenizer),
        model=replace(config.model, source=str(start)),
        sft=replace(config.sft, steps=0),
        rl=replace(config.rl, steps=steps or config.rl.steps, seeds=config.rl.seeds[:1]),
        control=replace(config.control, enabled=False),
    )


def _means(run: Path, name: str) -> dict[str, float]:
    result = json.loads((run / "eval" / f"{name}.json").read_text())
    return {part: interval["mean"] for part, interval in result["slices"][OVERALL]["parts"].items()}


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1))
