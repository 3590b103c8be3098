"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(path: Path, content: str | bytes) -> None:
    """Write ``content`` under another name beside ``path``, then give it its name: nobody ever reads half of it."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content.encode() if isinstance(content, str) else content)
    flush(partial)
    os.replace(partial, path)
    flush(path.parent)


def flush(path: Path) -> None:
    """See that a file, or the names in a folder, are on the disk and not only on their way to it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
