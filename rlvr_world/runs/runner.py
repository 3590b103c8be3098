"""A run from config to report: base model, SFT, RL and its control for each seed, evaluation, report page.

Every step is skipped when its result stands in the run folder, and continued from its last checkpoint
when it was cut short: starting a run and resuming it are the same function.

    RUN/config.json  metrics.jsonl  timings.jsonl  world/  base/  sft/step-*/  rl/seed0/step-*/  rl/seed0/rollouts/
        control/seed0/step-*/  eval/  report.html  faults/
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from rlvr_world import overrides, recipes
from rlvr_world.config import Config, GuardConfig
from rlvr_world.errors import Halted, InputError, NonFinite
from rlvr_world.evaluation.evaluate import Plan, evaluate, save_result
from rlvr_world.evaluation.report import text_report, write_report
from rlvr_world.models.device import check_device
from rlvr_world.models.loading import load_model, world_of
from rlvr_world.recipes import FirstStage, Recipe, Splits
from rlvr_world.runs.checkpoints import Counters
from rlvr_world.runs.folder import alone, room_on_disk
from rlvr_world.runs.guards import Guard, require
from rlvr_world.runs.jobs import (
    Job,
    Run,
    base_model,
    control_job,
    domain_of,
    load_learner,
    rl_job,
    sft_job,
    write_world,
)
from rlvr_world.runs.stage import Done, Schedule, finished, run_stage
from rlvr_world.runs.stopping import stoppable
from rlvr_world.runs.tracking import Log
from rlvr_world.sampling.engine import Sampling
from rlvr_world.system.files import write_whole
from rlvr_world.training.grpo import GRPO
from rlvr_world.training.learner import Learner
from rlvr_world.types import Domain

HALTED = "halted.json"
"""In a run folder: why a guard stopped the run; gone when it goes on."""


def train(config: Config, folder: Path) -> Path:
    """Carry out every stage of a recipe; the report page. A folder that holds another config is refused.

    The config is written before rows are collected, so that a run that dies then can be resumed; it is gone again, with
    a folder that holds nothing else, where data, device or model prove wrong. Raises Halted where a guard or a full
    disk stops the run, Stop where the user does; both leave a folder that ``resume`` goes on with.
    """
    stored = folder / "config.json"
    if stored.exists() and stored_config(folder) != config:
        raise InputError(
            f"{folder}: holds a run with another config; choose another --out, or `rlvr-world resume {folder}`"
        )
    _check(config)
    if config.threads:
        torch.set_num_threads(config.threads)
    settings = overrides.to_json(config)
    with stoppable(at_once=True), alone(folder), room_on_disk(folder):
        begun = stored.exists()
        write_whole(stored, json.dumps(settings, indent=2))
        try:
            run = Run(folder, config, *_checked_parts(config), Log(folder, config.trackers, settings))
        except (InputError, ModuleNotFoundError):
            if not begun:
                stored.unlink()
                if [path.name for path in folder.iterdir()] == [".lock"]:
                    shutil.rmtree(folder)
            raise
        (folder / HALTED).unlink(missing_ok=True)
        try:
            return _carry_out(run)
        except (Halted, NonFinite) as error:
            write_whole(folder / HALTED, json.dumps({"said": str(error)}))
            write_report(folder)
            raise error if isinstance(error, Halted) else Halted(str(error)) from error


def _checked_parts(config: Config) -> tuple[Recipe, Splits]:
    """The recipe with its rows, after a look at the device and at a model that is not made here."""
    device, recipe = check_device(config.model.device), recipes.find(config.recipe)
    splits = recipe.splits(config)
    if config.model.source != "scratch":
        model, tokenizer = load_model(config.model.source, device=device)
        if tokenizer is not None:
            recipe.domain(config, model, tokenizer, world_of(config.model.source)).encode(splits.sft[0])
    return recipe, splits


def _carry_out(run: Run) -> Path:
    config = run.config
    if first := run.recipe.first_stage(config):
        _train_first(run, first)
    write_world(run)
    run.recipe.prepare(config, run.splits, run.world, run.folder)
    start: str | Path = base_model(run)
    finals: dict[str, str | Path] = {"base": start}
    if config.sft.steps:
        start = finals["sft"] = _train(run, sft_job(run, start))[0]
    for seed in config.rl.seeds if config.rl.steps else ():
        finals[f"rl/seed{seed}"], counters = _train(run, rl_job(run, start, seed))
        if config.control.enabled:
            finals[f"control/seed{seed}"] = _train(run, control_job(run, start, seed, counters.tokens))[0]
    for name, model_folder in finals.items():
        _evaluate(run, name, model_folder)
    report = write_report(run.folder)
    print(f"\n{text_report(run.folder)}\nreport: {report}")
    return report


def _check(config: Config) -> None:
    """Numbers that a later stage could not work with."""
    if not config.rl.steps:
        return
    guard = Guard(config.guards, config.checkpoints, collapses=True)
    if config.guards.collapse == "rollback" and not config.rl.eval_every:
        raise InputError("rl.eval_every: expected more than 0 with guards.collapse=rollback, got 0; set it")
    for name, _, _, text in guard.limits if not config.rl.kl else ():
        if name == "kl" and text not in GuardConfig().limits:
            raise InputError(f"guards.limits: {text} is not watched where rl.kl=0; leave it out, or set rl.kl")
    for name, least in (("prompts", 1), ("group", 2), ("minibatches", 1)):
        if (got := getattr(config.rl, name)) < least:
            raise InputError(f"rl.{name}: expected at least {least}, got {got}; raise it, or set rl.steps=0")
    if config.rl.temperature <= 0:
        raise InputError(f"rl.temperature: expected more than 0, got {config.rl.temperature}; RL learns from samples")


def resume(folder: Path) -> Path:
    """Continue a run folder exactly where it was; takes nothing else."""
    return train(stored_config(folder), folder)


def stored_config(folder: Path) -> Config:
    path = folder / "config.json"
    if not path.exists():
        raise InputError(f"{folder}: expected a run folder with a config.json, found none; check the path")
    return read_config(path)


def read_config(path: Path, recipe: str = "") -> Config:
    """The config that a run wrote to this file; ``recipe`` names its recipe where that has moved."""
    try:
        data = json.loads(path.read_text())
    except json.JSONDecodeError:
        data = None
    if not isinstance(data, dict) or "recipe" not in data:
        raise InputError(
            f"{path}: expected the config of a run, got something else; name another --out or RUN to resume"
        )
    default = recipes.config_of(recipe or data["recipe"])
    return overrides.from_json(default, {**data, "recipe": default.recipe}, str(path))


def opened_run(folder: Path) -> Run:
    """A run folder to look into; nothing is written."""
    config = stored_config(folder)
    recipe = recipes.find(config.recipe)
    return Run(folder, config, recipe, recipe.splits(config), Log(folder))


def evaluate_model(model_folder: str | Path, config: Config) -> dict[str, Any]:
    """The result of any model folder or hub id on the test rows of the config's recipe."""
    recipe = recipes.find(config.recipe)
    learner = load_learner(config, model_folder, world_of(model_folder))
    domain = recipe.domain(config, learner.model, learner.tokenizer, learner.world)
    recipe.check_data(config, domain)
    rows = recipe.splits(config).test[: config.eval.rows or None]
    return evaluate(learner.policy, domain, rows, plan(config), recipe.protocol(config))[0]


def _train_first(run: Run, first: FirstStage) -> None:
    """The stage that a recipe needs before there can be a model."""

    def progress_of(counters: Counters) -> float:
        return counters.step / first.steps

    schedule = Schedule(first.name, run.folder / first.name, progress_of, first.save_every, first.eval_every)
    if finished(schedule) is None:
        stage = first.open()
        guard = Guard(run.config.guards, run.config.checkpoints).watching(stage.watched)
        run_stage(schedule, stage, stage, run.log, partial(first.validate, stage), run.config.checkpoints, guard)


def _train(run: Run, job: Job) -> Done:
    """A stage to its end, from wherever it stands."""
    if (done := finished(job.schedule)) is not None:
        return done
    stage, learner, domain = job.open()
    guard = Guard(run.config.guards, run.config.checkpoints, collapses=isinstance(stage, GRPO))
    guard.watching(learner.watched)
    validate = _validation(run, learner, domain)
    return run_stage(job.schedule, stage, learner, run.log, validate, run.config.checkpoints, guard)


def _validation(run: Run, learner: Learner, domain: Domain) -> Callable[[], dict[str, float]]:
    rows, best = run.splits.valid[: run.config.eval.valid_rows], run.config.checkpoints.best

    def validate() -> dict[str, float]:
        result, _ = evaluate(learner.policy, domain, rows, replace(plan(run.config), samples=1), {}, brief=True)
        numbers: dict[str, float] = {}
        for slice_, summed in result["slices"].items():
            means = {**summed["parts"], "malformed": summed["malformed"]}
            numbers |= {f"eval/{slice_}/{part}": interval["mean"] for part, interval in means.items()}
        if best and numbers:
            require("checkpoints.best", best.removeprefix("-"), numbers)
        return numbers

    return validate


def _evaluate(run: Run, name: str, model_folder: str | Path) -> None:
    """A model over the test split; best-of-N too where the recipe asks for samples. Skipped when it stands."""
    if (run.folder / "eval" / f"{name.replace('/', '-')}.json").exists():
        return
    print(f"evaluating {name}", file=sys.stderr)
    learner = load_learner(run.config, model_folder, run.world)
    domain = domain_of(run, learner)
    settings, protocol = run.config.eval, run.recipe.protocol(run.config)
    once = plan(run.config)
    if settings.samples:
        rows = run.splits.test[: settings.sample_rows]
        best = replace(once, sampling=replace(once.sampling, temperature=1.0), samples=settings.samples, reject="")
        save_result(
            run.folder, f"best-of-{settings.samples}/{name}", *evaluate(learner.policy, domain, rows, best, protocol)
        )
    rows = run.splits.test[: settings.rows or None]
    save_result(run.folder, name, *evaluate(learner.policy, domain, rows, once, protocol))


def plan(config: Config) -> Plan:
    """How a recipe has its test rows predicted."""
    settings = config.eval
    return Plan(
        Sampling(settings.temperature, settings.top_k),
        settings.runs,
        settings.reject,
        settings.reject_attempts,
        settings.max_rows,
        config.seed,
    )
