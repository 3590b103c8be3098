"""Planners tried in the real world: where they start, what they do, and whether they get there."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rlvr_world.config import PlanConfig
from rlvr_world.planning.search import Chooser, Foresight, Remembered, beam_search
from rlvr_world.recipes.tasks import Task
from rlvr_world.sessions.session import Session
from rlvr_world.system.progress import progress, track

WALKS, LONGEST = 60, 8
"""Seeded walks in a world for its starts, and the actions of the longest."""


@dataclass(frozen=True)
class Start:
    """A real state from which the goal is ``distance`` actions away (0 where nobody knows), and how it came about: the
    seed of its episode, and the actions in it."""

    world: str
    actions: tuple[Any, ...]
    distance: int
    state: Any
    seed: int = 0


@dataclass(frozen=True)
class Trial:
    """What a planner did from a start; ``plans`` holds what it meant to do before each of its actions.

    With the task, ``start`` and ``actions`` say all that happened.
    """

    world: str
    start: tuple[Any, ...]
    distance: int
    won: bool
    actions: tuple[Any, ...]
    plans: tuple[tuple[Any, ...], ...]
    asked: int
    seed: int = 0
    left: float | None = None
    """Of the way to a goal that is a frame, the share that is left at the end."""


def starts(task: Task, count: int, distances: Sequence[int]) -> list[Start]:
    """At most ``count`` starts, as evenly over the task's worlds as they have them: ends of seeded walks from which the
    shortest way to the goal, in the real world, has one of these lengths; where a task has a horizon, first states."""
    share = -(-count // len(task.starts))
    if task.horizon:
        pages = [(world, task.seed + turn) for turn in range(share) for world in task.starts][:count]
        begun = (task.real.start(seed, task.starts[world])[0] for world, seed in track(pages, "starts", "starts"))
        return [Start(world, (), 0, state, seed) for (world, seed), state in zip(pages, begun, strict=True)]
    real = Remembered(task.real)
    found: list[list[Start]] = []
    with progress("starts", count, "starts") as update:
        for world in task.starts:
            if (so_far := sum(map(len, found))) >= count:
                break
            found.append(_starts_in(task, real, world, share, distances))
            update(so_far + len(found[-1]))
    turns = [start for turn in range(share) for world in found for start in world[turn : turn + 1]]
    return turns[:count]


def _starts_in(task: Task, real: Foresight, world: str, most: int, distances: Sequence[int]) -> list[Start]:
    rng, seen = random.Random(f"starts in {world}"), set[Any]()
    found: list[Start] = []
    for _ in range(WALKS):
        if len(found) == most:
            break
        state, walk = _walk(task, real, world, rng)
        if (key := real.observe(state)) not in seen:
            seen.add(key)
            away = distance(task, real, state, max(distances))
            if away is not None and away in distances:
                found.append(Start(world, walk, away, state))
    return found


def _walk(task: Task, real: Foresight, world: str, rng: random.Random) -> tuple[Any, tuple[Any, ...]]:
    """The end of a walk that has not won, and its actions."""
    state, walk = task.real.start(0, task.starts[world])[0], tuple[Any, ...]()
    for _ in range(rng.randrange(LONGEST)):
        actions = task.actions(state)
        if not actions:
            break
        action = rng.choice(actions)
        outcome = real.advance([(state, action)], [(0,)])[0]
        if outcome.terminated:
            break
        state, walk = outcome.state, (*walk, action)
    return state, walk


def distance(task: Task, real: Foresight, state: Any, most: int) -> int | None:
    """The fewest actions from a real state to the goal; None where they are more than ``most``."""
    anywhere = PlanConfig(depth=most, width=10**9, goal="score")
    plan = beam_search(real, state, task, anywhere, random.Random(0))
    return len(plan.actions) if plan and plan.found else None


def attempt(task: Task, start: Start, choose: Chooser, more: int, seed: int = 0) -> Trial:
    """Plan, act, and plan again from where that led, with ``more`` actions than the shortest way or the horizon has."""
    session = Session(task.real, horizon=(start.distance or task.horizon) + more)
    session.reset(seed=seed, options={"state": start.state})
    rng, been = random.Random(f"{seed + start.seed}/{start.world}/{start.actions}"), [task.real.observe(start.state)]
    done: list[Any] = []
    plans: list[tuple[Any, ...]] = []
    asked, won = 0, False
    while not session.over and (plan := choose(session.state, rng, been)) is not None:
        observation, reward, terminated, _, _ = session.step(plan.actions[0])
        been.append(observation)
        done.append(plan.actions[0])
        plans.append(plan.actions)
        asked, won = asked + plan.asked, terminated and reward > 0
    return Trial(start.world, start.actions, start.distance, won, tuple(done), tuple(plans), asked, start.seed)
