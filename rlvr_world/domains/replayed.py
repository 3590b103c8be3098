"""Real worlds that cannot be set to a state, such as a browser or a simulator: a state is how it came about.

What runs is kept as long as its next action follows; whoever goes on from another state, a fork, has it run again from
its start. Nothing is lost by that, since the same start and actions give the same states.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Protocol

import gymnasium as gym

from rlvr_world.errors import InputError
from rlvr_world.types import Asked, Outcome, Streams

Begun = tuple[Any, ...]
"""What an episode is opened with."""


@dataclass(frozen=True, eq=False)
class Past:
    """How a state came about: an episode, the actions since its start; what is seen there, and what else was told."""

    begun: Begun
    done: tuple[Any, ...]
    seen: Any
    told: Mapping[str, Any] = field(default_factory=dict)


def seen_in(state: Any) -> Any:
    """Of a state that a model is to go on from what it can read: what is seen where a real world stands."""
    return state.seen if isinstance(state, Past) else state


class Running(Protocol):
    """An episode as it runs. ``told``: what is to say at its start."""

    told: Mapping[str, Any]

    def seen(self) -> Any: ...

    def act(self, action: Any) -> tuple[float, bool, Mapping[str, Any]]:
        """Do it: the reward, whether the episode has ended, what else is to say. With a reason under
        ``action_error`` nothing was done; under ``lost``, there is no going on."""

    def close(self) -> None: ...


class Replayed:
    """A ``World`` of what runs; at most ``live`` episodes do at once."""

    options: tuple[str, ...] = ("state",)
    fields: tuple[str, ...] = ()  # names of an action's numbers; several actions a frame stand one after the other

    def __init__(
        self,
        open_: Callable[[Begun], Running],
        begin: Callable[[int, Mapping[str, Any]], Begun],
        read_action: Callable[[Any], Any],
        spaces: tuple[gym.Space, gym.Space],
        shown: Callable[[Any], Any],
        live: int,
    ) -> None:
        """``begin``: what the seed and options of a session open. ``spaces``: of actions and observations. ``shown``:
        what is seen, for a person."""
        self.open, self.begin, self.read_action, self.shown, self.live = open_, begin, read_action, shown, live
        self.action_space, self.observation_space = spaces
        self.render_mode = "rgb_array" if isinstance(spaces[0], gym.spaces.Box) else "ansi"
        self._running: dict[tuple[Begun, tuple[Any, ...]], Running] = {}

    def start(self, seed: int, options: Mapping[str, Any]) -> tuple[Past, Mapping[str, Any]]:
        if "state" in options:
            if not isinstance(options["state"], Past):
                raise InputError("start, state: a real world goes on from its own states alone; give one of a session")
            return options["state"], options["state"].told
        begun = self.begin(seed, options)
        running, _ = self._at(Past(begun, (), None))
        self._running[begun, ()] = running
        return Past(begun, (), running.seen(), running.told), running.told

    def advance(self, asked: Asked, streams: Streams) -> list[Outcome]:
        """One after the other; real worlds draw nothing but from their seeds."""
        outcomes = []
        for past, action in asked:
            running, again = self._at(past)
            for one in (*again, action):
                reward, ended, told = running.act(one)
                if "lost" in told:
                    break
            if "lost" in told:
                running.close()
                outcomes.append(Outcome(past, reward, ended, told))
                continue
            after = past if "action_error" in told else Past(past.begun, (*past.done, action), running.seen(), told)
            self._running[after.begun, after.done] = running
            outcomes.append(Outcome(after, reward, ended, told))
        return outcomes

    def _at(self, past: Past) -> tuple[Running, tuple[Any, ...]]:
        """What runs and stands there; else one that begins, and what is to be done again in it: what has waited longest
        makes room for it."""
        if running := self._running.pop((past.begun, past.done), None):
            return running, ()
        while len(self._running) >= self.live:
            self._running.pop(next(iter(self._running))).close()
        return self.open(past.begun), past.done

    def observe(self, state: Past) -> Any:
        return deepcopy(state.seen)  # whoever is shown it may change it

    def render(self, state: Past) -> Any:
        return self.shown(self.observe(state))

    def close(self) -> None:
        while self._running:
            self._running.popitem()[1].close()
