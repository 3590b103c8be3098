"""Goals for planners in the embedded worlds: what a scripted hand really brought about, and from where."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from rlvr_world.domains.replayed import Replayed
from rlvr_world.domains.video.actions import pooled
from rlvr_world.domains.video.config import VideoConfig
from rlvr_world.domains.video.envs.collect import WORLDS
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
    episode = data.env.episodes + number
    played = WORLDS[data.source][0].play(data.env, episode)["action"]
    whole = played[: len(played) // data.frame_skip * data.frame_skip]
    actions = pooled(whole, data.action_pool).reshape(-1, data.actions_a_frame * played.shape[1])
    states, places = zip(*_done(real, episode, actions), strict=True)
    if len(states) <= steps:
        raise InputError(f"plan.distances: expected less than the {len(states)} steps of an episode, got {steps}")
    at = max(range(len(states) - steps), key=lambda i: moved(places[i], places[i + steps]))
    to, seen = at + steps, real.render(states[at + steps])
    return Goal(f"episode {episode}", states[at], seen, actions[at + 1 : to + 1], places[at], places[to], number)


def _done(real: Replayed, episode: int, actions: np.ndarray) -> Iterator[tuple[Any, np.ndarray]]:
    """The state after each action, and where things are in it."""
    state, _ = real.start(0, {"episode": episode})
    for action in actions:
        [outcome] = real.advance([(state, real.read_action(action))], [(0,)])
        if "lost" in outcome.info:
            return
        state = outcome.state
        yield state, np.array(outcome.info["places"])
