"""Goals for planners in the embedded worlds: what a scripted hand really brought about, and from where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rlvr_world.domains.replayed import Past, Replayed
from rlvr_world.domains.video.config import VideoConfig
from rlvr_world.errors import InputError
from rlvr_world.recipes.tasks import Goal, moved
from rlvr_world.system.progress import track


def goals(data: VideoConfig, real: Replayed, count: int, distances: Sequence[int]) -> list[Goal]:
    """``count`` of them, ``distances`` steps of a model away in turn: each where the hand moves things the farthest in
    that time, in the one of two episodes that nothing was trained on where that is farther."""
    return [
        max(
            (_goal(data, real, 2 * number + other, distances[number % len(distances)]) for other in range(2)),
            key=lambda goal: moved(goal.begun, goal.places),
        )
        for number in track(range(count), "goals", "goals")
    ]


def _goal(data: VideoConfig, real: Replayed, number: int, steps: int) -> Goal:
    spec, begun = vars(data.env), (data.env.episodes + number,)
    running: Any = real.open(begun)
    done, states = list[tuple[float, ...]](), list[Past]()
    for _ in range(spec.get("length", spec.get("pushes", 0)) // data.frame_skip):
        action, told = running.by_hand()
        if "lost" in told:
            break
        done.append(action)
        states.append(Past(begun, tuple(done), running.seen(), told))
    running.close()
    if len(states) <= steps:
        raise InputError(f"plan.distances: expected less than the {len(states)} steps of an episode, got {steps}")
    places = [np.array(state.told["places"]) for state in states]
    at = max(range(len(states) - steps), key=lambda i: moved(places[i], places[i + steps]))
    to, actions = at + steps, np.array(done[at + 1 : at + steps + 1], np.float32)
    return Goal(f"episode {begun[0]}", states[at], real.render(states[to]), actions, places[at], places[to], number)
