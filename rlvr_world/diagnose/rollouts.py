"""How far a model can be followed: imagined open loop beside the real world, k steps ahead."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rlvr_world import recipes
from rlvr_world.evaluation.intervals import bootstrap, wilson
from rlvr_world.evaluation.plots import save_lines
from rlvr_world.runs import runner
from rlvr_world.runs.folder import models_of
from rlvr_world.sessions.imagined import Imagined
from rlvr_world.sessions.session import Session, step_together
from rlvr_world.system.files import write_whole
from rlvr_world.system.progress import track
from rlvr_world.types import World

NO_CHANGE = "no change"


class Walk(NamedTuple):
    """What was done in the real world, and what was seen before and after each action."""

    actions: list[Any]
    seen: list[Any]


def study_rollouts(run: Path, depth: int, starts: int) -> dict[str, Any]:
    """For each model of a run, after 1 to ``depth`` imagined steps, how near what is seen is to the real world.

    Random walks in the real world begin at ``starts`` seeds; each model is told where they begin and what is done, and
    never what came of it. Text: share of states that are right, letter by letter; pages: F1 of the lines; video: mean
    squared error of pixels, less is better. Intervals over walks. Also ``RUN/studies/rollouts.json`` and ``.png``.
    """
    config = runner.stored_config(run)
    models, real = models_of(run), recipes.find(config.recipe).real(config)
    walks: list[Walk] = []
    answers: dict[str, Any] = {}
    for name, model in models.items():
        world = Imagined(model)
        if not walks:
            walks = [_walk(real, world.action_space, seed, depth) for seed in track(range(starts), "walking", "walks")]
            real.close()
            answers[NO_CHANGE] = _summed([[nearness(w.seen[0], true) for true in w.seen[1:]] for w in walks], depth)
        answers[name] = _summed(_followed(world, walks, depth), depth)
    folder = run / "studies"
    folder.mkdir(exist_ok=True)
    write_whole(folder / "rollouts.json", json.dumps(answers, indent=1))
    save_lines(folder / "rollouts.png", answers, "steps ahead", "nearness to the real world")
    return answers


def _walk(real: World, space: Any, seed: int, depth: int) -> Walk:
    """At random: of what can be done, where the world says it, else of all actions of the model's."""
    session, rng = Session(real, depth), random.Random(f"walk {seed}")
    seen, info = session.reset(seed=seed)
    space.seed(seed)
    walk = Walk([], [seen])
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


def _summed(scores: Sequence[Sequence[float]], depth: int) -> list[dict[str, Any]]:
    """An interval for each number of steps, over the walks that are as long."""
    columns = ([row[k] for row in scores if len(row) > k] for k in range(depth))
    return [
        (wilson(sum(column), len(column)) if {*column} <= {0.0, 1.0} else bootstrap(column)).as_dict()
        for column in columns
        if column
    ]


def table(answers: dict[str, Any]) -> str:
    """Means and intervals as Markdown: a row for each model, a column for each number of steps."""

    def cell(one: dict[str, Any]) -> str:
        around = "" if one["low"] is None else f" [{one['low']:.3g}, {one['high']:.3g}]"
        return f"{one['mean']:.3g}{around}"

    rows = [[name, *map(cell, intervals)] for name, intervals in answers.items()]
    head = ["steps ahead", *map(str, range(1, max(map(len, rows))))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---", *["--:"] * (len(head) - 1)], *rows))
