"""The published layout: a file ``<name>_eps_<8 digits>.npz`` an episode, with its frames and actions.

Arrays: ``image`` uint8 [T, H, W, 3], ``action`` [T, A] and, of our own, maybe ``proprio`` [T, P] and ``instruction``.
Source of the layout: the converter of iVideoGPT and RLVR-World (one file an episode, native frame size).
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from rlvr_world.domains.row_files import OnFault, telling
from rlvr_world.domains.video.episodes import checked_actions, checked_rows, checked_steps
from rlvr_world.errors import InputError

_BROKEN = (OSError, ValueError, KeyError, EOFError, MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error)


class NpzEpisodes:
    """Reads a folder of ``.npz`` episodes. Opening reads array headers only; frames stay compressed until asked for.
    Raises InputError for a folder without episodes, and for a file whose arrays are missing, broken, or differ in
    length, or in width from the first episode's."""

    def __init__(self, folder: Path | str, on_fault: OnFault = None) -> None:
        self.name = Path(folder).resolve().name
        self.files: list[Path] = []
        self.lengths: list[int] = []
        for file in sorted(Path(folder).glob("*.npz")):
            with telling(on_fault):
                shape = _shapes(file)
                widths = {key: size[1] for key, size in shape.items() if key != "image"}
                if not self.files:
                    self._widths = widths
                length, rows = shape["image"][0], {key: shape[key][0] for key in widths}
                spare = rows.pop("action") in (length, length - 1)  # the last action leads nowhere
                if widths != self._widths or not spare or {*rows.values()} - {length}:
                    first = (self.files or [file])[0].name
                    wanted = f"as many rows as frames, and the widths {self._widths} of {first}"
                    raise InputError(f"{file}: expected {wanted}, got the shapes {shape}; repair or remove the episode")
                self.files.append(file)
                self.lengths.append(length)
        if not self.files:
            wanted = "episodes named <name>_eps_<8 digits>.npz"
            raise InputError(f"{folder}: expected {wanted}, found no .npz file that reads; check the path")
        self.ids: Sequence[str] = [file.stem for file in self.files]
        # A clip asks for its state and its next state one after the other: the episode is inflated once.
        self._frames = lru_cache(maxsize=4)(lambda episode: _load(self.files[episode], "image"))
        self._rows = lru_cache(maxsize=20_000)(self._read_rows)  # small, and asked for with every clip

    def frames(self, episode: int, steps: Sequence[int]) -> np.ndarray:
        steps = checked_steps(steps, self._where(episode), self.lengths[episode])
        return self._frames(episode)[steps]

    def actions(self, episode: int) -> np.ndarray:
        return self._rows(episode, "action")

    def proprio(self, episode: int) -> np.ndarray | None:
        return self._rows(episode, "proprio") if "proprio" in self._widths else None

    def instruction(self, episode: int) -> str:
        """What was to be done, "" where the file does not say."""
        with np.load(self.files[episode], allow_pickle=False) as arrays:
            return str(arrays.get("instruction", ""))

    def known(self, episode: int) -> dict[str, np.ndarray]:
        """What the file has a row a frame of besides, such as what a simulator knows, by name: [T, ...]."""
        with np.load(self.files[episode], allow_pickle=False) as arrays:
            rows = {key: arrays[key] for key in arrays.files if key not in ("image", "action")}
        return {key: v for key, v in rows.items() if v.dtype.kind in "fiub" and v.shape[:1] == (self.lengths[episode],)}

    def _read_rows(self, episode: int, key: str) -> np.ndarray:
        where, check = f"{self._where(episode)}, field {key}", checked_actions if key == "action" else checked_rows
        return check(_load(self.files[episode], key), where, self.lengths[episode], self._widths[key])

    def _where(self, episode: int) -> str:
        return f"{self.files[episode]}, episode {self.ids[episode]}"


def write_npz(file: Path, arrays: Mapping[str, Any]) -> None:
    """An episode's file, whole or not at all: one that is there is not made again."""
    part = file.with_name(f".{file.name}.{os.getpid()}.part")  # of several processes that play the same worlds
    try:
        with part.open("wb") as stream:
            np.savez_compressed(stream, **arrays)
        os.replace(part, file)
    finally:
        part.unlink(missing_ok=True)


def _shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """The shape of each array, from its first bytes (nothing else is inflated), checked for what the reader needs."""
    headers = {}
    try:
        with zipfile.ZipFile(file) as archive:
            for key in {"image.npy", "action.npy", "proprio.npy"} & set(archive.namelist()):
                with archive.open(key) as member:
                    first = np.lib.format.read_magic(member) == (1, 0)
                    read = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
                    headers[key.removesuffix(".npy")] = read(member)
    except _BROKEN as error:
        raise InputError(f"{file}, episode {file.stem}: not a readable .npz ({error}); convert or remove it") from None
    for key, (shape, _, dtype) in headers.items():
        image = key == "image"
        if (len(shape) != 4 or shape[3] != 3 or 0 in shape or dtype != np.uint8) if image else len(shape) != 2:
            wanted = "uint8 [T, H, W, 3]" if image else "rows [T, width]"
            raise InputError(f"{file}, field {key}: expected {wanted}, got {dtype} {list(shape)}; convert it again")
    missing = [key for key in ("image", "action") if key not in headers]
    if missing:
        raise InputError(f"{file}: expected the arrays image and action, got no {' and no '.join(missing)}; add them")
    return {key: shape for key, (shape, *_) in headers.items()}


def _load(file: Path, key: str) -> np.ndarray:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return arrays[key]
    except _BROKEN as error:
        where = f"{file}, episode {file.stem}, field {key}"
        raise InputError(f"{where}: does not read ({error}); convert it again or remove it") from None
