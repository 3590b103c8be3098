"""Search in imagination: propose actions, imagine what comes of them, keep some, and choose the first step of the best;
and planners tried so in the real world: where they start, what they do, and whether they get there.

propose (Task.actions) -> imagine (World.advance) -> value (Task.last, or the score) -> choose (Plan) -> act
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rlvr_world.config import PlanConfig
from rlvr_world.recipes.tasks import Task
from rlvr_world.sessions.session import STAYED, Session
from rlvr_world.system.progress import progress, track
from rlvr_world.types import Asked, Outcome, Streams, World

ONWARD, DISCOUNT = 0.5, 0.9
"""What a state is worth from which nothing looks on, and what a later win is worth of one now; see ``likeliest``."""
WALKS, LONGEST = 60, 8
"""Seeded walks in a world for its starts, and the actions of the longest."""


def name(seen: Any) -> Any:
    """What is seen as something to look up: of a page its fields."""
    return tuple(seen.items()) if isinstance(seen, dict) else seen


class Remembered:
    """A world that is asked about a state and an action once: its draws must not matter (temperature 0)."""

    def __init__(self, world: World) -> None:
        self.world, self.observe = world, world.observe
        self._known: dict[tuple[Any, Any], Outcome] = {}

    def advance(self, asked: Asked, streams: Streams) -> list[Outcome]:
        keys = [(name(self.observe(state)), action) for state, action in asked]
        new = {key: i for i, key in enumerate(keys) if key not in self._known}
        fresh = self.world.advance([asked[i] for i in new.values()], [streams[i] for i in new.values()])
        self._known.update(zip(new, fresh, strict=True))
        return [self._known[key] for key in keys]


Foresight = World | Remembered  # what is searched in


@dataclass(frozen=True)
class Plan:
    """What to do from a state on; the first action is the one to take before planning again.

    >>> Plan(("take key", "unlock chest with key"), found=True, asked=61)
    """

    actions: tuple[Any, ...]
    found: bool
    """Whether these reach the goal in imagination."""
    asked: int
    """Pairs of a state and an action that were imagined."""


Chooser = Callable[[Any, random.Random, Collection[Any]], Plan | None]
"""(real state, draws, observations of the states already been in) -> what to do; None where nothing can be done."""


def in_time(rounds: int, seconds: float) -> Iterator[int]:
    """Numbers of rounds, of which the first is always begun and no other after so many seconds (0: no limit)."""
    begun = time.monotonic()
    for turn in range(rounds):
        if turn and seconds and time.monotonic() - begun > seconds:
            return
        yield turn


def beam_search(
    world: Foresight, state: Any, task: Task, config: PlanConfig, rng: random.Random, been: Collection[Any] = ()
) -> Plan | None:
    """The shortest plan that reaches the goal; where none does, a step to a state that is new. None without any action.

    Breadth first, ``config.width`` states a depth, drawn evenly: a goal is all that tells them apart. Of plans of one
    length the one that most samples agree on. ``state`` is one of ``world``'s own.
    """
    if config.goal == "state" and (last := task.last(state)) is not None:
        return Plan((last,), True, 0)
    asked, first = 0, [(action,) for action in task.actions(state)]
    known = {*map(name, been), name(world.observe(state))}
    level: list[tuple[Any, tuple[Any, ...]]] = [(state, ())]
    for depth in in_time(config.depth, config.seconds):
        tried = _tried(world, level, task, config, depth)
        asked += config.samples * len(tried)
        won, level = Counter[tuple[Any, ...]](), []
        for path, outcome in ((path, outcome) for path, came in tried for outcome in came):
            if not STAYED.isdisjoint(outcome.info):
                continue
            if (whole := _to_goal(outcome, path, task, config)) is not None:
                won[whole] += 1
            elif (seen := name(world.observe(outcome.state))) not in known and not outcome.terminated:
                known.add(seen)
                level.append((outcome.state, path))
        if won:
            return Plan(won.most_common(1)[0][0], True, asked)
        if depth == 0:
            first = [path for _, path in level] or first
        rng.shuffle(level)
        level = level[: config.width]
    return Plan(rng.choice(first), False, asked) if first else None


def _tried(world: Foresight, level: Sequence[Any], task: Task, config: PlanConfig, depth: int) -> list[tuple[Any, Any]]:
    """The ways to a level's states, each one action longer, with the outcomes of that action's samples."""
    ways = [(at, (*path, action)) for at, path in level for action in task.actions(at)]
    pairs = [(at, path[-1]) for at, path in ways for _ in range(config.samples)]
    names = [(config.seed, depth, p, s) for p in range(len(ways)) for s in range(config.samples)]
    came = world.advance(pairs, names)
    return [(path, came[i * config.samples : (i + 1) * config.samples]) for i, (_, path) in enumerate(ways)]


def _to_goal(outcome: Outcome, path: tuple[Any, ...], task: Task, config: PlanConfig) -> tuple[Any, ...] | None:
    if config.goal == "score":
        return path if outcome.terminated and outcome.reward > 0 else None
    last = None if outcome.terminated else task.last(outcome.state)  # nothing can be done after the end
    return None if last is None else (*path, last)


def likeliest(world: Foresight, state: Any, task: Task, config: PlanConfig) -> Plan | None:
    """The action from which a win is likeliest, as the world's samples have it. None without any action.

    An action is worth the share of its samples that win and, for the share that goes on to another state, what the best
    action there is worth, discounted: from the ``config.width`` likeliest to go on, one sample each. Where nothing
    looks on, that is ``ONWARD``. Of equals the first that is proposed.
    """
    level, won, onward = [(state, tuple[Any, ...]())], dict[Any, float](), dict[Any, float]()
    asked, after = 0, dict[Any, list[Any]]()
    for depth in in_time(config.depth, config.seconds):
        tried = _tried(world, level, task, config, depth)
        asked, level = asked + config.samples * len(tried), []
        for path, came in tried:
            going = (one for one in came if not one.terminated and STAYED.isdisjoint(one.info))
            on = [one.state for one in going if one.info.get("changed", True)]
            won[path] = sum(one.terminated and one.reward > 0 for one in came) / config.samples
            onward[path] = len(on) / config.samples
            after.setdefault(path[:-1], []).append(path)
            level += [(on[0], path)] if on else []
        level = sorted(level, key=lambda one: -onward[one[1]])[: config.width]

    def worth(path: tuple[Any, ...]) -> float:
        best = max(map(worth, after[path])) if path in after else ONWARD
        return won[path] + DISCOUNT * onward[path] * best

    return Plan(max(after[()], key=worth), False, asked) if after else None


def by_rule(rule: Callable[[Any], Any]) -> Chooser:
    """What a rule says of the real state."""
    return lambda state, rng, been: None if (action := rule(state)) is None else Plan((action,), False, 0)


def at_random(task: Task) -> Chooser:
    """Any of the actions that can be done."""
    return lambda state, rng, been: Plan((rng.choice(some),), False, 0) if (some := task.actions(state)) else None


def without_model(task: Task) -> Chooser:
    """The action that reaches the goal where it can be done, else any: what no model is needed for."""

    other = at_random(task)
    return lambda at, rng, been: other(at, rng, been) if (last := task.last(at)) is None else Plan((last,), True, 0)


def looking_ahead(world: Foresight, task: Task, config: PlanConfig, imagine: Callable[[Any], Any]) -> Chooser:
    """``beam_search``, or ``likeliest``, in ``world`` from ``imagine(state)`` on, the state of that world that stands
    for a real one."""
    if config.goal == "chance":
        return lambda state, rng, been: likeliest(world, imagine(state), task, config)
    return lambda state, rng, been: beam_search(world, imagine(state), task, config, rng, been)


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
    return [start for turn in range(share) for world in found for start in world[turn : turn + 1]][:count]


def _starts_in(task: Task, real: Foresight, world: str, most: int, distances: Sequence[int]) -> list[Start]:
    rng, seen, found = random.Random(f"starts in {world}"), set[Any](), list[Start]()
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
    done, plans = list[Any](), list[tuple[Any, ...]]()
    asked, won = 0, False
    while not session.over and (plan := choose(session.state, rng, been)) is not None:
        observation, reward, terminated, _, _ = session.step(plan.actions[0])
        been.append(observation)
        done.append(plan.actions[0])
        plans.append(plan.actions)
        asked, won = asked + plan.asked, terminated and reward > 0
    return Trial(start.world, start.actions, start.distance, won, tuple(done), tuple(plans), asked, start.seed)


def replay(task: Task, trial: Trial) -> bool:
    """Whether what was done in a trial wins in the real world again."""
    state, won = task.real.start(trial.seed, task.starts[trial.world])[0], False
    for action in (*trial.start, *trial.actions):
        [outcome] = task.real.advance([(state, action)], [(0,)])
        state, won = outcome.state, outcome.terminated and outcome.reward > 0
    return won
