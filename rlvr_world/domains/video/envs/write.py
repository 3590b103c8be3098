"""Plays episodes of a simulator into a folder, in the layout that the published data has: one .npz file an episode.

Arrays of a file: ``image`` uint8 [T, H, W, 3] RGB, ``action`` float32 [T, A] (row t leads from frame t to t + 1), and
what else a world has, such as ``proprio`` float32 [T, P]. T frames, H height, W width, A action, P proprioception.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import zipfile
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from rlvr_world.system.progress import track

Episode = Mapping[str, np.ndarray]
Play = Callable[[Any, int], Episode]
"""Plays one episode of a spec; what comes out depends on (spec, episode number) alone."""


def write_episodes(play: Play, spec: Any, name: str, made_by: str, cache: Path, workers: int = 0) -> Path:
    """Plays the ``spec.episodes`` episodes that ``cache`` lacks; returns their folder.

    The folder is named by ``name`` and a hash of the spec and of ``made_by`` (the world's format and the simulator's
    version); spec.json in it says what they are. A broken-off collection goes on where it stopped.
    workers: processes; 0 takes one for each processor. The files do not depend on it.
    """
    about = {"world": name, "made_by": made_by, "spec": asdict(spec)}
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:12]
    folder = cache.expanduser() / f"{name}-{key}"
    files = [folder / f"{name}_eps_{episode:08d}.npz" for episode in range(spec.episodes)]
    missing = [(episode, file) for episode, file in enumerate(files) if not zipfile.is_zipfile(file)]
    if not missing:
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    _replace(folder / "spec.json", lambda part: part.write_text(json.dumps(about, indent=2) + "\n"))
    # Spawned, not forked: graphics drivers and thread pools of the parent do not survive a fork.
    context = multiprocessing.get_context("spawn")
    count = min(workers or os.cpu_count() or 1, len(missing))
    with ProcessPoolExecutor(count, mp_context=context) as pool:
        jobs = [pool.submit(_play_to_file, play, spec, episode, file) for episode, file in missing]
        try:
            finished = as_completed(jobs)
            for _ in track(jobs, f"playing {name}", "episodes"):
                next(finished).result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return folder


def _play_to_file(play: Play, spec: Any, episode: int, file: Path) -> None:
    arrays = dict(play(spec, episode))

    def save(part: Path) -> None:
        with part.open("wb") as out:
            np.savez_compressed(out, allow_pickle=False, **arrays)

    _replace(file, save)


def _replace(file: Path, write: Callable[[Path], object]) -> None:
    """A file that is there is whole: it is written under another name first."""
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        write(part)
        os.replace(part, file)
    finally:
        part.unlink(missing_ok=True)
