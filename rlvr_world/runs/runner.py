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
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from rlvr_world import overrides, recipes
from rlvr_world.config import Config, GuardConfig
from rlvr_world.errors import Halted, InputError, NonFinite
from rlvr_world.evaluation.evaluate import evaluate, save_result
from rlvr_world.evaluation.report import text_report, write_report
from rlvr_world.models.device import check_device
from rlvr_world.models.loading import load_model, world_of
from rlvr_world.recipes import Recipe, Splits
from rlvr_world.runs import jobs
from rlvr_world.runs.environment import write_environment
from rlvr_world.runs.folder import alone, room_on_disk
from rlvr_world.runs.guards import Guard
from rlvr_world.runs.jobs import Job, Run, learner_and_domain, plan
from rlvr_world.runs.stage import finished, run_stage
from rlvr_world.runs.stopping import stoppable
from rlvr_world.runs.tracking import Log
from rlvr_world.system import ranks
from rlvr_world.system.files import write_whole
from rlvr_world.training.grpo import GRPO

LEAST = {
    **dict.fromkeys(
        ("save_every", "forward_tokens", "batch", "max_rows", "at_once", "keep", "layers", "heads", "runs"), 1
    ),
    **dict.fromkeys(("seed", "steps", "eval_every", "threads", "rows", "valid_rows", "samples", "pretrain_steps"), 0),
    **dict.fromkeys(("lora_rank", "extremes", "sample", "flat_steps", "still_steps", "reject_attempts"), 0),
}
"""The least that whole numbers of these names may be, in any group of settings."""
HALTED = "halted.json"
"""In a run folder: why a guard stopped the run; gone when it goes on."""


def train(config: Config, folder: Path) -> Path:
    """Carry out every stage of a recipe; the report page. A folder that holds another config is refused.

    The config is written before rows are collected, so that a run that dies then can be resumed; it is gone again, with
    a folder that holds nothing else, where data, device or model prove wrong. Raises Halted where a guard or a full
    disk stops the run, Stop where the user does; both leave a folder that ``resume`` goes on with. Under torchrun its
    processes carry out one run.
    """
    stored = folder / "config.json"
    if stored.exists() and stored_config(folder) != config:
        raise InputError(f"{folder}: holds a run with another config; name another --out, or resume it")
    _check(config)
    if config.threads:
        torch.set_num_threads(config.threads)
    settings = overrides.to_json(config)
    with ranks.joined(config.model.device), stoppable(at_once=True), alone(folder), room_on_disk(folder):
        begun = stored.exists()
        ranks.by_first(lambda: write_whole(stored, json.dumps(settings, indent=2)))
        try:
            with ranks.first_ahead():
                parts = _checked_parts(config)
            run = Run(folder, config, *parts, Log(folder, config.trackers, settings))
        except (InputError, ModuleNotFoundError):
            if not begun and ranks.first():
                stored.unlink()
                if [path.name for path in folder.iterdir()] == [".lock"]:
                    shutil.rmtree(folder)
            raise
        ranks.by_first(lambda: _put_away(folder))
        try:
            return _carry_out(run)
        except (Halted, NonFinite) as error:
            ranks.let_first()
            write_whole(folder / HALTED, json.dumps({"said": str(error)}))
            write_report(folder)
            raise error if isinstance(error, Halted) else Halted(str(error)) from error


def _put_away(folder: Path) -> None:
    """What an earlier process left of its end."""
    (folder / HALTED).unlink(missing_ok=True)
    for partial in folder.glob("faults/.partial-*"):
        shutil.rmtree(partial)


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
    ranks.by_first(lambda: write_environment(run.folder))
    if first := run.recipe.first_stage(run.config):
        _train(run, jobs.first_job(run, first))
    with ranks.first_ahead():
        jobs.write_world(run)
        run.recipe.prepare(run.config, run.splits, run.world, run.folder)
        base = jobs.base_model(run)
    finals: dict[str, str | Path] = {"base": base}
    for job in jobs.model_jobs(run, base):
        finals[job.schedule.name] = _train(run, job)
    for name, model_folder in finals.items():
        _evaluate(run, name, model_folder)
    report = ranks.by_first(lambda: str(write_report(run.folder)))
    print(f"\n{text_report(run.folder)}\nreport: {report}")
    return Path(report)


def _train(run: Run, job: Job) -> Path:
    """A stage to its end, from wherever it stands."""
    if (done := finished(job.schedule)) is not None:
        return done
    stage, trained, validate = job.open()
    keep = run.config.checkpoints
    guard = Guard(run.config.guards, keep, collapses=isinstance(stage, GRPO)).watch(trained.watched)
    return run_stage(job.schedule, stage, trained, run.log, validate, keep, guard)


def _evaluate(run: Run, name: str, model_folder: str | Path) -> None:
    """A model over the test split; best-of-N too where the recipe asks for samples. Skipped when it stands for this
    very checkpoint: a stage that was extended is evaluated anew."""
    file = run.folder / "eval" / f"{name.replace('/', '-')}.json"
    if ranks.by_first(lambda: file.exists() and json.loads(file.read_text()).get("model") == Path(model_folder).name):
        return
    print(f"evaluating {name}", file=sys.stderr)
    learner, domain = learner_and_domain(run.recipe, run.config, model_folder, run.world)
    settings, protocol, once = run.config.eval, run.recipe.protocol(run.config), plan(run.config)
    plans = {name: (once, settings.rows or None)}
    if many := settings.samples:
        best = replace(once, sampling=replace(once.sampling, temperature=1.0), samples=many, reject="")
        plans = {f"best-of-{many}/{name}": (best, settings.sample_rows), **plans}
    for called, (how, rows) in plans.items():
        result, shown = evaluate(learner.policy, domain, run.splits.test[:rows], how, protocol)
        if ranks.first():
            save_result(run.folder, called, {"model": Path(model_folder).name, **result}, shown)


def _check(config: Config) -> None:
    """Numbers that a later stage could not work with."""
    for setting in overrides.settings(config):
        least = LEAST.get(setting.name, LEAST.get(setting.name.rpartition(".")[2]))
        if least is not None and isinstance(setting.value, int) and setting.value < least:
            raise InputError(f"{setting.name}: expected at least {least}, got {setting.value}")
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
    if not (path := folder / "config.json").exists():
        raise InputError(f"{folder}: expected a run folder with a config.json, found none; check the path")
    return read_config(path)


def read_config(path: Path, recipe: str = "") -> Config:
    """The config that a run wrote to this file; ``recipe`` names its recipe where that has moved."""
    try:
        data = json.loads(path.read_text())
    except ValueError:  # other text, or more digits than Python converts
        data = None
    if not isinstance(data, dict) or "recipe" not in data:
        raise InputError(f"{path}: expected the config of a run, got other data; name another --out or RUN to resume")
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
    learner, domain = learner_and_domain(recipe, config, model_folder, world_of(model_folder))
    rows = recipe.splits(config).test[: config.eval.rows or None]
    return evaluate(learner.policy, domain, rows, plan(config), recipe.protocol(config))[0]
