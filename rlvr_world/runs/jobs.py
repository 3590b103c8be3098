"""The stages of a run, each with what opens it, and the models and folders that they start from."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rlvr_world import overrides, recipes
from rlvr_world.config import Config, OptimizerConfig, SFTConfig
from rlvr_world.errors import InputError
from rlvr_world.evaluation.evaluate import Plan, evaluate, spread
from rlvr_world.models.device import check_device
from rlvr_world.models.loading import WORLD, load_model, save_model, world_of
from rlvr_world.models.lora import add_lora
from rlvr_world.models.shards import whole
from rlvr_world.recipes import FirstStage, Recipe, Splits
from rlvr_world.runs import checkpoints
from rlvr_world.runs.guards import require
from rlvr_world.runs.records import Recorder
from rlvr_world.runs.stage import ProgressOf, Schedule, Stage, Validate
from rlvr_world.runs.tracking import Log
from rlvr_world.sampling.engine import Sampling, sample
from rlvr_world.sampling.servers import Servers
from rlvr_world.system import ranks
from rlvr_world.system.files import write_whole
from rlvr_world.training.grpo import GRPO
from rlvr_world.training.learner import Learner, shares
from rlvr_world.training.sft import SFT
from rlvr_world.training.shared import closed_loop
from rlvr_world.types import Domain, Rollout, Script, Streams, Transition

if TYPE_CHECKING:
    from rlvr_world.training.visual_tokenizer import VisualTokenizerTraining

WORLD_CONFIG = "config.json"
"""In a model's folder ``world``: the config of the run that it comes from."""
StageOf = Callable[[Learner, Domain], Stage]


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

    @property
    def validated(self) -> Sequence[Transition]:
        """The rows that validation is on."""
        closed = self.splits.closed_loop
        return spread(self.splits.valid if closed is None else closed, self.config.eval.valid_rows)


@dataclass(frozen=True)
class Job(Schedule):
    """A stage of training, and how it is opened."""

    start: str
    """The model that it starts from; empty where that is made by the stage."""
    open: Callable[[], tuple[Stage, Learner | VisualTokenizerTraining, Validate]]
    """The stage, what it trains, and what measures that on held-out data."""


def job(run: Run, name: str) -> Job:
    """A stage that a run has come to by its name, such as ``rl/seed0``. Raises InputError for another name."""
    first = run.recipe.first_stage(run.config)
    if first and first.name == name:
        return first_job(run, first)
    jobs = {one.name: one for one in model_jobs(run, base_model(run))}
    if name not in jobs:
        raise InputError(f"{run.folder}: expected a stage that it has come to ({', '.join(jobs)}), got {name!r}")
    return jobs[name]


def first_job(run: Run, first: FirstStage) -> Job:
    """What a recipe trains before there can be a model."""

    def open_() -> tuple[Stage, VisualTokenizerTraining, Validate]:
        stage = first.open()
        return stage, stage, partial(first.validate, stage)

    progress_of: ProgressOf = lambda c: c.step / first.steps  # noqa: E731
    return Job(first.name, run.folder / first.name, progress_of, first.save_every, first.eval_every, "", open_)


def model_jobs(run: Run, base: str) -> Iterator[Job]:
    """Likelihood training, then RL and its control for each seed, each known when those before it have results."""
    sft, rl, start = run.config.sft, run.config.rl, base
    if sft.steps:
        yield _likelihood(run, "sft", sft, lambda c: c.step / sft.steps, start, run.config.seed, run.splits.sft)
        start = str(checkpoints.latest(run.folder / "sft") or "")
    for seed in rl.seeds if rl.steps and start else ():
        yield _rl(run, f"rl/seed{seed}", start, seed)
        ended = checkpoints.latest(run.folder / f"rl/seed{seed}")
        if run.config.control.enabled and ended:
            yield _control(run, f"control/seed{seed}", start, seed, checkpoints.read_counters(ended).tokens)


def _rl(run: Run, name: str, start: str, seed: int) -> Job:
    config = run.config.rl

    def stage_of(learner: Learner, domain: Domain) -> Stage:
        keep = Recorder(run.folder / name, run.config.record, seed).keep if ranks.first() else None
        rows, asked = partial(run.splits.rl_epoch, seed), run.config.rollout
        exact, served = learner.dtype == torch.float32, run.folder / name / "served"
        return GRPO(learner, config, domain, rows, seed, keep, Servers(asked, served, exact) if asked.urls else None)

    return _job(run, name, config, lambda c: c.step / config.steps, start, stage_of)


def _control(run: Run, name: str, start: str, seed: int, tokens: int) -> Job:
    """SFT from RL's start until it has processed as many tokens as RL did, sampling included. Where SFT and RL have
    rows of their own, it fits those that RL draws from."""
    sft, rate = run.config.sft, run.config.control.learning_rate
    optimizer = replace(sft.optimizer, learning_rate=sft.optimizer.learning_rate if rate is None else rate)
    every = sft.eval_every or sft.steps // 10 or sft.save_every
    sft = replace(sft, pretrain_steps=0, optimizer=optimizer, eval_every=every)
    rows = run.splits.sft if run.splits.control is None else run.splits.control
    return _likelihood(run, name, sft, lambda c: c.tokens / max(1, tokens), start, 1000 + seed, rows)


def _likelihood(
    run: Run, name: str, config: SFTConfig, progress_of: ProgressOf, start: str, seed: int, rows: Sequence[Transition]
) -> Job:
    stage_of: StageOf = lambda learner, domain: SFT(learner, config, domain.encode, rows, seed)  # noqa: E731
    return _job(run, name, config, progress_of, start, stage_of)


def _job(run: Run, name: str, settings: Any, progress_of: ProgressOf, start: str, stage_of: StageOf) -> Job:
    def open_() -> tuple[Stage, Learner, Validate]:
        config = run.config
        if name != "sft":
            config = after_sft(config)
        learner, domain = learner_and_domain(run.recipe, config, start, run.world, settings.optimizer)
        return stage_of(learner, domain), learner, partial(_validate, run, learner, domain)

    return Job(name, run.folder / name, progress_of, settings.save_every, settings.eval_every, start, open_)


def after_sft(config: Config) -> Config:
    """The config as the stages after SFT train under it: without adapters where these are for SFT alone."""
    return replace(config, model=replace(config.model, lora_rank=0)) if config.model.lora_stages == "sft" else config


def _validate(run: Run, learner: Learner, domain: Domain) -> dict[str, float]:
    best, once = run.config.checkpoints.best, replace(plan(run.config), samples=1)
    with whole(learner.policy):
        rows, model = run.validated, learner.policy
        if run.splits.closed_loop is not None:

            def draw(scripts: Sequence[Script], streams: Streams) -> list[list[Rollout]]:
                return sample(model, scripts, 1, once.sampling, streams, once.max_rows)

            keys, depth = [(once.seed, i, 1) for i in range(len(rows))], getattr(domain, "closed_loop", 0)
            rows, _ = closed_loop(domain, draw, rows, keys, [depth] * len(rows))
        result, _ = evaluate(model, domain, rows, once, {}, brief=True)
    numbers: dict[str, float] = {}
    for slice_, summed in result["slices"].items():
        means = {**summed["parts"], "malformed": summed["malformed"]}
        numbers |= {f"eval/{slice_}/{part}": interval["mean"] for part, interval in means.items()}
    if best and numbers:
        require("checkpoints.best", best.removeprefix("-"), numbers)
    return numbers


def plan(config: Config) -> Plan:
    """How a recipe has its test rows predicted."""
    eval_, sampling = config.eval, Sampling(config.eval.temperature, config.eval.top_k)
    return Plan(sampling, eval_.runs, eval_.reject, eval_.reject_attempts, eval_.max_rows, config.seed)


def learner_and_domain(
    recipe: Recipe, config: Config, source: str | Path, world: Path | None, optimizer: OptimizerConfig | None = None
) -> tuple[Learner, Domain]:
    """``load_learner``, and the domain of that model; InputError where the rows are not of the model's kind."""
    learner = load_learner(config, source, world, optimizer)
    domain = recipe.domain(config, learner.model, learner.tokenizer, learner.world)
    recipe.check_data(config, domain)
    return learner, domain


def load_learner(
    config: Config, source: str | Path, world: Path | None, optimizer: OptimizerConfig | None = None
) -> Learner:
    """The model of a folder or hub id, to be trained under ``optimizer``, or only used where there is none."""
    model: Any
    device = check_device(config.model.device)
    model, tokenizer = load_model(str(source), "cpu" if shares(config.model, optimizer) else device)
    if optimizer is not None and config.model.lora_rank:
        model = add_lora(model, config.model.lora_rank, config.model.lora_alpha)
    return Learner(model, tokenizer, config.model, optimizer, world)


def write_world(run: Run) -> None:
    """Write the folder that goes with every model of the run, once."""
    if run.world.exists():
        return
    partial_world = checkpoints.fresh(run.folder / ".partial-world")
    fill_world(run.recipe, run.config, partial_world, world_of(run.config.model.source), run.folder)
    os.replace(partial_world, run.world)


def fill_world(recipe: Recipe, config: Config, folder: Path, start: Path | None, run: Path) -> None:
    """What the recipe puts there, and the config that goes with it."""
    kept = recipe.write_world(config, folder, start, run)
    write_whole(folder / WORLD_CONFIG, json.dumps(overrides.to_json(kept), indent=2))


def adopt(config: Config, out: Path) -> None:
    """Write the model ``config.model.source``, trained elsewhere, as a folder that needs nothing beside it: weights as
    they are, what its tokens mean in config.json, and the folder ``world``. Raises InputError where they do not fit."""
    if out.exists():
        raise InputError(f"{out}: is there already; name a new folder")
    config = replace(config, model=replace(config.model, device="auto"))  # nothing here needs a GPU
    recipe = recipes.find(config.recipe)
    model, _ = load_model(config.model.source, text=False)
    folder = checkpoints.fresh(out.with_name(f".partial-{out.name}"))
    try:
        (folder / WORLD).mkdir()
        fill_world(recipe, config, folder / WORLD, None, folder)
        recipe.adopt(config, model, folder / WORLD)
        save_model(model, None, folder)
        checkpoints.publish(folder, out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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
        partial_base = checkpoints.fresh(run.folder / ".partial-base")
        save_model(model, tokenizer, partial_base, run.world)
        checkpoints.publish(partial_base, base)
    return str(base)
