"""Goals that are frames: actions that are numbers, searched by CEM or MPPI for those that bring the frame about.

Shape legend: N candidates, D steps looked ahead, A numbers of an action.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from rlvr_world.config import PlanConfig
from rlvr_world.planning.search import Trial, in_time
from rlvr_world.recipes.tasks import Goal, Reach, moved
from rlvr_world.types import World

ELITE, SHARP, REACHED = 8, 0.3, 0.5
"""CEM goes on from one in so many candidates; MPPI's temperature, in deviations of their costs; a goal counts as
reached where at most this share of the way is left."""

Hand = Callable[[Any, Goal, int, np.ndarray, np.random.Generator], tuple[np.ndarray, int]]
"""(real state, goal, steps that are left, what was meant to follow [0 to D, A], draws) -> actions [1 to D, A], of which
the first is done, and how many were imagined."""


def searching(world: World, hold: int, config: PlanConfig, imagine: Callable[[Any], Any], bounds: Any = None) -> Hand:
    """Look ahead in ``world`` from ``imagine(state)`` on, the state of that world that stands for a real one, at
    actions within ``bounds``, a space; without it in the world's own.

    ``cem``: the cross-entropy method (Rubinstein 1999), where the best candidates say what the next are drawn from;
    ``mppi``: model predictive path integral control (Williams et al. 2016), where all do, weighted by exp(-cost).
    The cost of a candidate is the mean squared error of the frame that its last action leads to. All ``hold`` parts of
    an action are alike. What was meant before is where the search begins, and the mean of a round is tried in the next.
    """
    space: Any = world.action_space if bounds is None else bounds
    low_A, high_A = space.low.reshape(hold, -1).max(0), space.high.reshape(hold, -1).min(0)

    def costs(state: Any, plans_NDA: np.ndarray, goal: Goal, turn: int) -> np.ndarray:
        states = [state] * len(plans_NDA)
        for step, actions_NA in enumerate(plans_NDA.swapaxes(0, 1)):
            asked = [(at, world.read_action(one)) for at, one in zip(states, np.tile(actions_NA, hold), strict=True)]
            names = [(config.seed, step, turn, n) for n in range(len(states))]
            states = [outcome.state for outcome in world.advance(asked, names)]
        return ((np.stack([world.render(at) for at in states]) / 255.0 - goal.frame / 255.0) ** 2).mean((1, 2, 3))

    def hand(state: Any, goal: Goal, left: int, meant: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, int]:
        begun, steps = imagine(state), min(config.depth, left)
        mean, spread = np.tile((low_A + high_A) / 2, (steps, 1)), np.tile((high_A - low_A) / 4, (steps, 1))
        mean[: len(meant)] = meant[:steps, : len(low_A)]
        best, least = mean, np.inf
        for turn in in_time(config.rounds, config.seconds):
            drawn = np.clip(rng.normal(mean, spread, (config.candidates, *mean.shape)), low_A, high_A)
            drawn[0] = mean
            cost = costs(begun, drawn, goal, turn)
            if cost.min() < least:
                best, least = drawn[cost.argmin()], cost.min()
            if config.solver == "cem":
                kept = drawn[np.argsort(cost)[: -(-config.candidates // ELITE)]]
                mean, spread = kept.mean(0), kept.std(0)
            else:
                weight = np.exp((cost.min() - cost) / (SHARP * cost.std() + 1e-12))
                mean = np.tensordot(weight / weight.sum(), drawn, 1)
        return np.tile(best, hold), (turn + 1) * config.candidates * steps

    return hand


def drawing(space: Any, hold: int) -> Hand:
    """Any action within the bounds, in all its parts alike."""

    def hand(state: Any, goal: Goal, left: int, meant: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, int]:
        part = slice(len(space.low) // hold)
        return np.tile(rng.uniform(space.low[part], space.high[part]), hold)[None], 0

    return hand


def as_recorded(state: Any, goal: Goal, left: int, meant: np.ndarray, rng: Any) -> tuple[np.ndarray, int]:
    """What was done on the way to the goal, then nothing: zeros."""
    if not len(meant):  # the first step, where all are left
        meant = np.pad(goal.actions, ((0, left - len(goal.actions)), (0, 0)))
    return meant, 0


def reach(task: Reach, goal: Goal, hand: Hand, more: int, seed: int = 0) -> Trial:
    """Look ahead, act, and look again from where that led, as often as it took to get there and ``more``."""
    rng, state, meant = np.random.default_rng((goal.seed, seed)), goal.state, goal.actions[:0]
    steps, asked, places = len(goal.actions) + more, 0, goal.begun
    done, plans = list[Any](), list[tuple[Any, ...]]()
    for step in range(steps):
        meant, count = hand(state, goal, steps - step, meant, rng)
        [outcome] = task.real.advance([(state, task.real.read_action(meant[0]))], [(0,)])
        if "lost" in outcome.info:
            break
        state, places = outcome.state, np.asarray(outcome.info["places"])
        done.append(meant[0].tolist())
        plans.append(tuple(meant.tolist()))
        asked, meant = asked + count, meant[1:]
    left = moved(places, goal.places) / moved(goal.begun, goal.places)
    return Trial(goal.world, (), len(goal.actions), left <= REACHED, tuple(done), tuple(plans), asked, goal.seed, left)
