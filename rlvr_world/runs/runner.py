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
from rlvr_world.config import Config
from rlvr_world.errors import Halted, InputError, NonFinite
from rlvr_world.evaluation.evaluate import Shown, evaluate, save_result, spread
from rlvr_world.evaluation.report import text_report, write_report
from rlvr_world.evaluation.summary import fingerprint
from rlvr_world.models.device import check_device
from rlvr_world.models.loading import known_kind, world_of
from rlvr_world.models.text_tokenizer import answer_text
from rlvr_world.runs import checkpoints, jobs, sources
from rlvr_world.runs.cards import write_cards, write_environment
from rlvr_world.runs.folder import alone, clear, has_trained, room_on_disk
from rlvr_world.runs.guards import Guard
from rlvr_world.runs.jobs import Job, Run, learner_and_domain, plan
from rlvr_world.runs.look import at_rows, at_settings, opened
from rlvr_world.runs.stage import finished, run_stage, stoppable
from rlvr_world.runs.tracking import Log
from rlvr_world.system import ranks
from rlvr_world.system.files import read_object, write_whole
from rlvr_world.training.grpo import GRPO

HALTED = "halted.json"
"""In a run folder: why a guard stopped the run; gone when it goes on."""


def train(config: Config, folder: Path) -> Path:
    """Carry out every stage of a recipe; the report page. A folder that holds another config is refused where something
    is trained in it, and else begun anew.

    The config is written before rows are collected, so that a run that dies then can be resumed; it is gone again, with
    a folder that holds nothing else, where data, device or model prove wrong. Raises Halted where a guard or a full
    disk stops the run, Stop where the user does; both leave a folder that ``resume`` goes on with. Under torchrun its
    processes carry out one run.
    """
    stored, config = folder / "config.json", sources.rooted(config)
    recipe = at_settings(config)
    check_device(config.model.device)
    if config.model.source != "scratch" and not has_trained(folder):
        known_kind(config.model.source)  # `check` does without: rows can be read where no hub is
    another = stored.exists() and stored_config(folder) != config
    if another and has_trained(folder):
        raise InputError(f"{folder}: holds a trained run with another config; name another --out, or resume it")
    if config.threads:
        torch.set_num_threads(config.threads)
    with ranks.joined(config.model.device), stoppable(at_once=True), alone(folder), room_on_disk(folder):
        begun = stored.exists() and not another
        if another and ranks.first():
            clear(folder)
        stands = ranks.by_first(lambda: sources.write_config(folder, config))
        try:
            log = Log(folder, config.trackers, overrides.to_json(config))
            with ranks.first_ahead():
                run = Run(folder, config, recipe, recipe.splits(config), log)
                if not has_trained(folder):
                    at_rows(run, *opened(run))
            if "" in stands.values() and ranks.first():  # of a hub, and here by now
                sources.write_config(folder, config)
        except (InputError, ModuleNotFoundError):
            if not begun and ranks.first():
                clear(folder)
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


def _carry_out(run: Run) -> Path:
    ranks.by_first(lambda: write_environment(run.folder))
    if first := run.recipe.first_stage(run.config):
        _train(run, jobs.first_job(run, first))
    with ranks.first_ahead():
        jobs.write_world(run)
    run.recipe.prepare(run.config, run.splits, run.world, run.folder)
    with ranks.first_ahead():
        base = jobs.base_model(run)
    finals: dict[str, str | Path] = {"base": base}
    for job in jobs.model_jobs(run, base):
        finals[job.name] = _train(run, job)
    for name, model_folder in finals.items():
        _evaluate(run, name, model_folder)
    report = ranks.by_first(lambda: str(write_report(run.folder)))
    if len(finals) > 1 and ranks.first():
        write_cards(run)
    print(f"\n{text_report(run.folder)}\nreport: {report}")
    return Path(report)


def _train(run: Run, job: Job) -> Path:
    """A stage to its end, from wherever it stands."""
    if (done := finished(job)) is not None:
        return done
    stage, trained, validate = job.open()
    keep = run.config.checkpoints
    guard = Guard(run.config.guards, keep, collapses=isinstance(stage, GRPO)).watch(trained.watched)
    return run_stage(job, stage, trained, run.log, validate, keep, guard)


def _evaluate(run: Run, name: str, model_folder: str | Path) -> None:
    """A model over the test split; best-of-N too where the recipe asks for samples. Skipped when it stands for these
    very bytes and settings: a stage that was extended is evaluated anew."""
    file = run.folder / "eval" / f"{name.replace('/', '-')}.json"
    settings, protocol, once = run.config.eval, run.recipe.protocol(run.config), plan(run.config)
    key = _belongs_to(model_folder, run.config, protocol)
    if ranks.by_first(lambda: file.exists() and key.items() <= read_object(file).items()):
        return
    print(f"evaluating {name}", file=sys.stderr)
    learner, domain = learner_and_domain(run.recipe, run.config, model_folder, run.world)
    plans = {name: (once, settings.rows)}
    if many := settings.samples:
        best = replace(once, sampling=replace(once.sampling, temperature=1.0), samples=many, reject="")
        plans = {f"best-of-{many}/{name}": (best, settings.sample_rows), **plans}
    shown = Shown(run.recipe.shown)
    if (tokenizer := learner.tokenizer) is not None:
        shown = replace(shown, text=lambda ids: answer_text(tokenizer, [ids]))
    for called, (how, rows) in plans.items():
        result, samples = evaluate(learner.policy, domain, spread(run.splits.test, rows), how, protocol, shown)
        if ranks.first():
            save_result(run.folder, called, {**key, **result}, samples)


def _belongs_to(model_folder: str | Path, config: Config, protocol: dict[str, Any]) -> dict[str, str]:
    """What a result is of: a model's name and bytes, and how it was asked."""
    asked = fingerprint({"eval": overrides.to_json(config.eval), "seed": config.seed, **protocol})
    return {"model": Path(model_folder).name, "checkpoint": checkpoints.identity(model_folder), "asked": asked}


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
    except (ValueError, RecursionError):  # other text, more digits than Python converts, brackets without end
        data = None
    if not isinstance(data, dict) or not isinstance(data.get("recipe"), str):
        raise InputError(f"{path}: expected the config of a run, got other data; name another --out or RUN to resume")
    data.pop(sources.SOURCES, None)
    default = recipes.config_of(recipe or data["recipe"])
    return overrides.from_json(default, {**data, "recipe": default.recipe}, str(path))


def opened_run(folder: Path) -> Run:
    """A run folder to look into; nothing is written."""
    config = stored_config(folder)
    sources.check(folder, config)
    recipe = recipes.find(config.recipe)
    return Run(folder, config, recipe, recipe.splits(config), Log(folder))


def evaluate_model(model_folder: str | Path, config: Config) -> dict[str, Any]:
    """The result of any model folder or hub id on the test rows of the config's recipe."""
    recipe = recipes.find(config.recipe)
    learner, domain = learner_and_domain(recipe, config, model_folder, world_of(model_folder))
    rows = spread(recipe.splits(config).test, config.eval.rows)
    protocol = recipe.protocol(config)
    result, _ = evaluate(learner.policy, domain, rows, plan(config), protocol)
    return {**_belongs_to(model_folder, config, protocol), **result}
