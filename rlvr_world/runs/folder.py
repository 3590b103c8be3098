"""A run folder belongs to one process, and a full disk does not spoil it; which models lie in it."""

from __future__ import annotations

import errno
import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from rlvr_world.errors import Halted, InputError
from rlvr_world.models.loading import WORLD
from rlvr_world.runs import checkpoints
from rlvr_world.system import ranks


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Make the run folder, and hold it against any other process that would work in it; of ranks the first holds it."""
    if not ranks.first():
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            said = f"{folder}: another process works in this run folder; wait for it, or choose another --out"
            raise InputError(said) from None
        yield


@contextmanager
def room_on_disk(folder: Path) -> Iterator[None]:
    """A full disk ends the run in order: half-written folders go, and the last good checkpoint is named."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        numbers = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        # safetensors tells the number in its text alone
        if getattr(error, "errno", None) not in numbers and not any(f"os error {n})" in str(error) for n in numbers):
            raise
        for partial in folder.rglob(".partial-*"):
            shutil.rmtree(partial, ignore_errors=True)
        saved = sorted(folder.rglob("step-*"), key=lambda path: path.stat().st_mtime)
        good = next((path for path in reversed(saved) if not checkpoints.damage(path)), None)
        known = f"the last good checkpoint is {good or 'none yet'}; make room, then `rlvr-world resume {folder}`"
        raise Halted(f"{folder}: no room is left on the disk ({error}); {known}") from error


def run_of(path: Path) -> Path | None:
    """The run folder that ``path`` is or lies in: its config.json names a recipe, a model's does not."""
    for folder in (path, *path.parents):
        config = folder / "config.json"
        if folder.name != WORLD and config.is_file():
            with suppress(ValueError):
                if "recipe" in json.loads(config.read_text()):
                    return folder
    return None


def last_model(run: Path) -> Path:
    """The last model that a run has come to: of RL, else of likelihood training; InputError where there is none."""
    for stage in (*sorted((run / "rl").glob("seed*")), run / "sft"):
        if model := checkpoints.latest(stage):
            if fault := checkpoints.damage(model):
                raise InputError(f"{model}: it is damaged: {fault}; `rlvr-world resume {run}` puts it aside")
            return model
    raise InputError(f"{run}: holds no trained model yet; `rlvr-world resume {run}` goes on with it")


def start_of_rl(path: Path | None) -> str:
    """The model that ``path`` names; of a run the one that RL starts from, "" where it has none yet."""
    if path is None or run_of(path) != path:
        return str(path or "")
    start = checkpoints.latest(path / "sft") or path / "base"
    return str(start) if start.exists() else ""
