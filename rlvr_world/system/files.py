"""Files that are there whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from rlvr_world.errors import InputError


def write_whole(path: Path, content: str | bytes) -> None:
    """Write ``content`` under another name beside ``path``, then give it its name: nobody ever reads half of it."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content.encode() if isinstance(content, str) else content)
    flush(partial)
    os.replace(partial, path)
    flush(path.parent)


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a run folder. Raises InputError for anything else."""
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected a JSON object as it was written here, got other data; delete it")
    return value


def flush(path: Path) -> None:
    """See that a file, or the names in a folder, are on the disk and not only on their way to it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
