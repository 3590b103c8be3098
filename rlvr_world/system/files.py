"""Files that are there whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection
from glob import escape
from pathlib import Path
from typing import Any

from rlvr_world.errors import InputError


def write_whole(path: Path, content: str | bytes) -> None:
    """Write ``content`` under another name beside ``path``, then give it its name: nobody ever reads half of it. The
    folder is made where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")  # others may write the same file
    for left in path.parent.glob(f".{escape(path.name)}.*.partial"):
        if not _runs(int(left.suffixes[-2][1:])):  # killed while it wrote
            left.unlink(missing_ok=True)
    try:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
        flush(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    flush(path.parent)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # someone else's
        pass
    return True


def read_object(path: Path, fields: Collection[str] = (), kind: type[Any] = dict, mend: str = "delete it") -> Any:
    """The JSON object, with these ``fields``, or the list (``kind``) in a file. Raises InputError for anything else."""
    try:
        found: Any = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: expected JSON, got {error}; {mend}") from error
    if not isinstance(found, kind) or not all(name in found for name in fields):
        wanted = "a list" if kind is list else "an object" + " with " * bool(fields) + ", ".join(fields)
        raise InputError(f"{path}: expected {wanted}, got {found!r:.60}; {mend}")
    return found


def flush(path: Path) -> None:
    """See that a file, or the names in a folder, are on the disk and not only on their way to it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


WHOLE = 2**30
"""Bytes up to which a digest reads all of them: a second or two."""


def digest(*places: Path) -> str:
    """What stands at some files, or in folders and those in them: ``sha256 <hex>, <n> files, <n> bytes``; "" for
    nothing. Of more than ``WHOLE`` bytes names, sizes and times of change alone count: ``times <hex>, ...``."""
    inside = [(p, [p] if p.is_file() else sorted(f for f in p.rglob("*") if f.is_file())) for p in places]
    files = [(p, file, file.stat()) for p, some in inside for file in some if not file.name.startswith(".")]
    size = sum(stat.st_size for _, _, stat in files)
    said = [
        (file.relative_to(p).as_posix(), sha256(file) if size <= WHOLE else f"{stat.st_size} {stat.st_mtime_ns}")
        for p, file, stat in files
    ]
    whole, count = hashlib.sha256(repr(said).encode()).hexdigest()[:32], len(files)
    kind = "sha256" if size <= WHOLE else "times"
    return f"{kind} {whole}, {count} file{'s' * (count != 1)}, {size} bytes" if files else ""


def sha256(file: Path) -> str:
    """Of its bytes, in hex."""
    found = hashlib.sha256()  # hashlib.file_digest needs Python 3.11
    with file.open("rb") as opened:
        while block := opened.read(1 << 20):
            found.update(block)
    return found.hexdigest()
