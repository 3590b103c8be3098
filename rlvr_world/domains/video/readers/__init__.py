"""Readers of recorded episodes: one a storage layout, all with the ``Episodes`` interface."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Any

from rlvr_world.domains.row_files import OnFault
from rlvr_world.domains.video.episodes import Episodes
from rlvr_world.errors import InputError

KINDS = {
    "npz": "NpzEpisodes",
    "lerobot": "LeRobotEpisodes",
    "dino_wm": "DinoEpisodes",
    "folder": "FolderEpisodes",
    "hdf5": "Hdf5Episodes",
}
"""The layouts that ``open_episodes`` knows: a module each, and in it the reader."""


def open_episodes(kind: str, path: Path | str, split: str = "", camera: str = "", on_fault: OnFault = None) -> Episodes:
    """The episodes at ``path``, stored as ``kind``, one of ``KINDS``; what a layout needs is imported only for it.

    ``split`` is for dino_wm ('train' or 'val'); ``camera`` for lerobot, hdf5 and folder. ``on_fault`` is told what is
    wrong with single episodes, which are left out; without it the first raises.
    """
    if kind not in KINDS:
        raise InputError(f"the episodes at {path}: unknown kind {kind!r}; take one of {', '.join(KINDS)}")
    reader = getattr(import_module(f"{__name__}.{kind}"), KINDS[kind])
    given: dict[str, tuple[Any, ...]] = {"npz": (on_fault,), "dino_wm": (split,)}
    episodes: Episodes = reader(os.path.expanduser(path), *given.get(kind, (camera, on_fault)))
    return episodes
