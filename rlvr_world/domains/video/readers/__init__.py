"""Readers of recorded episodes: one a storage layout, all with the ``Episodes`` interface."""

from __future__ import annotations

import os
from pathlib import Path

from rlvr_world.domains.video.episodes import Episodes
from rlvr_world.errors import InputError

KINDS = ("npz", "lerobot", "dino_wm", "folder")
"""The layouts that ``open_episodes`` knows."""


def open_episodes(kind: str, path: Path | str, split: str = "", camera: str = "") -> Episodes:
    """The episodes at ``path``, stored as ``kind``, one of ``KINDS``; what a layout needs is imported only for it.

    ``split`` is for dino_wm ('train' or 'val'), ``camera`` for lerobot (one of its picture features).
    """
    path = os.path.expanduser(path)
    if kind == "npz":
        from rlvr_world.domains.video.readers.npz import NpzEpisodes

        return NpzEpisodes(path)
    if kind == "lerobot":
        from rlvr_world.domains.video.readers.lerobot import LeRobotEpisodes

        return LeRobotEpisodes(path, camera)
    if kind == "dino_wm":
        from rlvr_world.domains.video.readers.dino_wm import DinoEpisodes

        return DinoEpisodes(path, split)
    if kind == "folder":
        from rlvr_world.domains.video.readers.folder import FolderEpisodes

        return FolderEpisodes(path)
    raise InputError(f"the episodes at {path}: unknown kind {kind!r}; take one of {', '.join(KINDS)}")
