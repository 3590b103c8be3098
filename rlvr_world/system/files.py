"""Files that are there whole or not at all."""

from __future__ import annotations

import hashlib
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


WHOLE = 2**30
"""Bytes up to which a digest reads all of them: a second or two."""


def digest(place: Path) -> str:
    """What stands at a file, or in a folder and those in it: ``sha256 <hex>, <n> files, <n> bytes``; "" for nothing.
    Of more than ``WHOLE`` bytes names, sizes and times of change alone count: ``times <hex>, ...``."""
    found = sorted(path for path in place.rglob("*") if path.is_file() and not path.name.startswith("."))
    files = [place] if place.is_file() else found
    stats = [path.stat() for path in files]
    size = sum(stat.st_size for stat in stats)
    said = [sha256(p) if size <= WHOLE else (s.st_size, s.st_mtime_ns) for p, s in zip(files, stats, strict=True)]
    names = [path.relative_to(place).as_posix() for path in files]
    whole = hashlib.sha256(repr(list(zip(names, said, strict=True))).encode()).hexdigest()
    kind = "sha256" if size <= WHOLE else "times"
    return f"{kind} {whole[:32]}, {len(files)} file{'s' * (len(files) != 1)}, {size} bytes" if files else ""


def sha256(file: Path) -> str:
    """Of its bytes, in hex."""
    found = hashlib.sha256()  # hashlib.file_digest needs Python 3.11
    with file.open("rb") as opened:
        while block := opened.read(1 << 20):
            found.update(block)
    return found.hexdigest()
