"""A run from config to report: base model, SFT, RL and its control for each seed, evaluation, report page.

Every step is skipped when its result stands in the run folder, and continued from its last checkpoint
when it was cut short: starting a run and resuming it are the same function.

    RUN/config.json  metrics.jsonl  timings.jsonl  base/  sft/step-*/  rl/seed0/step-*/  rl/seed0/rollouts/
        control/seed0/step-*/  eval/  report.html  faults/
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich import print as say

from rlvr_world import models, overrides, recipes
from rlvr_world.config import Config, GuardConfig
from rlvr_world.errors import Halted, InputError, NonFinite
from rlvr_world.evaluation.evaluate import Plan, evaluate, save_result
from rlvr_world.evaluation.report import text_report, write_report
from rlvr_world.files import write_whole
from rlvr_world.recipes import Recipe, Splits
from rlvr_world.run_folder import alone, room_on_disk
from rlvr_world.sampling.engine import Sampling
from rlvr_world.training import checkpoint
from rlvr_world.training.checkpoint import Counters
from rlvr_world.training.grpo import GRPO
from rlvr_world.training.guards import Guard, require
from rlvr_world.training.learner import Learner
from rlvr_world.training.loop import Done, Stage, finished, run_stage
from rlvr_world.training.record import Recorder
from rlvr_world.training.sft import SFT, Encoded
from rlvr_world.training.stopping import stoppable
from rlvr_world.training.tracking import Log
from rlvr_world.types import Domain, Transition

HALTED = "halted.json"
"""In a run folder: why a guard stopped the run; gone when it goes on."""


@dataclass(frozen=True)
class Run:
    """A run folder and what it works with."""

    folder: Path
    config: Config
    recipe: Recipe
    splits: Splits
    log: Log


@dataclass(frozen=True)
class Job:
    """A stage of training, before anything of it is loaded."""

    name: str
    start: str | Path
    """The model that it starts from."""
    open: Callable[[], tuple[Stage, Learner, Domain]]
    progress_of: Callable[[Counters], float]
    save_every: int
    eval_every: int


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
    device, recipe = models.check_device(config.model.device), recipes.find(config.recipe)
    splits = recipe.splits(config)
    if config.model.source != "scratch":
        model, tokenizer = models.load_model(config.model.source, device=device)
        if tokenizer is not None:
            recipe.domain(config, model, tokenizer, None).encode(splits.sft[0])
    return recipe, splits


def _carry_out(run: Run) -> Path:
    config = run.config
    run.recipe.prepare(config, run.splits, run.folder, run.log)
    base = _base(run)
    start: str | Path = base
    finals: dict[str, str | Path] = {"base": base}
    if config.sft.steps:
        start = finals["sft"] = _train(run, _sft(run, base))[0]
    for seed in config.rl.seeds if config.rl.steps else ():
        finals[f"rl/seed{seed}"], counters = _train(run, _rl(run, start, seed))
        if config.control.enabled:
            finals[f"control/seed{seed}"] = _train(run, _control(run, start, seed, counters.tokens))[0]
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
    try:
        data = json.loads(path.read_text())
    except json.JSONDecodeError:
        data = None
    if not isinstance(data, dict) or "recipe" not in data:
        raise InputError(
            f"{path}: expected the config of a run, got something else; name another --out or RUN to resume"
        )
    return overrides.from_json(recipes.find(data["recipe"]).config(), data, str(path))


def opened(model_folder: str | Path, config: Config, run: Path | None) -> tuple[Learner, Domain, Sequence[Transition]]:
    """Any model folder or hub id, ready to use: with its domain, and the test rows of the recipe.

    ``run`` is the run folder that the model belongs to, if any.
    """
    recipe = recipes.find(config.recipe)
    learner = _learner(config, model_folder)
    domain = recipe.domain(config, learner.model, learner.tokenizer, run)
    return learner, domain, recipe.splits(config).test[: config.eval.rows or None]


def evaluate_model(model_folder: str | Path, config: Config, run: Path | None = None) -> dict[str, Any]:
    """The result of a model (see ``opened``) on a recipe's test split."""
    learner, domain, rows = opened(model_folder, config, run)
    return evaluate(learner.policy, domain, rows, plan(config), recipes.find(config.recipe).protocol(config))[0]


def opened_run(folder: Path) -> Run:
    """A run folder to look into; nothing is written."""
    config = stored_config(folder)
    recipe = recipes.find(config.recipe)
    return Run(folder, config, recipe, recipe.splits(config), Log(folder))


def job(run: Run, name: str) -> Job:
    """A stage of a run by its name: ``sft``, ``rl/seed0``, ``control/seed0``. Raises InputError for another name."""
    config = run.config
    base = _base(run)
    start = checkpoint.latest(run.folder / "sft") if config.sft.steps else base
    jobs = [_sft(run, base)] if config.sft.steps else []
    for seed in config.rl.seeds if config.rl.steps and start else ():
        jobs.append(_rl(run, start or base, seed))
        if config.control.enabled and (ended := checkpoint.latest(run.folder / jobs[-1].name)):
            jobs.append(_control(run, start or base, seed, checkpoint.read_counters(ended).tokens))
    known = {one.name: one for one in jobs}
    if name not in known:
        raise InputError(f"{run.folder}: expected a stage that it has come to ({', '.join(known)}), got {name!r}")
    return known[name]


def _base(run: Run) -> str:
    """The model that training starts from; one from scratch is made once and kept in ``base/``."""
    if run.config.model.source != "scratch":
        return run.config.model.source
    base = run.folder / "base"
    if base.exists() and (fault := checkpoint.damage(base)):
        print(f"rlvr-world: {base} is damaged: {fault}; it is made again from the seed", file=sys.stderr)
        os.replace(base, run.folder / "damaged-base")
    if not base.exists():
        model, tokenizer = run.recipe.new_model(run.config, run.splits, run.folder)
        parameters = sum(p.numel() for p in model.parameters())
        say(f"a new model: {parameters / 1e6:.1f}M parameters, {model.config.vocab_size} tokens")
        partial_base = run.folder / ".partial-base"
        shutil.rmtree(partial_base, ignore_errors=True)
        partial_base.mkdir()
        models.save_model(model, tokenizer, partial_base)
        checkpoint.publish(partial_base, base)
    return str(base)


def _learner(config: Config, source: str | Path, optimizer: Any = None) -> Learner:
    model: models.Model
    model, tokenizer = models.load_model(str(source), device=models.check_device(config.model.device))
    if optimizer is not None and config.model.lora_rank:
        model = models.add_lora(model, config.model.lora_rank, config.model.lora_alpha)
    return Learner(model, tokenizer, config.model, optimizer or config.sft.optimizer)


def _sft(run: Run, base: str | Path) -> Job:
    return _likelihood(run, "sft", base, run.config, lambda c: c.step / run.config.sft.steps, run.config.seed)


def _control(run: Run, start: str | Path, seed: int, tokens: int) -> Job:
    """SFT from RL's start until it has processed as many tokens as RL did, sampling included."""
    sft = run.config.sft
    rate = replace(sft.optimizer, learning_rate=run.config.control.learning_rate)
    eval_every = sft.eval_every or max(1, sft.steps // 10)
    config = replace(run.config, sft=replace(sft, pretrain_steps=0, optimizer=rate, eval_every=eval_every))
    return _likelihood(run, f"control/seed{seed}", start, config, lambda c: c.tokens / max(1, tokens), 1000 + seed)


def _likelihood(
    run: Run, name: str, start: str | Path, config: Config, progress_of: Callable[[Counters], float], seed: int
) -> Job:
    def open_() -> tuple[Stage, Learner, Domain]:
        learner = _learner(config, start, config.sft.optimizer)
        domain = run.recipe.domain(config, learner.model, learner.tokenizer, run.folder)
        return SFT(learner, config.sft, Encoded(domain, run.splits.sft), seed), learner, domain

    return Job(name, start, open_, progress_of, config.sft.save_every, config.sft.eval_every)


def _rl(run: Run, start: str | Path, seed: int) -> Job:
    config, name = run.config.rl, f"rl/seed{seed}"

    def open_() -> tuple[Stage, Learner, Domain]:
        learner = _learner(run.config, start, config.optimizer)
        domain = run.recipe.domain(run.config, learner.model, learner.tokenizer, run.folder)
        recorder = Recorder(run.folder / name, run.config.record, seed)
        return GRPO(learner, config, domain, partial(run.splits.rl_epoch, seed), seed, recorder), learner, domain

    return Job(name, start, open_, lambda c: c.step / config.steps, config.save_every, config.eval_every)


def _train(run: Run, job: Job) -> Done:
    """A stage to its end, from wherever it stands."""
    folder = run.folder / job.name
    if (done := finished(folder, job.progress_of)) is not None:
        return done
    stage, learner, domain = job.open()
    rows = run.splits.valid[: run.config.eval.valid_rows]

    def validate() -> dict[str, float]:
        result, _ = evaluate(learner.policy, domain, rows, replace(plan(run.config), samples=1), {}, brief=True)
        numbers: dict[str, float] = {}
        for slice_, summed in result["slices"].items():
            means = {**summed["parts"], "malformed": summed["malformed"]}
            numbers |= {f"eval/{slice_}/{part}": interval["mean"] for part, interval in means.items()}
        if keep.best and numbers:
            require("checkpoints.best", keep.best.removeprefix("-"), numbers)
        return numbers

    keep = run.config.checkpoints
    guard = Guard(run.config.guards, keep, collapses=isinstance(stage, GRPO))
    guard.watch(learner.optimizer, learner.model)
    every = (job.save_every, job.eval_every)
    return run_stage(job.name, stage, learner, folder, run.log, job.progress_of, validate, *every, keep, guard)


def _evaluate(run: Run, name: str, model_folder: str | Path) -> None:
    """A model over the test split; best-of-N too where the recipe asks for samples. Skipped when it stands."""
    if (run.folder / "eval" / f"{name.replace('/', '-')}.json").exists():
        return
    say(f"evaluating {name}")
    learner = _learner(run.config, model_folder)
    domain = run.recipe.domain(run.config, learner.model, learner.tokenizer, run.folder)
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
