"""What to play: the settings of each embedded simulator. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from rlvr_world.config import what
from rlvr_world.errors import InputError


@dataclass(frozen=True)
class PushTSpec:
    """What to play; the same spec gives the same arrays.

    >>> PushTSpec(episodes=600, length=100, size=64)
    """

    episodes: int = what(400, "episodes played", "episodes")
    length: int = what(100, "frames an episode, one every 0.1 s", "frames")
    size: int = what(64, "height and width of a frame", "pixels")
    seed: int = what(0, "seed of all episodes")
    noise: float = what(4.0, "tremor of the hand: deviation of its target", "pixels of 512")

    def __post_init__(self) -> None:
        for name, least in (("episodes", 1), ("length", 2), ("size", 8)):
            if getattr(self, name) < least:
                raise InputError(f"pusht: {name} is {getattr(self, name)}; expected a whole number of at least {least}")
        if not self.noise >= 0:
            raise InputError(f"pusht: noise is {self.noise}; expected a number of at least 0")


@dataclass(frozen=True)
class RopeSpec:
    """What to play; the same spec gives the same arrays.

    >>> RopeSpec(episodes=1000, pushes=20, size=64)
    """

    episodes: int = what(1000, "episodes played", "episodes")
    pushes: int = what(20, "pushes an episode; there is one frame more", "pushes")
    size: int = what(64, "height and width of a frame", "pixels")
    seed: int = what(0, "seed of all episodes")
    links: int = what(24, "links of the rope", "links")
    rope: float = what(0.6, "length of the rope; the table is 0.8 m wide", "m")

    def __post_init__(self) -> None:
        for name, least in (("episodes", 1), ("pushes", 1), ("size", 8), ("links", 3)):
            if getattr(self, name) < least:
                raise InputError(f"rope: {name} is {getattr(self, name)}; expected a whole number of at least {least}")
        if not 0.1 <= self.rope <= 1.0:
            raise InputError(f"rope: rope is {self.rope}; expected a length from 0.1 to 1.0 m")


@dataclass(frozen=True)
class GranularSpec:
    """What to play; the same spec gives the same arrays.

    >>> GranularSpec(episodes=1000, pushes=20, size=64)
    """

    episodes: int = what(1000, "episodes played", "episodes")
    pushes: int = what(20, "pushes an episode; there is one frame more", "pushes")
    size: int = what(64, "height and width of a frame", "pixels")
    seed: int = what(0, "seed of all episodes")
    grains: int = what(120, "grains on the table", "grains")

    def __post_init__(self) -> None:
        for name, least in (("episodes", 1), ("pushes", 1), ("size", 8), ("grains", 1)):
            if getattr(self, name) < least:
                raise InputError(
                    f"granular: {name} is {getattr(self, name)}; expected a whole number of at least {least}"
                )


@dataclass(frozen=True)
class DrawerSpec:
    """What to play; the same spec gives the same arrays.

    >>> DrawerSpec(episodes=300, task="open")
    """

    episodes: int = what(300, "episodes played", "episodes")
    length: int = what(140, "frames an episode, one every 0.0125 s; experts need 60 to 130", "frames")
    size: int = what(64, "height and width of a frame", "pixels")
    seed: int = what(0, "seed of all episodes")
    task: Literal["open", "close", "both"] = what("both", "what the expert does; 'both' takes turns")
    noise: float = what(0.5, "largest deviation of the noise on an action; each episode draws its own up to this")

    def __post_init__(self) -> None:
        for name, least in (("episodes", 1), ("length", 2), ("size", 8)):
            if getattr(self, name) < least:
                raise InputError(
                    f"drawer: {name} is {getattr(self, name)}; expected a whole number of at least {least}"
                )
        if self.length > 500:
            raise InputError(f"drawer: length is {self.length}; expected at most 500, where Meta-World ends an episode")
        if self.task not in ("open", "close", "both"):
            raise InputError(f"drawer: task is {self.task!r}; expected open, close or both")
        if not self.noise >= 0:
            raise InputError(f"drawer: noise is {self.noise}; expected a number of at least 0")


Kind = Literal["pusht", "rope", "granular", "drawer"]
Spec = PushTSpec | RopeSpec | GranularSpec | DrawerSpec
SPECS: Mapping[str, type[Spec]] = {"pusht": PushTSpec, "rope": RopeSpec, "granular": GranularSpec, "drawer": DrawerSpec}
"""The settings of each world."""
