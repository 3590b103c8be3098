"""The stages of a run, before anything of them is loaded: likelihood training, RL and its control for each seed."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from rlvr_world import overrides
from rlvr_world.config import Config
from rlvr_world.errors import InputError
from rlvr_world.models import loading, lora
from rlvr_world.models.device import check_device
from rlvr_world.models.loading import WORLD, world_of
from rlvr_world.recipes import Recipe, Splits
from rlvr_world.runs import checkpoints
from rlvr_world.runs.checkpoints import Counters
from rlvr_world.runs.records import Recorder
from rlvr_world.runs.stage import Schedule, Stage
from rlvr_world.runs.tracking import Log
from rlvr_world.system.files import write_whole
from rlvr_world.training.grpo import GRPO
from rlvr_world.training.learner import Learner
from rlvr_world.training.sft import SFT, Encoded
from rlvr_world.types import Domain

WORLD_CONFIG = "config.json"
"""In a model's folder ``world``: the config of the run that it comes from."""


@dataclass(frozen=True)
class Run:
    """A run folder and what it works with."""

    folder: Path
    config: Config
    recipe: Recipe
    splits: Splits
    log: Log

    @property
    def world(self) -> Path:
        """What goes with every model of the run."""
        return self.folder / WORLD


@dataclass(frozen=True)
class Job:
    """A stage of training: when it saves and ends, and how it is opened."""

    schedule: Schedule
    start: str | Path
    """The model that it starts from."""
    open: Callable[[], tuple[Stage, Learner, Domain]]


def job(run: Run, name: str) -> Job:
    """A stage of a run by its name: ``sft``, ``rl/seed0``, ``control/seed0``. Raises InputError for another name."""
    config, base = run.config, base_model(run)
    start = checkpoints.latest(run.folder / "sft") if config.sft.steps else base
    jobs = {"sft": sft_job(run, base)} if config.sft.steps else {}
    for seed in config.rl.seeds if config.rl.steps and start else ():
        jobs[f"rl/seed{seed}"] = rl_job(run, start or base, seed)
        ended = checkpoints.latest(run.folder / f"rl/seed{seed}")
        if config.control.enabled and ended:
            tokens = checkpoints.read_counters(ended).tokens
            jobs[f"control/seed{seed}"] = control_job(run, start or base, seed, tokens)
    if name not in jobs:
        raise InputError(f"{run.folder}: expected a stage that it has come to ({', '.join(jobs)}), got {name!r}")
    return jobs[name]


def sft_job(run: Run, base: str | Path) -> Job:
    return _likelihood(run, "sft", base, run.config, lambda c: c.step / run.config.sft.steps, run.config.seed)


def control_job(run: Run, start: str | Path, seed: int, tokens: int) -> Job:
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
        learner = load_learner(config, start, run.world, config.sft.optimizer)
        domain = domain_of(run, learner)
        return SFT(learner, config.sft, Encoded(domain, run.splits.sft), seed), learner, domain

    schedule = Schedule(name, run.folder / name, progress_of, config.sft.save_every, config.sft.eval_every)
    return Job(schedule, start, open_)


def rl_job(run: Run, start: str | Path, seed: int) -> Job:
    config, name = run.config.rl, f"rl/seed{seed}"

    def open_() -> tuple[Stage, Learner, Domain]:
        learner = load_learner(run.config, start, run.world, config.optimizer)
        domain = domain_of(run, learner)
        recorder = Recorder(run.folder / name, run.config.record, seed)
        return GRPO(learner, config, domain, partial(run.splits.rl_epoch, seed), seed, recorder), learner, domain

    progress_of: Callable[[Counters], float] = lambda c: c.step / config.steps  # noqa: E731
    return Job(Schedule(name, run.folder / name, progress_of, config.save_every, config.eval_every), start, open_)


def load_learner(config: Config, source: str | Path, world: Path | None, optimizer: Any = None) -> Learner:
    """The model of a folder or hub id, to be trained under ``optimizer``, or only used where there is none."""
    model: Any
    model, tokenizer = loading.load_model(str(source), device=check_device(config.model.device))
    if optimizer is not None and config.model.lora_rank:
        model = lora.add_lora(model, config.model.lora_rank, config.model.lora_alpha)
    return Learner(model, tokenizer, config.model, optimizer or config.sft.optimizer, world)


def domain_of(run: Run, learner: Learner) -> Domain:
    """The domain of a model of the run; InputError where the run's rows are not of the model's kind."""
    domain = run.recipe.domain(run.config, learner.model, learner.tokenizer, learner.world)
    run.recipe.check_data(run.config, domain)
    return domain


def write_world(run: Run) -> None:
    """Write the folder that goes with every model of the run, once."""
    if run.world.exists():
        return
    partial_world = run.folder / ".partial-world"
    shutil.rmtree(partial_world, ignore_errors=True)
    partial_world.mkdir()
    config = run.recipe.write_world(run.config, partial_world, world_of(run.config.model.source), run.folder)
    write_whole(partial_world / WORLD_CONFIG, json.dumps(overrides.to_json(config), indent=2))
    os.replace(partial_world, run.world)


def base_model(run: Run) -> str:
    """The model that training starts from; one from scratch is made once and kept in ``base/``."""
    if run.config.model.source != "scratch":
        return run.config.model.source
    base = run.folder / "base"
    if base.exists() and (fault := checkpoints.damage(base)):
        print(f"rlvr-world: {base} is damaged: {fault}; it is made again from the seed", file=sys.stderr)
        os.replace(base, run.folder / "damaged-base")
    if not base.exists():
        model, tokenizer = run.recipe.new_model(run.config, run.splits, run.world)
        parameters = sum(p.numel() for p in model.parameters())
        print(f"a new model: {parameters / 1e6:.1f}M parameters, {model.config.vocab_size} tokens", file=sys.stderr)
        partial_base = run.folder / ".partial-base"
        shutil.rmtree(partial_base, ignore_errors=True)
        partial_base.mkdir()
        loading.save_model(model, tokenizer, partial_base, run.world)
        checkpoints.publish(partial_base, base)
    return str(base)
