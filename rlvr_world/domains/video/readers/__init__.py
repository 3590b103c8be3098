"""Readers of recorded episodes: one a storage layout, all with the ``Episodes`` interface."""

from __future__ import annotations

import os
from pathlib import Path

from rlvr_world.domains.row_files import OnFault
from rlvr_world.domains.video.episodes import Episodes
from rlvr_world.errors import InputError

KINDS = ("npz", "lerobot", "dino_wm", "folder", "hdf5")
"""The layouts that ``open_episodes`` knows."""


def open_episodes(kind: str, path: Path | str, split: str = "", camera: str = "", on_fault: OnFault = None) -> Episodes:
    """The episodes at ``path``, stored as ``kind``, one of ``KINDS``; what a layout needs is imported only for it.

    ``split`` is for dino_wm ('train' or 'val'); ``camera`` for lerobot, hdf5 and folder. ``on_fault`` is told what is
    wrong with single episodes, which are left out; without it the first raises.
    """
    path = os.path.expanduser(path)
    if kind == "npz":
        from rlvr_world.domains.video.readers.npz import NpzEpisodes

        return NpzEpisodes(path, on_fault)
    if kind == "lerobot":
        from rlvr_world.domains.video.readers.lerobot import LeRobotEpisodes

        return LeRobotEpisodes(path, camera, on_fault)
    if kind == "dino_wm":
        from rlvr_world.domains.video.readers.dino_wm import DinoEpisodes

        return DinoEpisodes(path, split)
    if kind == "folder":
        from rlvr_world.domains.video.readers.folder import FolderEpisodes

        return FolderEpisodes(path, camera, on_fault)
    if kind == "hdf5":
        from rlvr_world.domains.video.readers.hdf5 import Hdf5Episodes

        return Hdf5Episodes(path, camera, on_fault)
    raise InputError(f"the episodes at {path}: unknown kind {kind!r}; take one of {', '.join(KINDS)}")
