"""FVD of the films that a study made, with what it is worth: where nothing differs, few films are far apart too."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlvr_world.errors import InputError
from rlvr_world.evaluation.tables import markdown
from rlvr_world.system.files import write_whole
from rlvr_world.system.progress import track
from rlvr_world.vision.fvd import SHORTEST, features, frechet, load_i3d, of_halves

LENGTH = 16
"""Frames of a film, as is usual; ``SHORTEST`` where fewer than four films have so many."""


def told_fvd(films: Mapping[str, Sequence[Sequence[Any]]], real: str, file: Path) -> str:
    """For each name but ``real`` the FVD of its films from the real ones, as Markdown, and in ``file``; nothing, and
    stderr says why, where it cannot be measured. All films are cut to one length, their first frame is given."""
    lengths = [len(film) for film in films[real]]
    length = LENGTH if sum(have >= LENGTH for have in lengths) >= 4 else SHORTEST
    long = [i for i, have in enumerate(lengths) if have >= length]
    try:
        if len(long) < 4:
            raise InputError(f"expected at least 4 episodes of {SHORTEST} frames, got {len(long)}")
        i3d = load_i3d()
    except InputError as error:
        print(f"FVD left out: {error}", file=sys.stderr)
        return ""
    seen = {}
    for name in track(list(films), "FVD", "models"):
        seen[name] = features(i3d, [np.stack([*map(_pixels, films[name][i][:length])]) for i in long])
    least, most = of_halves(seen[real])
    far = {name: frechet(seen[real], of) for name, of in seen.items() if name != real}
    told = {"films": len(long), "frames": length, "halves": [least, most], "fvd": far}
    write_whole(file, json.dumps(told, indent=1))
    head = f"FVD of {len(long)} films of {length} frames (compare models of one table alone: few films add to it)"
    halves = [f"{real}, one half from the other ({len(long) // 2} films each)", f"{least:.4g} to {most:.4g}"]
    return f"{head}\n\n{markdown([['', 'FVD'], halves, *([name, f'{value:.4g}'] for name, value in far.items())])}"


def _pixels(seen: Any) -> np.ndarray:
    pixels: np.ndarray = seen["pixels"] if isinstance(seen, dict) else seen
    return pixels
