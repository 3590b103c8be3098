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

MADE = (
    *("config.json", "environment.json", "metrics.jsonl", "timings.jsonl", "halted.json", "report.html", "faults"),
    *("trackers.json", WORLD, "base", "tokenizer", "sft", "rl", "control", "eval", ".partial-world", ".partial-base"),
    *("model_card.md", "data_card.md"),
)
"""What lies in a run folder."""


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


def has_trained(folder: Path) -> bool:
    """Whether a stage of the run has had a checkpoint."""
    return any(any(folder.glob(f"{depth}/*step-*")) for depth in ("*", "*/*"))


def clear(folder: Path) -> None:
    """Remove what a run made that has trained nothing, and its config."""
    for name in MADE:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def run_of(path: Path) -> Path | None:
    """The run folder that ``path`` is or lies in: its config.json names a recipe, a model's does not."""
    for folder in (path, *path.parents):
        config = folder / "config.json"
        if folder.name != WORLD and config.is_file():
            with suppress(ValueError):
                if "recipe" in json.loads(config.read_text()):
                    return folder
    return None


def models_of(run: Path) -> dict[str, Path]:
    """The last model of each stage by its name: those of RL first, then of likelihood training, then of controls.
    Raises InputError where there is none."""
    stages = (*sorted((run / "rl").glob("seed*")), run / "sft", *sorted((run / "control").glob("seed*")))
    found = {stage.relative_to(run).as_posix(): checkpoints.latest(stage) for stage in stages}
    if not any(found.values()):
        raise InputError(f"{run}: holds no trained model yet; `rlvr-world resume {run}` goes on with it")
    return {name: model for name, model in found.items() if model}


def last_model(run: Path) -> Path:
    """The last model that a run has come to: of RL, else of likelihood training; InputError where there is none."""
    model = next(iter(models_of(run).values()))
    if fault := checkpoints.damage(model):
        raise InputError(f"{model}: it is damaged: {fault}; `rlvr-world resume {run}` puts it aside")
    return model


def start_of_rl(path: Path | None) -> str:
    """The model that ``path`` names; of a run the one that RL starts from, "" where it has none yet."""
    if path is None or run_of(path) != path:
        return str(path or "")
    start = checkpoints.latest(path / "sft") or path / "base"
    return str(start) if start.exists() else ""
