"""Readers of recorded episodes: one a storage layout, all with the ``Episodes`` interface."""

from __future__ import annotations

from pathlib import Path

from rlvr_world.domains.video.episodes import Episodes
from rlvr_world.errors import InputError

KINDS = ("npz", "lerobot", "dino_wm", "folder")
"""The layouts that ``open_episodes`` knows."""


def open_episodes(kind: str, path: Path | str, split: str = "", camera: str = "") -> Episodes:
    """The episodes at ``path``, stored as ``kind``, one of ``KINDS``.

    ``split`` is for dino_wm ('train' or 'val'), ``camera`` for lerobot (one of its picture features).
    """
    if kind == "npz":
        from rlvr_world.domains.video.readers.npz import NpzEpisodes

        return NpzEpisodes(path)
    raise InputError(f"the episodes at {path}: unknown kind {kind!r}; take one of {', '.join(KINDS)}")
