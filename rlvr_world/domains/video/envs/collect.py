"""Episodes of the embedded simulators, played by scripts into the published layout: one .npz file an episode.

Arrays of a file: ``image`` uint8 [T, H, W, 3] RGB, ``action`` float32 [T, A] (row t leads from frame t to t + 1), and
what else a world has, such as ``proprio`` float32 [T, P]. T frames, H height, W width, A action, P proprioception.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import zipfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import asdict
from functools import partial
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from rlvr_world.domains.video.envs import drawer, granular, pusht, rope, table
from rlvr_world.domains.video.envs.specs import SPECS, DrawerSpec, GranularSpec, PushTSpec, RopeSpec, Spec
from rlvr_world.domains.video.readers.npz import write_npz
from rlvr_world.errors import InputError
from rlvr_world.system.progress import track

WORLDS: Mapping[str, tuple[Any, str]] = {
    "pusht": (pusht, "gym_pusht"),
    "rope": (rope, "mujoco"),
    "granular": (granular, "mujoco"),
    "drawer": (drawer, "metaworld"),
}
"""What plays each world, and the package that it needs."""
ATTEMPTS = 4
"""Beginnings of an episode, where the simulation becomes unstable."""


def collect(kind: str, spec: Spec, cache: Path, workers: int = 0) -> Path:
    """The folder with the episodes of ``spec``; those that ``cache`` lacks are played now.

    Its name has a hash of the spec, the world's format and the simulator's version; spec.json in it says what they are.
    A broken-off collection goes on where it stopped. workers: processes that play, one for each processor if 0; the
    arrays do not depend on it.
    Raises InputError for an unknown world, for a spec of another world, and where MuJoCo cannot render;
    ModuleNotFoundError where the simulator is not installed.
    """
    if kind not in SPECS:
        raise InputError(f"world: {kind!r} is not known; expected one of {', '.join(SPECS)}")
    if not isinstance(spec, SPECS[kind]):
        raise InputError(f"world {kind}: the spec is a {type(spec).__name__}; expected a {SPECS[kind].__name__}")
    world, package = WORLDS[kind]
    try:
        made_by = f"{world.FORMAT} {package} {metadata.version(package)}"
    except metadata.PackageNotFoundError as error:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package) from error
    if kind != "pusht":
        table.headless()
    told = {name: value for name, value in asdict(spec).items() if (name, value) != ("aim", "anywhere")}  # is younger
    about = {"world": kind, "made_by": made_by, "spec": told}
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:12]
    folder = cache.expanduser() / f"{kind}-{key}"
    files = [folder / f"{kind}_eps_{episode:08d}.npz" for episode in range(spec.episodes)]
    missing = [(episode, file) for episode, file in enumerate(files) if not zipfile.is_zipfile(file)]
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "spec.json").write_text(json.dumps(about, indent=2) + "\n")
        _play_all(spec, missing, f"playing {kind}", workers or os.cpu_count() or 1)
    return folder


def _play_all(spec: Spec, missing: Sequence[tuple[int, Path]], label: str, workers: int) -> None:
    # Spawned, not forked: graphics drivers and thread pools of the parent do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(missing)), mp_context=context) as pool:
        written = pool.map(partial(_play_to_file, spec), missing)  # where one fails, those that wait are not begun
        for _ in track(missing, label, "episodes"):
            next(written)


def _play_to_file(spec: Spec, job: tuple[int, Path]) -> None:
    episode, file = job
    write_npz(file, play(spec, episode))


def play(spec: Spec, episode: int) -> dict[str, np.ndarray]:
    """One episode, which depends on these two alone: ``image``, ``action``, and what its world has ``told`` of each
    frame. The last action is drawn and not done. Where the simulation becomes unstable, as one in some hundred heaps of
    grains does, another begins in its place; raises InputError where that does not help."""
    frames = spec.pushes + 1 if isinstance(spec, RopeSpec | GranularSpec) else spec.length
    for attempt in range(ATTEMPTS):
        rows: list[dict[str, Any]] = []
        with closing(opened(spec, episode, attempt)) as world:
            for action in islice(world.hand, frames):
                rows.append({"image": world.picture(), "action": action, **world.told()})
                if len(rows) < frames:
                    world.act(action)  # the stored numbers, so that replaying them gives the same episode
            if not getattr(world, "broken", False):
                arrays = {name: np.array([row[name] for row in rows]) for name in rows[0]}
                return {name: a.astype(np.float32) if a.dtype.kind == "f" else a for name, a in arrays.items()}
    where = f"{type(spec).__name__}, episode {episode}, seed {spec.seed}"
    raise InputError(f"{where}: the simulation became unstable {ATTEMPTS} times; take another seed")


def read_labelled(files: Sequence[Path], skip: int, pool: int) -> list[np.ndarray]:
    """Of every ``skip``-th frame of some episodes with a task: image, measure, success, what an expert does until the
    next one (means of ``pool`` steps, one after the other), and the number of the demonstration, or -1."""
    parts = list[list[np.ndarray]]()
    for file in files:
        with np.load(file) as told:
            frames = len(told["demo"]) // skip
            held = told["expert"][: frames * skip].reshape(frames, skip // pool, pool, -1).mean(2)
            shown = [told[name][: frames * skip : skip] for name in ("image", "measure", "success", "demo")]
            parts.append([*shown, held.reshape(frames, -1)])
    image, measure, success, demo, expert = (np.concatenate(one) for one in zip(*parts, strict=True))
    first = np.arange(len(demo)) % (len(demo) // len(files)) == 0
    return [image, measure, success, expert, np.where(demo, np.cumsum(demo & first) - 1, -1)]


def opened(spec: Spec, episode: int, attempt: int = 0) -> Any:
    """The world of an episode; ``hand`` is what the script that plays it does there."""
    rng = np.random.default_rng((spec.seed, episode, *[attempt] * bool(attempt)))
    if isinstance(spec, PushTSpec):
        return (pusht.Home if spec.aim == "home" else pusht.Push)(spec, rng)
    if isinstance(spec, DrawerSpec):
        return drawer.Drawer(spec, episode, rng)
    return rope.lay(spec, rng) if isinstance(spec, RopeSpec) else granular.lay(spec, rng)
