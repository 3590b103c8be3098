"""What to play: the settings of each embedded simulator, the same ones for the same arrays. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from rlvr_world.config import at_least, what
from rlvr_world.errors import InputError


@dataclass(frozen=True)
class PushTSpec:
    """A T on a table, pushed by a finger."""

    episodes: int = what(400, "episodes played", "episodes")
    length: int = what(100, "frames an episode, one every 0.1 s", "frames")
    size: int = what(64, "height and width of a frame", "pixels")
    seed: int = what(0, "seed of all episodes")
    noise: float = what(4.0, "tremor of the hand: deviation of its target", "pixels of 512")
    aim: Literal["anywhere", "home"] = what("anywhere", "where hands push the T; 'home': it begins near, some fail")

    def __post_init__(self) -> None:
        at_least(self, episodes=1, length=2, size=8, noise=0.0)
        if self.aim not in ("anywhere", "home"):
            raise InputError(f"aim: expected anywhere or home, got {self.aim!r}")

    @property
    def tasks(self) -> dict[str, str]:
        """What policies are told to do, by name; episodes take turns."""
        return {"home": "push the T home"} if self.aim == "home" else {}


@dataclass(frozen=True)
class RopeSpec:
    """A rope on a table, pushed with a stick."""

    episodes: int = what(1000, "episodes played", "episodes")
    pushes: int = what(20, "pushes an episode; there is one frame more", "pushes")
    size: int = what(64, "height and width of a frame", "pixels")
    seed: int = what(0, "seed of all episodes")
    links: int = what(24, "links of the rope", "links")
    rope: float = what(0.6, "length of the rope; the table is 0.8 m wide", "m")

    def __post_init__(self) -> None:
        at_least(self, episodes=1, pushes=1, size=8, links=3)
        if not 0.1 <= self.rope <= 1.0:
            raise InputError(f"rope: expected a length from 0.1 to 1.0 m, got {self.rope}")


@dataclass(frozen=True)
class GranularSpec:
    """Grains on a table, pushed with a board."""

    episodes: int = what(1000, "episodes played", "episodes")
    pushes: int = what(20, "pushes an episode; there is one frame more", "pushes")
    size: int = what(64, "height and width of a frame", "pixels")
    seed: int = what(0, "seed of all episodes")
    grains: int = what(120, "grains on the table", "grains")

    def __post_init__(self) -> None:
        at_least(self, episodes=1, pushes=1, size=8, grains=1)


@dataclass(frozen=True)
class DrawerSpec:
    """A drawer, opened or closed by a robot arm."""

    episodes: int = what(1200, "episodes played", "episodes")
    length: int = what(25, "frames an episode; experts need 12 to 20", "frames")
    hold: int = what(5, "simulator steps of 0.0125 s from one frame to the next: an action is held that long", "steps")
    size: int = what(32, "height and width of a frame", "pixels")
    seed: int = what(0, "seed of all episodes")
    task: Literal["open", "close", "both"] = what("both", "what is to be done; 'both' takes turns")
    noise: float = what(0.6, "largest deviation of the noise on an action; each episode draws its own up to this")

    def __post_init__(self) -> None:
        at_least(self, episodes=1, length=2, hold=1, size=8, noise=0.0)
        if self.task not in ("open", "close", "both"):
            raise InputError(f"task: expected open, close or both, got {self.task!r}")

    @property
    def tasks(self) -> dict[str, str]:
        """As PushT's."""
        return {name: f"{name} the drawer" for name in ("open", "close") if self.task in (name, "both")}


Spec = PushTSpec | RopeSpec | GranularSpec | DrawerSpec
SPECS: Mapping[str, type[Spec]] = {"pusht": PushTSpec, "rope": RopeSpec, "granular": GranularSpec, "drawer": DrawerSpec}
"""The settings of each world."""
