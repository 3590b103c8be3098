"""What a run's models are good for: planners that look ahead in them, tried in the real world."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rlvr_world import recipes
from rlvr_world.config import Config, PlanConfig
from rlvr_world.diagnose.rollouts import told
from rlvr_world.errors import InputError
from rlvr_world.evaluation.report import PLANNING
from rlvr_world.evaluation.summary import OVERALL, fingerprint, summarise
from rlvr_world.overrides import override, to_json
from rlvr_world.planning.reaching import Hand, as_recorded, drawing, reach, searching
from rlvr_world.planning.search import (
    Chooser,
    Remembered,
    Trial,
    at_random,
    attempt,
    by_rule,
    looking_ahead,
    starts,
    without_model,
)
from rlvr_world.recipes.tasks import Reach, Task
from rlvr_world.runs.checkpoints import identity
from rlvr_world.runs.folder import models_of
from rlvr_world.runs.runner import stored_config
from rlvr_world.sessions.imagined import Imagined
from rlvr_world.system.files import read_object, write_whole
from rlvr_world.system.progress import track

SWEPT: dict[str, tuple[int, ...]] = {"depth": (1, 2, 3, 4), "width": (1, 2, 4, 8, 16), "samples": (1, 2, 4, 8)}


def study_planning(run: Path, starts: int) -> str:
    """Success from so many starts against each of ``SWEPT`` (samples at temperature 1), for one model of each stage,
    and its correlation with one-step exactness over all; ``RUN/studies/planning``. What stands is not made again."""
    config, every, folder, texts = stored_config(run), models_of(run), run / "studies" / PLANNING, list[str]()
    some = {name: every[name] for name in every if name == "sft" or name.endswith(f"seed{config.rl.seeds[0]}")}
    config = override(config, [f"plan.starts={starts}"])
    plan_run(run, config, folder / "all")
    for axis, values in SWEPT.items():
        for value in values:
            swept = override(config, [f"plan.{axis}={value}", *(["plan.temperature=1"] if axis == "samples" else [])])
            plan_run(run, swept, folder / f"{axis}-{value}", some)
    for task in (name.replace(" ", "-") for name in recipes.find(config.recipe).tasks(config)):
        for axis, values in SWEPT.items():
            scores, worlds = dict[str, Any](), list[str]()
            for name in some:
                rows = [read_object(_file(folder / f"{axis}-{value}" / task, name))["rows"] for value in values]
                scores[name.partition("/")[0]] = list(zip(*(one["parts"]["success"] for one in rows), strict=True))
                worlds = rows[0]["world"]
            texts.append(f"{task}\n\n{told(folder / f'{task}-{axis}', scores, worlds, values, (axis, 'success'))}\n")
        steps = [read_object(_file(run / "eval", name))["slices"] for name in every]
        plans = [read_object(_file(folder / "all" / task, name))["slices"][OVERALL]["parts"] for name in every]
        for kind in sorted({OVERALL, "changed"} & steps[0].keys()):
            exact = [one[kind]["parts"].get("exact", one[kind]["parts"]["value"])["mean"] for one in steps]
            with np.errstate(invalid="ignore"):  # not a number where all models do the same
                r = np.corrcoef(exact, [one["success"]["mean"] for one in plans])[0, 1]
            said = f"one-step exactness ({kind}) and success correlate by {r:+.2f} over {len(every)} models"
            texts.append(f"{task}: {said}\n")
    return "\n".join(texts)


def plan_run(run: Path, config: Config, under: Path | None = None, models: Mapping[str, Path] | None = None) -> None:
    """Try planners on the tasks of a recipe: with SFT and with RL and the control of each seed as their models and, for
    comparison, without any and with the real world itself.

    What they did lies in ``RUN/planning/<task>/<model>.json`` (or ``under``), a result as an evaluation's, with its
    trials; one that stands there for this model and these settings is not made again. ``models``: all of the run's,
    unless given. Raises InputError where nothing can be planned.
    """
    tasks = recipes.find(config.recipe).tasks(config)
    if not tasks:
        raise InputError(f"{run}: recipe {config.recipe} has no goals to plan for; write its tasks()")
    models = models or models_of(run)
    for name, task in tasks.items():
        settings = {"domain": "planning", "task": name, "resample": "world", **asdict(config.plan)}
        protocol = {**settings, "data": to_json(config.data)}
        folder, asked = (under or run / PLANNING) / name.replace(" ", "-"), fingerprint(protocol)
        keys = {name: {"checkpoint": identity(model), "fingerprint": asked} for name, model in models.items()}
        stand = {name: read_object(file) for name in models if (file := _file(folder, name)).is_file()}
        todo = {name: model for name, model in models.items() if not keys[name].items() <= stand.get(name, {}).items()}
        if todo:
            begin: Any = task.goals if isinstance(task, Reach) else partial(starts, task)
            from_ = begin(config.plan.starts, config.plan.distances)
            carry_out: Any = reach if isinstance(task, Reach) else attempt
            act = partial(carry_out, task, more=config.plan.more, seed=config.plan.seed)
            first = next(iter(models.values()))
            baselines = {name: _try(act, from_, one, name) for name, one in _baselines(task, config.plan, first)}
            for name, model in todo.items():
                trials = _try(act, from_, _planner(task, config.plan, model), name)
                told = {"name": name, "model": model.name, "trials": [asdict(trial) for trial in trials]}
                result = {**told, **keys[name], **summarise(_records(trials, baselines), protocol, {"left"})}
                write_whole(_file(folder, name), json.dumps(result))
            task.real.close()


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name.replace('/', '-')}.json"


def _baselines(task: Task | Reach, config: PlanConfig, model: Path) -> Iterator[tuple[str, Chooser | Hand]]:
    if isinstance(task, Reach):
        bounds = Imagined(model).action_space  # what the data did, within which models are searched too
        yield from (("random", drawing(bounds, task.hold)), ("as recorded", as_recorded))
        if config.simulator:
            yield "simulator", searching(task.real, task.hold, config, lambda state: state, bounds)
        return
    yield "random", at_random(task)
    yield from ((name, by_rule(rule)) for name, rule in task.rules.items())
    if task.horizon:  # what its actions come to is not known in advance, so that two deep are too many to try
        yield "real world, 1 deep", looking_ahead(task.real, task, replace(config, depth=1, samples=1), lambda at: at)
        return
    yield "no model", without_model(task)
    real = Remembered(task.real)
    for depth in sorted({1, config.depth}):
        yield f"real world, {depth} deep", looking_ahead(real, task, replace(config, depth=depth), lambda at: at)


def _planner(task: Task | Reach, config: PlanConfig, model: Path) -> Chooser | Hand:
    world = Imagined(model, config.temperature, attempts=1)

    def imagine(state: Any) -> Any:
        return world.start(0, {"state": state})[0]

    if isinstance(task, Reach):
        return searching(world, task.hold, config, imagine)
    return looking_ahead(world if config.temperature else Remembered(world), task, config, imagine)


def _try(act: Any, from_: Sequence[Any], planner: Chooser | Hand, name: str) -> list[Trial]:
    return [act(start, planner) for start in track(from_, f"planning, {name}", "starts")]


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
    shortest = float(trial.won and len(trial.actions) == trial.distance)
    more = {"left": trial.left} if trial.left is not None else {"shortest": shortest} if trial.distance else {}
    return {"success": float(trial.won), **more}
