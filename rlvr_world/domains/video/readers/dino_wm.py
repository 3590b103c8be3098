"""The data sets of DINO-WM: PushT (an mp4 an episode, a folder a split), and Rope and Granular (a tensor an episode).

Source of the layouts, the units and the split: DINO-WM (arXiv 2411.04983) and its loaders. N episodes, T steps.
"""

from __future__ import annotations

import pickletools
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch

from rlvr_world.domains.video.episodes import checked_rows, checked_steps
from rlvr_world.errors import InputError

_ACTION_SCALE = 100.0
"""PushT's stored actions are in pixels; DINO-WM divides them by this."""
_AGAIN = "download it again"


class DinoEpisodes:
    """Reads ``folder/<split>`` of PushT (split 'train' or 'val'), or the split of a Rope or Granular folder.

    PushT: actions are relative, divided by 100; proprioception is the agent's position and velocity (4 numbers).
    Rope, Granular: the published split, 90 % of ``torch.randperm`` with seed 42 for 'train', the rest for 'val'; the
    actions are (x, z) of where a push starts and ends, and there is no proprioception.
    Lengths are those of ``seq_lengths.pkl``, or the mp4 files' where that is not a plain list of integers.
    Raises InputError for a folder of neither layout, and for tensors that disagree.
    """

    def __init__(self, folder: Path | str, split: str) -> None:
        root = Path(folder)
        if split not in ("train", "val"):
            raise InputError(f"{root}: expected the split 'train' or 'val' of a DINO-WM data set, got {split!r}")
        self.name = f"{root.resolve().name}_{split}"
        self._proprio: torch.Tensor | None = None
        self._pusht = (root / split / "rel_actions.pth").is_file()
        if self._pusht:
            self._open_pusht(root / split)
        elif (root / "actions.pth").is_file():
            self._open_deformable(root, split)
        else:
            wanted = f"{split}/rel_actions.pth (PushT) or actions.pth (Rope, Granular)"
            raise InputError(f"{root}: expected {wanted}, found neither; check the path")
        # A clip asks for its state and its next state one after the other: the episode is read once.
        self._pictures = lru_cache(maxsize=4)(_pictures)

    def frames(self, episode: int, steps: Sequence[int]) -> np.ndarray:
        file, name, length = self.files[episode], self.ids[episode], self.lengths[episode]
        where = f"{file}, episode {name}"
        steps = checked_steps(steps, where, length)
        if not self._pusht:
            return self._pictures(file, name, length)[steps]
        from rlvr_world.domains.video.readers.mp4 import read_frames

        video = self._video(file, name)
        if len(video) < length:
            wanted = f"{length} frames as seq_lengths.pkl states"
            raise InputError(f"{where}, step {len(video)}: expected {wanted}, got {len(video)}; {_AGAIN}")
        return read_frames(video, steps, name, range(length))

    def actions(self, episode: int) -> np.ndarray:
        return self._rows(self._actions, str(self._actions_file), "action", episode)

    def proprio(self, episode: int) -> np.ndarray | None:
        files = f"{self._actions_file.parent}, states.pth and velocities.pth"
        return None if self._proprio is None else self._rows(self._proprio, files, "proprio", episode)

    def _open_pusht(self, root: Path) -> None:
        from rlvr_world.domains.video.readers.mp4 import open_video

        self._video = lru_cache(maxsize=64)(open_video)
        self._actions_file = root / "rel_actions.pth"
        self._actions = read_tensor(self._actions_file, 3) / _ACTION_SCALE
        states, velocities = read_tensor(root / "states.pth", 3), read_tensor(root / "velocities.pth", 3)
        count, longest = self._actions.shape[:2]
        if states.shape[:2] != (count, longest) or velocities.shape[:2] != (count, longest):
            got = ", ".join(str(list(tensor.shape)) for tensor in (self._actions, states, velocities))
            wanted = "rel_actions, states and velocities [N, T, width] of one N and T"
            raise InputError(f"{root}: expected {wanted}, got {got}; download them again")
        self._proprio = torch.cat([states[..., :2], velocities], dim=-1)
        self.ids: Sequence[str] = [f"{i:06d}" for i in range(count)]
        self.files = [root / "obses" / f"episode_{i:03d}.mp4" for i in range(count)]
        self._episodes: Sequence[int] = range(count)
        stated, files = root / "seq_lengths.pkl", zip(self.files, self.ids, strict=True)
        lengths = _lengths(stated) or [min(len(self._video(file, name)), longest) for file, name in files]
        if len(lengths) != count or not all(0 < length <= longest for length in lengths):
            wanted, got = f"{count} lengths of 1 to {longest}", f"{len(lengths)} of {min(lengths)} to {max(lengths)}"
            raise InputError(f"{stated}: expected {wanted}, as rel_actions.pth has, got {got}; {_AGAIN}")
        self.lengths: Sequence[int] = lengths

    def _open_deformable(self, root: Path, split: str) -> None:
        self._actions_file = root / "actions.pth"
        self._actions = read_tensor(self._actions_file, 3)
        order = torch.randperm(len(self._actions), generator=torch.Generator().manual_seed(42)).tolist()
        cut = int(0.9 * len(order))
        self._episodes = sorted(order[:cut] if split == "train" else order[cut:])
        self.ids = [f"{episode:06d}" for episode in self._episodes]
        self.files = [root / name / "obses.pth" for name in self.ids]
        self.lengths = [self._actions.shape[1]] * len(self.ids)

    def _rows(self, values: torch.Tensor, file: str, field: str, episode: int) -> np.ndarray:
        length, where = self.lengths[episode], f"{file}, episode {self.ids[episode]}, field {field}"
        return checked_rows(values[self._episodes[episode], :length].float().numpy(), where, length)


def read_tensor(file: Path, dimensions: int) -> torch.Tensor:
    """A tensor with so many dimensions; nothing but weights is ever unpickled."""
    try:
        value = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, UnpicklingError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"{file}: expected a tensor saved by torch ({reason}); {_AGAIN}") from None
    if not isinstance(value, torch.Tensor) or value.ndim != dimensions:
        got = list(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
        raise InputError(f"{file}: expected a tensor of {dimensions} dimensions, got {got}; {_AGAIN}")
    return value


def _pictures(file: Path, episode: str, length: int) -> np.ndarray:
    """The frames of a Rope or Granular episode; they are stored as 0..255, in whatever number type."""
    where = f"{file}, episode {episode}"
    if not file.is_file():
        raise InputError(f"{where}: the file is missing; {_AGAIN}")
    frames = read_tensor(file, 4)
    if len(frames) != length or frames.shape[3] != 3:
        wanted = f"{length} frames [T, H, W, 3] as actions.pth has steps"
        raise InputError(f"{where}: expected {wanted}, got {list(frames.shape)}; {_AGAIN}")
    return frames.float().round().clamp(0, 255).to(torch.uint8).numpy()


def _lengths(file: Path) -> list[int]:
    """The integers of a pickled list; none where the file is missing or holds anything else. They are read off the
    opcodes: unpickling would run whatever the file says."""
    try:
        opcodes = [(code.name, value) for code, value, _ in pickletools.genops(file.read_bytes())]
    except (OSError, ValueError):
        return []
    plain = {"PROTO", "FRAME", "EMPTY_LIST", "MARK", "APPEND", "APPENDS", "MEMOIZE", "BINPUT", "LONG_BINPUT", "STOP"}
    if not all(name in plain or name.startswith("BININT") for name, _ in opcodes):
        return []
    return [int(value or 0) for name, value in opcodes if name.startswith("BININT")]
