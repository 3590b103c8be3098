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
        root, self._camera = Path(path), camera
        self.files = [root] if root.is_file() else sorted([*root.rglob("*.hdf5"), *root.rglob("*.h5")])
        self.name = root.resolve().stem
        found: list[tuple[str, Path, str, int]] = []
        for file in self.files:
            with telling(on_fault), _opened(file) as store:
                for group in [f"data/{name}" for name in store["data"]] if "data" in store else ["/"]:
                    with telling(on_fault):
                        name = re.sub(r"\d+", lambda number: number[0].zfill(6), group.removeprefix("data/"))
                        name = file.stem if group == "/" else name if root.is_file() else f"{file.stem}/{name}"
                        where = f"{file}, episode {name}"
                        _first(store[group], ACTION, where)
                        found.append((name, file, group, len(next(iter(self._views(store[group], where).values())))))
        if not found:
            raise InputError(f"{root}: expected episodes in .hdf5 or .h5 files, found none that read; check the path")
        self.ids, self._files, self._groups, self.lengths = map(list, zip(*sorted(found), strict=True))

    def frames(self, episode: int, steps: Sequence[int]) -> np.ndarray:
        where = self._where(episode)
        places, order = np.unique(checked_steps(steps, where, self.lengths[episode]), return_inverse=True)
        with self._group(episode) as group:
            views = self._views(group, where)
            return side_by_side({camera: view[places][order] for camera, view in views.items()}, where)

    def actions(self, episode: int) -> np.ndarray:
        where = f"{self._where(episode)}, field action"
        with self._group(episode) as group:
            return checked_actions(_first(group, ACTION, where)[()], where, self.lengths[episode])

    def proprio(self, episode: int) -> np.ndarray | None:
        with self._group(episode) as group:
            known = _numbers(_observations(group))
            names = [name for name in STATE if name in known][:1] or [name for name in _ROBOT if name in known]
            values = [known[name][()].reshape(len(known[name]), -1) for name in names]
        where = f"{self._where(episode)}, field {' and '.join(names)}"
        if len({len(rows) for rows in values}) > 1:
            raise InputError(f"{where}: expected as many rows of each, got {', '.join(str(len(v)) for v in values)}")
        return checked_rows(np.concatenate(values, 1), where, self.lengths[episode]) if names else None

    def _views(self, group: Any, where: str) -> dict[str, Any]:
        """The frames of each camera that is read, uint8 [T, H, W, 3], as they lie in the file."""
        known = _observations(group)
        known = _numbers(known.get("images", known))
        pictures = [name for name, of in known.items() if of.ndim == 4 and of.shape[3] == 3 and of.dtype == np.uint8]
        views = {camera: known[camera] for camera in chosen_cameras(pictures, self._camera, where)}
        if len({len(view) for view in views.values()}) > 1:
            got = ", ".join(f"{len(view)} of {camera}" for camera, view in views.items())
            raise InputError(f"{where}: expected as many frames of each camera, got {got}; name one in data.camera")
        return views

    @contextmanager
    def _group(self, episode: int) -> Iterator[Any]:
        with _opened(self._files[episode]) as store:
            yield store[self._groups[episode]]

    def _where(self, episode: int) -> str:
        return f"{self._files[episode]}, episode {self.ids[episode]}"


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    try:
        with h5py.File(file) as store:
            yield store
    except (OSError, KeyError, RuntimeError) as error:
        raise InputError(f"{file}: it does not read as HDF5 ({error}); export or download it again") from None


def _numbers(group: Any) -> dict[str, Any]:
    """The fields of a group that hold rows, by name."""
    return {name: field for name, field in group.items() if getattr(field, "ndim", 0)}


def _first(group: Any, names: Sequence[str], where: str) -> Any:
    """The field with the first of these names."""
    fields = _numbers(group)
    for name in names:
        if name in fields:
            return fields[name]
    raise InputError(f"{where}: expected the field {' or '.join(names)}, got only {', '.join(group)}; add it")


def _observations(group: Any) -> Any:
    """What was observed in an episode, by name."""
    return next((group[name] for name in ("obs", "observations") if name in group), {})
