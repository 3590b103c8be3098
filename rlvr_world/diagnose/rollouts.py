"""How far a model can be followed: imagined open loop beside the real world, k steps ahead."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rlvr_world import recipes
from rlvr_world.evaluation.intervals import Interval, bootstrap, wilson
from rlvr_world.evaluation.plots import save_lines
from rlvr_world.runs import runner
from rlvr_world.runs.folder import models_of
from rlvr_world.sessions.imagined import Imagined
from rlvr_world.sessions.session import Session, step_together
from rlvr_world.system.files import write_whole
from rlvr_world.system.progress import track
from rlvr_world.types import World

NO_CHANGE, LABELS = "no change", ("steps ahead", "nearness to the real world")


class Walk(NamedTuple):
    """What was done in the real world, and what was seen before and after each action; ``world`` names the game, page
    or episode, since walks of one are alike."""

    actions: list[Any]
    seen: list[Any]
    world: str


def study_rollouts(run: Path, depth: int, starts: int) -> str:
    """For each model of a run, after 1 to ``depth`` imagined steps, how near what is seen is to the real world.

    Random walks in the real world begin at ``starts`` seeds; each model is told where they begin and what is done, and
    never what came of it. Text: share of states that are right, letter by letter; pages: F1 of the lines; video: mean
    squared error of pixels, less is better. Intervals over worlds, such as games. Where a stage has several seeds, also
    their mean, and its difference from SFT and the control. Also ``RUN/studies/rollouts.json`` and ``.png``.
    """
    config = runner.stored_config(run)
    models, real = models_of(run), recipes.find(config.recipe).real(config)
    walks: list[Walk] = []
    followed: dict[str, list[Any]] = {}
    for name, model in models.items():
        world = Imagined(model, attempts=1)
        if not walks:
            walks = [_walk(real, world.action_space, seed, depth) for seed in track(range(starts), "walking", "walks")]
            real.close()
            followed[NO_CHANGE] = [[nearness(walk.seen[0], true) for true in walk.seen[1:]] for walk in walks]
        followed[name] = _followed(world, walks, depth)
    return told(run / "studies" / "rollouts", followed, [walk.world for walk in walks], range(1, depth + 1), LABELS)


def told(stem: Path, scores: dict[str, Any], worlds: Sequence[str], at: Sequence[int], labels: tuple[str, str]) -> str:
    """What each model's ``scores`` [unit][at] (shorter where a unit ends) come to, with intervals over worlds, also as
    the mean over a stage's seeds and the differences of stages: in ``<stem>.json``, drawn, and as a table."""
    for stage in ("rl", "control"):
        seeds_of = [one for model, one in scores.items() if model.startswith(f"{stage}/")]
        if len(seeds_of) > 1:
            scores[stage] = [np.mean(unit, axis=0) for unit in zip(*seeds_of, strict=True)]
    answers = {model: _summed(one, worlds, len(at), _share) for model, one in scores.items()}
    stem.parent.mkdir(exist_ok=True)
    means = {model: one for model, one in answers.items() if "/" not in model or model.split("/")[0] not in answers}
    save_lines(stem.with_suffix(".png"), means, labels, at)
    for one, other in (("rl", "sft"), ("control", "sft"), ("rl", "control")):
        if one in scores and other in scores:
            apart = [np.subtract(*pair) for pair in zip(scores[one], scores[other], strict=True)]
            answers[f"{one} - {other}"] = _summed(apart, worlds, len(at), bootstrap)
    write_whole(stem.with_suffix(".json"), json.dumps(answers, indent=1))
    return _table(answers, labels[0], at)


def _walk(real: World, space: Any, seed: int, depth: int) -> Walk:
    """At random: of what can be done, where the world says it, else of all actions of the model's."""
    session, rng = Session(real, depth), random.Random(f"walk {seed}")
    seen, info = session.reset(seed=seed)
    space.seed(seed)
    walk = Walk([], [seen], str(next((info[name] for name in ("game", "task", "episode") if name in info), seed)))
    while not session.over:
        action = rng.choice(info["commands"]) if info.get("commands") else space.sample()
        seen, *_, info = session.step(action)
        walk.actions.append(action)
        walk.seen.append(seen)
    return walk


def _followed(world: World, walks: Sequence[Walk], depth: int) -> list[list[float]]:
    """Of each walk, the nearness after each step; 0 from where a model's answer does not read, or says it has ended."""
    sessions = [Session(world, depth) for _ in walks]
    for seed, (session, walk) in enumerate(zip(sessions, walks, strict=True)):
        session.reset(seed=seed, options={"state": walk.seen[0]})
    found: list[list[float]] = [[] for _ in walks]
    for k in range(depth):
        there = [i for i, walk in enumerate(walks) if len(walk.actions) > k]
        live = [i for i in there if not sessions[i].over]
        steps = step_together([sessions[i] for i in live], [walks[i].actions[k] for i in live])
        read = [(i, step) for i, step in zip(live, steps, strict=True) if "malformed" not in step.info]
        now = {i: nearness(step.observation, walks[i].seen[k + 1]) for i, step in read}
        for i in there:
            found[i].append(now.get(i, 0.0))
    return found


def nearness(seen: Any, true: Any) -> float:
    """Text: 1 where it is the same; a page: F1 of its lines; frames: mean squared error in [0, 1]."""
    if isinstance(true, str):
        return float(seen == true)
    if isinstance(true, dict) and "observation" in true:
        one, other = (Counter(page["observation"].splitlines()) for page in (seen, true))
        return 2 * (one & other).total() / max(1, one.total() + other.total())
    frames = [one["pixels"] if isinstance(one, dict) else one for one in (seen, true)]
    return float(np.square((frames[0].astype(float) - frames[1]) / 255).mean())


def _summed(
    scores: Sequence[Sequence[float]], worlds: Sequence[str], depth: int, interval: Callable[..., Interval]
) -> list[dict[str, Any]]:
    """An interval for each number of steps, over the walks that are as long."""
    long = ([i for i, row in enumerate(scores) if len(row) > k] for k in range(depth))
    return [
        interval([scores[i][k] for i in some], np.array([worlds[i] for i in some])).as_dict()
        for k, some in enumerate(long)
        if some
    ]


def _share(values: Sequence[float], worlds: np.ndarray) -> Interval:
    """Wilson for a share of walks of which each has a world of its own, else bootstrap over worlds."""
    alone = {*values} <= {0.0, 1.0} and len(np.unique(worlds)) == len(worlds)
    return wilson(sum(values), len(values)) if alone else bootstrap(values, worlds)


def _table(answers: dict[str, Any], label: str, at: Sequence[int]) -> str:
    """Means and intervals as Markdown: a row for each model, a column for each of ``at``."""

    def cell(one: dict[str, Any]) -> str:
        around = "" if one["low"] is None else f" [{one['low']:.3g}, {one['high']:.3g}]"
        return f"{one['mean']:.3g}{around}"

    rows = [[name, *map(cell, intervals)] for name, intervals in answers.items()]
    head = [label, *map(str, at[: max(map(len, rows)) - 1])]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---", *["--:"] * (len(head) - 1)], *rows))
