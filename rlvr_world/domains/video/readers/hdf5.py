"""HDF5 files of robot episodes: robomimic's, with many in a file, and those of ALOHA and ACT, a file an episode.

robomimic    data/demo_0/actions [T, A], data/demo_0/obs/agentview_image [T, H, W, 3], .../obs/robot0_eef_pos ...
ALOHA        action [T, A], observations/qpos [T, P], observations/images/top [T, H, W, 3]
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from rlvr_world.domains.row_files import OnFault, telling
from rlvr_world.domains.video.episodes import checked_actions, checked_rows, checked_steps, chosen_cameras, side_by_side
from rlvr_world.domains.video.readers.parquet import ACTION, STATE
from rlvr_world.errors import InputError

_ROBOT = ("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos")
"""robomimic's proprioception where there is no field for all of it."""


class Hdf5Episodes:
    """Reads a file, or all ``.hdf5`` and ``.h5`` files of a folder. ``camera`` as in ``chosen_cameras``. Raises
    InputError for what is no such file; what is wrong with one episode goes to ``on_fault``, if given."""

    def __init__(self, path: Path | str, camera: str = "", on_fault: OnFault = None) -> None:
        root = Path(path)
        self.files = [root] if root.is_file() else sorted([*root.rglob("*.hdf5"), *root.rglob("*.h5")])
        self.name = root.resolve().stem
        found: list[tuple[str, Path, str, int]] = []
        for file in self.files:
            with telling(on_fault), _opened(file) as store:
                for group in [f"data/{name}" for name in store["data"]] if "data" in store else ["/"]:
                    with telling(on_fault):
                        name = re.sub(r"\d+", lambda number: number[0].zfill(6), group.removeprefix("data/"))
                        name = file.stem if group == "/" else name if root.is_file() else f"{file.stem}/{name}"
                        found.append((name, file, group, self._length(store[group], f"{file}, episode {name}", camera)))
        if not found:
            raise InputError(f"{root}: expected episodes in .hdf5 or .h5 files, found none that read; check the path")
        self.ids, self._files, self._groups, self.lengths = map(list, zip(*sorted(found), strict=True))

    def frames(self, episode: int, steps: Sequence[int]) -> np.ndarray:
        where = self._where(episode)
        places, order = np.unique(checked_steps(steps, where, self.lengths[episode]), return_inverse=True)
        with _opened(self._files[episode]) as store:
            pictures = _pictures(store[self._groups[episode]])
            return side_by_side({camera: pictures[camera][places][order] for camera in self._cameras}, where)

    def actions(self, episode: int) -> np.ndarray:
        with _opened(self._files[episode]) as store:
            values = store[self._groups[episode]][self._action][()]
        return checked_actions(values, f"{self._where(episode)}, field {self._action}", self.lengths[episode])

    def proprio(self, episode: int) -> np.ndarray | None:
        with _opened(self._files[episode]) as store:
            known = _observations(store[self._groups[episode]])
            names = [name for name in STATE if name in known][:1] or [name for name in _ROBOT if name in known]
            values = [known[name][()] for name in names]
        where = f"{self._where(episode)}, field {' and '.join(names)}"
        return checked_rows(np.concatenate(values, 1), where, self.lengths[episode]) if names else None

    def _length(self, group: Any, where: str, camera: str) -> int:
        """Frames of an episode; the first one says what cameras and which name of the actions all have."""
        pictures, names = _pictures(group), [name for name in ACTION if name in group]
        self._cameras = chosen_cameras(list(pictures), camera, where)
        if not names:
            raise InputError(f"{where}: expected the field {' or '.join(ACTION)}, got only {', '.join(group)}; add it")
        self._action = names[0]
        return len(pictures[self._cameras[0]])

    def _where(self, episode: int) -> str:
        return f"{self._files[episode]}, episode {self.ids[episode]}"


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    try:
        with h5py.File(file) as store:
            yield store
    except (OSError, KeyError, RuntimeError) as error:
        raise InputError(f"{file}: it does not read as HDF5 ({error}); export or download it again") from None


def _observations(group: Any) -> Any:
    """What was observed in an episode, by name."""
    found = next((group[name] for name in ("obs", "observations") if name in group), None)
    return {} if found is None else found


def _pictures(group: Any) -> dict[str, Any]:
    """The fields of an episode that hold frames, uint8 [T, H, W, 3]."""
    known = _observations(group)
    known = known.get("images", known)
    return {name: field for name, field in known.items() if getattr(field, "ndim", 0) == 4 and field.dtype == np.uint8}
