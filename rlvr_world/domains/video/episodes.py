"""Recorded episodes, whatever they are stored in, and the clips that world models learn from.

Shape legend: T frames, H height, W width, A action width, P proprioception width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from rlvr_world.errors import InputError
from rlvr_world.types import Transition


class Episodes(Protocol):
    """A data set of episodes: actions are at hand, frames are read when asked for."""

    @property
    def name(self) -> str:
        """Names the data set in errors, row ids and results."""
        ...

    @property
    def ids(self) -> Sequence[str]:
        """The name of each episode, sorted: what splits and results speak of."""
        ...

    @property
    def lengths(self) -> Sequence[int]:
        """Frames of each episode."""
        ...

    def frames(self, episode: int, steps: Sequence[int]) -> np.ndarray:
        """The frames at these steps, uint8 [len(steps), H, W, 3], RGB, at the size they are stored in.

        Raises InputError that names file, episode and step where a frame is missing or does not decode.
        """
        ...

    def actions(self, episode: int) -> np.ndarray:
        """float32 [T, A]; row t leads from frame t to frame t + 1 (the last one leads nowhere).

        Raises InputError that names file, episode, step and field for a wrong width or a number that is not finite.
        """
        ...

    def proprio(self, episode: int) -> np.ndarray | None:
        """What the robot feels of itself, float32 [T, P]; None where the data set has none."""
        ...


@dataclass(frozen=True)
class Clip:
    """Some frames of one episode, in order: a state or a next state. Frames are read when asked for."""

    episodes: Episodes
    episode: int
    steps: tuple[int, ...]

    def __repr__(self) -> str:
        return f"Clip({self.episodes.name}/{self.episodes.ids[self.episode]}:{self.steps})"

    def read(self) -> np.ndarray:
        """uint8 [len(steps), H, W, 3]."""
        return self.episodes.frames(self.episode, self.steps)

    def proprio(self) -> np.ndarray | None:
        """float32 [len(steps), P]; None where the data set has none."""
        whole = self.episodes.proprio(self.episode)
        return None if whole is None else whole[list(self.steps)]


@dataclass(frozen=True, eq=False)
class FramesInMemory:
    """One episode that is at hand: frames uint8 [T, H, W, 3], and proprioception float32 [T, P] where there is any."""

    images: np.ndarray
    felt: np.ndarray | None = None
    name: str = "frames in memory"
    ids: Sequence[str] = ("0",)

    @property
    def lengths(self) -> Sequence[int]:
        return (len(self.images),)

    def frames(self, episode: int, steps: Sequence[int]) -> np.ndarray:
        return self.images[checked_steps(steps, self.name, "0", len(self.images))]

    def actions(self, episode: int) -> np.ndarray:
        return np.zeros((len(self.images), 0), np.float32)

    def proprio(self, episode: int) -> np.ndarray | None:
        return self.felt

    @property
    def clip(self) -> Clip:
        """All frames, as a state."""
        return Clip(self, 0, tuple(range(len(self.images))))


def read_question(given: Any) -> Transition:
    """``{"state": ..., "action": ...}``: a ``Clip`` or frames uint8 [T, H, W, 3], with ``proprio`` float32 [T, P] where
    the model has it; and numbers [F, A], a row for each frame that is given or predicted.

    Raises InputError that names the field for anything else.
    """
    state, where = given.get("state"), "question"
    if not isinstance(state, Clip):
        images = np.asarray(state)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3 or not images.size:
            raise InputError(
                f"{where}, field state: expected frames uint8 [T, H, W, 3], got {images.dtype} {list(images.shape)}"
            )
        felt = given.get("proprio")
        state = FramesInMemory(images, None if felt is None else np.asarray(felt, np.float32)).clip
    action = np.asarray(given.get("action"))
    if action.dtype.kind not in "fiu" or action.ndim != 2:
        raise InputError(f"{where}, field action: expected numbers [F, A], got {action.dtype} {list(action.shape)}")
    return Transition(str(given.get("id", "question")), state, action.astype(np.float32), None)


def checked_rows(
    values: np.ndarray, field: str, file: object, episode: str, length: int, width: int | None = None
) -> np.ndarray:
    """``values`` as float32 [length, width], for a reader's actions or proprioception; ``width`` None takes any.

    Raises InputError that names file, episode, step and field for a wrong shape or a number that is not finite.
    """
    where = f"{file}, episode {episode}, field {field}"
    if values.dtype.kind not in "fiub" or values.ndim != 2 or (width is not None and values.shape[1] != width):
        wanted = "any" if width is None else width
        raise InputError(
            f"{where}: expected rows of {wanted} numbers, got {values.dtype} of shape {values.shape}; all episodes of "
            "a data set have one width, so repair or remove this one"
        )
    if len(values) != length:
        raise InputError(f"{where}: expected a row for each of {length} frames, got {len(values)}; repair or remove it")
    rows = values.astype(np.float32)
    bad = np.argwhere(~np.isfinite(rows))
    if len(bad):
        step, column = bad[0]
        raise InputError(
            f"{where}: expected finite numbers, got {rows[step, column]} at step {step}, dimension {column} "
            f"({len(bad)} such); repair or remove the episode"
        )
    return rows


def checked_steps(steps: Sequence[int], file: object, episode: str, length: int) -> list[int]:
    """The steps as a list; raises InputError that names the first one that the episode does not have."""
    for step in steps:
        if not 0 <= step < length:
            raise InputError(
                f"{file}, episode {episode}, step {step}: no such frame; the episode has the steps 0 to {length - 1}"
            )
    return list(steps)
