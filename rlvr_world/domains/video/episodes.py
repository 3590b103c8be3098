"""Recorded episodes, whatever they are stored in, and the clips that world models learn from.

Shape legend: T frames, H height, W width, A action width, P proprioception width.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from rlvr_world.errors import InputError
from rlvr_world.types import Transition


class Episodes(Protocol):
    """A data set of episodes: actions are at hand, frames are read when asked for.

    What does not read raises InputError that names file, episode, step and field.
    """

    @property
    def name(self) -> str:
        """Names the data set in errors, row ids and results."""

    @property
    def ids(self) -> Sequence[str]:
        """The name of each episode, sorted: what splits and results speak of."""

    @property
    def lengths(self) -> Sequence[int]:
        """Frames of each episode."""

    @property
    def files(self) -> Sequence[Path]:
        """Files or folders that frames are read from: what is kept of frames holds as long as these bytes do."""

    def frames(self, episode: int, steps: Sequence[int]) -> np.ndarray:
        """The frames at these steps, uint8 [len(steps), H, W, 3], RGB, at the size they are stored in."""

    def actions(self, episode: int) -> np.ndarray:
        """float32 [T, A]; row t leads from frame t to frame t + 1 (the last one leads nowhere)."""

    def proprio(self, episode: int) -> np.ndarray | None:
        """What the robot feels of itself, float32 [T, P]; None where the data set has none."""


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


class FramesInMemory:
    """One episode that is at hand: frames uint8 [T, H, W, 3], and proprioception float32 [T, P] where there is any;
    int64 tokens [T, n] of frames that a model drew, which are not what encoding those gives."""

    name, ids, files = "frames in memory", ("0",), ()

    def __init__(self, images: np.ndarray, felt: np.ndarray | None = None, tokens: Tensor | None = None) -> None:
        self.images, self.felt, self.tokens, self.lengths = images, felt, tokens, (len(images),)

    def frames(self, episode: int, steps: Sequence[int]) -> np.ndarray:
        return self.images[checked_steps(steps, self.name, len(self.images))]

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
    if not isinstance(given, Mapping):
        raise InputError(f"question: expected an object with the keys state and action, got {given!r:.80}")
    state = given.get("state")
    if not isinstance(state, Clip):
        images, felt = _array(given, "state"), None
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3 or not images.size:
            got = f"{images.dtype} {list(images.shape)}"
            raise InputError(f"question, field state: expected frames uint8 [T, H, W, 3], got {got}")
        if given.get("proprio") is not None:
            felt = _numbers(given, "proprio", len(images))
        state = FramesInMemory(images, felt).clip
    return Transition(str(given.get("id", "question")), state, _numbers(given, "action"), None)


def _array(given: Any, field: str) -> np.ndarray:
    try:
        return np.asarray(given.get(field))
    except ValueError as error:
        raise InputError(f"question, field {field}: expected an array, got rows that differ ({error})") from None


def _numbers(given: Any, field: str, rows: int | None = None) -> np.ndarray:
    """float32 [F, A]; ``rows`` None takes any F."""
    values = _array(given, field)
    if values.dtype.kind not in "fiu" or values.ndim != 2 or len(values) != (rows or len(values)):
        wanted = f"{rows or 'some'} rows of numbers"
        raise InputError(f"question, field {field}: expected {wanted}, got {values.dtype} {list(values.shape)}")
    return values.astype(np.float32)


class SeveralCamerasError(InputError):
    """Of the cameras that are ``known`` none is named."""

    def __init__(self, known: Sequence[str], text: str) -> None:
        super().__init__(text)
        self.known = known


def chosen_cameras(known: Sequence[str], wanted: str, where: str) -> list[str]:
    """The cameras to read of those known: the only one, or those that ``wanted`` names, with commas; a name is the
    whole one, what stands behind its last point, or before an underscore (``top``, ``agentview``)."""
    names = [name.strip() for name in wanted.split(",")] if wanted or len(known) != 1 else known
    found = [[key for key in known if name and (key == name or key.endswith(f".{name}"))] for name in names]
    short = [[key for key in known if name and key.startswith(f"{name}_")] for name in names]
    found = [keys or others for keys, others in zip(found, short, strict=True)]
    if all(len(keys) == 1 for keys in found):
        return [key for (key,) in found]
    got = f"got {wanted!r}; name one in data.camera, or several with commas, which come side by side"
    raise SeveralCamerasError(known, f"{where}: expected one camera of {', '.join(known) or 'none at all'}, {got}")


def side_by_side(views: Mapping[str, np.ndarray], where: str) -> np.ndarray:
    """uint8 [T, H, W, 3] of the views of several cameras, from left to right."""
    if len({view.shape[1] for view in views.values()}) > 1:
        sizes = ", ".join(f"{camera} {view.shape[1]}x{view.shape[2]}" for camera, view in views.items())
        raise InputError(f"{where}: expected cameras of one height to put side by side, got {sizes}; name one")
    return np.concatenate(list(views.values()), axis=2)


def decoded_image(data: bytes, where: str) -> np.ndarray:
    """uint8 [H, W, 3] of an encoded picture. Raises InputError for one that does not decode, or is too large."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as picture:
            return np.asarray(picture.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{where}: the image does not decode ({error}); download or export it again") from None


def stacked(frames: Sequence[np.ndarray], where: str) -> np.ndarray:
    """uint8 [T, H, W, 3] of frames that have to be of one size."""
    if len(sizes := {frame.shape[:2] for frame in frames}) > 1:
        got = " and ".join(f"{height}x{width}" for height, width in sorted(sizes))
        raise InputError(f"{where}: expected frames of one size, got {got}; leave it out with data.skip_faulty=true")
    return np.stack(frames)


def checked_rows(values: np.ndarray, where: str, length: int, width: int | None = None) -> np.ndarray:
    """``values`` as float32 [length, width], for a reader's actions or proprioception; ``width`` None takes any.
    InputError names ``where`` (file, episode, field), and the step of a number that is not finite."""
    mend = "repair or remove the episode"
    if values.dtype.kind not in "fiub" or values.ndim != 2 or (width is not None and values.shape[1] != width):
        wanted = f"rows of {'any' if width is None else width} numbers"
        raise InputError(f"{where}: expected {wanted}, got {values.dtype} {list(values.shape)}; {mend}")
    if len(values) != length:
        raise InputError(f"{where}: expected a row for each of {length} frames, got {len(values)}; {mend}")
    rows = values.astype(np.float32)
    bad = np.argwhere(~np.isfinite(rows))
    if len(bad):
        step, column = bad[0]
        place = f"at step {step}, dimension {column} ({len(bad)} such)"
        raise InputError(f"{where}: expected finite numbers, got {rows[step, column]} {place}; {mend}")
    return rows


def checked_actions(values: np.ndarray, where: str, length: int, width: int | None = None) -> np.ndarray:
    """Like ``checked_rows``. The action of the last frame leads nowhere: where it is missing or no number, as recorders
    leave it, the one before stands there."""
    if values.ndim == 2 and values.dtype.kind in "fiub":
        if 0 < len(values) == length - 1:
            values = np.concatenate([values, values[-1:]])
        elif len(values) > 1 and np.isnan(values[-1]).all():
            values = np.concatenate([values[:-1], values[-2:-1]])
    return checked_rows(values, where, length, width)


def checked_steps(steps: Sequence[int], where: str, length: int) -> list[int]:
    """The steps as a list; raises InputError that names the first one that the episode does not have."""
    for step in steps:
        if not 0 <= step < length:
            raise InputError(f"{where}, step {step}: no such frame; the episode has the steps 0 to {length - 1}")
    return list(steps)
