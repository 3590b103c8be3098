"""What is tried with a trained model: tasks of planners, recordings that are replayed, trials of policies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from rlvr_world.types import World

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Task:
    """What planners try in a world: where it starts, what is worth doing in a state, and what ends it.

    ``actions`` and ``last`` read states of the real world and of the imagined one.
    """

    real: World
    starts: Mapping[str, Mapping[str, Any]]
    """The world's name (a game) -> the options of ``real.start`` that begin it."""
    actions: Callable[[Any], Sequence[Any]]
    """What can be done in a state and may change it, as far as the state tells; the likeliest first."""
    last: Callable[[Any], Any] = lambda state: None
    """The action that reaches the goal from a state, where it can be done there; else None."""
    rules: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    """What to do in a real state without a model, by name: what planners are compared with."""
    horizon: int = 0
    """Where the way to the goal is not known: the actions that a planner has from the start of an episode on."""
    seed: int = 0
    """Of the first episode of each start; the others follow on."""


class Goal(NamedTuple):
    """A frame to bring about, uint8 [H, W, 3], from a real state of an episode ``world``; the actions, float32 [D, A],
    that really did; where things were (``begun``) and are to be (``places``), float [K, C] in the world's units."""

    world: str
    state: Any
    frame: np.ndarray
    actions: np.ndarray
    begun: np.ndarray
    places: np.ndarray
    seed: int


@dataclass(frozen=True)
class Reach:
    """Goals that are frames, in a real world that tells under ``info["places"]`` where its things are.

    ``goals`` gives so many of them, so many steps away in turn; ``hold`` is how many parts an action has, all alike."""

    real: World
    goals: Callable[[int, Sequence[int]], list[Goal]]
    hold: int


def moved(places: np.ndarray, others: np.ndarray) -> float:
    """How far things are on average from where they are in ``others``: float [K, C] each."""
    return float((((places - others) ** 2).sum(1) ** 0.5).mean())


class Walk(NamedTuple):
    """What was done in the real world, and what was seen before and after each action; ``world`` names the game, page
    or episode, since walks of one are alike; ``start``, where a model is told to begin, if not with what is seen;
    ``stands``, after each action, whether the episode had ended, and with a reward."""

    actions: list[Any]
    seen: list[Any]
    world: str
    start: Any = None
    stands: Sequence[tuple[bool, bool]] = ()


Look = Callable[[Sequence[Any], Sequence[Any]], tuple[Mapping[str, Any], Mapping[str, Any]]]
"""(imagined, true), from the start on -> measures, and what a probe tells of the state, by names that say how well it
correlates on frames new to it: float [steps] each."""


class Labelled(NamedTuple):
    """N frames uint8 [N, H, W, 3] that the real world has told about: ``measure`` float32 [N] is what success, bool
    [N], is a threshold of; ``expert`` float32 [N, A] what an expert would do there; ``demo`` int64 [N] the number of
    the demonstration that a frame is of, from 0, or -1."""

    frames: np.ndarray
    measure: np.ndarray
    success: np.ndarray
    expert: np.ndarray
    demo: np.ndarray


@dataclass(frozen=True)
class Trial:
    """A task that policies try, really and in a model: ``start`` gives options of starts that it was not trained on, by
    number, ``labelled`` frames of train, valid or test, ``round_trip`` frames as a model shows them at best."""

    real: World
    start: Callable[[int], Mapping[str, Any]]
    steps: int
    instruction: str
    labelled: Callable[[str], Labelled]
    round_trip: Callable[[np.ndarray], np.ndarray]
    policies: Mapping[str, str]
    changed: World | None = None  # the real one with another look, as of a simulator built by hand
    known: Mapping[str, tuple[float, int]] = field(default_factory=dict)
    """Where ``real`` is imagined too: real success by policy, a rate and of how many episodes (0: nobody says)."""
