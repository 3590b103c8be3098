"""What a run's models are good for: planners that look ahead in them, tried in the real world."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rlvr_world import recipes
from rlvr_world.config import Config, PlanConfig
from rlvr_world.errors import InputError
from rlvr_world.evaluation.report import PLANNING
from rlvr_world.evaluation.summary import fingerprint, summarise
from rlvr_world.overrides import to_json
from rlvr_world.planning.search import Beam, Chooser, Remembered, at_random, by_rule, looking_ahead, without_model
from rlvr_world.planning.trials import Start, Trial, attempt, starts
from rlvr_world.recipes import Task
from rlvr_world.runs.checkpoints import identity
from rlvr_world.runs.folder import models_of
from rlvr_world.runs.world_model import load
from rlvr_world.sessions.imagined import Imagined
from rlvr_world.system.files import read_object, write_whole
from rlvr_world.system.progress import track


def plan_run(run: Path, config: Config) -> None:
    """Try planners on the tasks of a recipe: with SFT and with RL and the control of each seed as their models and, for
    comparison, without any and with the real world itself.

    What they did lies in ``RUN/planning/<task>/<model>.json``, a result as an evaluation's, with its trials; one that
    stands there for this model and these settings is not made again. Raises InputError where nothing can be planned.
    """
    tasks = recipes.find(config.recipe).tasks(config)
    if not tasks:
        raise InputError(f"{run}: recipe {config.recipe} has no goals to plan for; write its tasks()")
    models = models_of(run)
    for name, task in tasks.items():
        settings = {"domain": "planning", "task": name, "resample": "world", **asdict(config.plan)}
        protocol = {**settings, "data": to_json(config.data)}
        folder = run / PLANNING / name.replace(" ", "-")
        keys = {
            name: {"checkpoint": identity(model), "fingerprint": fingerprint(protocol)}
            for name, model in models.items()
        }
        todo = {name: model for name, model in models.items() if not _stands(_file(folder, name), keys[name])}
        if todo:
            folder.mkdir(parents=True, exist_ok=True)
            from_ = starts(task, config.plan.starts, config.plan.distances)
            baselines = {name: _try(task, from_, one, config.plan, name) for name, one in _baselines(task, config.plan)}
            for name, model in todo.items():
                trials = _try(task, from_, _planner(task, model, config.plan), config.plan, name)
                told = {"name": name, "model": model.name, "trials": [asdict(trial) for trial in trials]}
                result = {**told, **keys[name], **summarise(_records(trials, baselines), protocol)}
                write_whole(_file(folder, name), json.dumps(result))
            task.real.close()


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name.replace('/', '-')}.json"


def _stands(file: Path, key: Mapping[str, str]) -> bool:
    return file.is_file() and key.items() <= read_object(file).items()


def _baselines(task: Task, config: PlanConfig) -> Iterator[tuple[str, Chooser]]:
    yield "random", at_random(task)
    for name, rule in task.rules.items():
        yield name, by_rule(rule)
    if task.horizon:  # what its actions come to is not known in advance, so that two deep are too many to try
        one = replace(_beam(config), depth=1, samples=1)
        yield "real world, 1 deep", looking_ahead(task.real, task, one, lambda at: at)
        return
    yield "no model", without_model(task)
    real = Remembered(task.real)
    for depth in sorted({1, config.depth}):
        yield f"real world, {depth} deep", looking_ahead(real, task, replace(_beam(config), depth=depth), lambda at: at)


def _planner(task: Task, model: Path, config: PlanConfig) -> Chooser:
    world = Imagined(load(model), config.temperature, attempts=1)
    asked = world if config.temperature else Remembered(world)
    return looking_ahead(asked, task, _beam(config), lambda state: world.start(0, {"state": state})[0])


def _beam(config: PlanConfig) -> Beam:
    return Beam(config.depth, config.width, config.samples, config.goal)


def _try(task: Task, from_: Sequence[Start], choose: Chooser, config: PlanConfig, name: str) -> list[Trial]:
    return [attempt(task, start, choose, config.more) for start in track(from_, f"planning, {name}", "starts")]


def _records(trials: Sequence[Trial], baselines: Mapping[str, Sequence[Trial]]) -> list[dict[str, Any]]:
    """What ``summarise`` reads: a row a start."""
    return [
        {
            "id": f"{trial.world}: {trial.seed or ' > '.join(map(str, trial.start))}",
            "kind": f"{trial.distance} away" if trial.distance else "",
            "world": trial.world,
            "parts": _parts(trial),
            "value": float(trial.won),
            "malformed": "",
            "baselines": {name: _parts(others[number]) for name, others in baselines.items()},
        }
        for number, trial in enumerate(trials)
    ]


def _parts(trial: Trial) -> dict[str, float]:
    shortest = {"shortest": float(trial.won and len(trial.actions) == trial.distance)} if trial.distance else {}
    return {"success": float(trial.won), **shortest}
