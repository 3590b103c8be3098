"""A run folder belongs to one process, and a full disk does not spoil it."""

from __future__ import annotations

import errno
import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from rlvr_world.errors import Halted, InputError
from rlvr_world.training import checkpoint


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Make the run folder, and hold it against any other process that would work in it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"{folder}: another process works in this run folder; wait for it, or choose another --out"
            ) from None
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
        good = next((path for path in reversed(saved) if not checkpoint.damage(path)), None)
        raise Halted(
            f"{folder}: no room is left on the disk ({error}); the last good checkpoint is {good or 'none yet'}; "
            f"make room, then `rlvr-world resume {folder}`"
        ) from error
