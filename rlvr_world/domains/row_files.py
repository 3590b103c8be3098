"""Files of rows, for every domain over text: records out of .jsonl, .jsonl.gz, .json and .parquet, and their fields.

Whatever is wrong with a file is raised as ``InputError`` naming file, row and field.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from rlvr_world.errors import InputError

_KINDS: dict[type, tuple[str, tuple[type, ...]]] = {
    dict: ("an object", (dict,)),
    list: ("a list", (list,)),
    str: ("a string", (str,)),
    int: ("an integer", (int,)),
    float: ("a number", (int, float)),
    bool: ("true or false", (bool,)),
}


OnFault = Callable[[InputError], None] | None
"""What is told of each row that does not read, which is then left out; None raises at the first."""


@contextmanager
def telling(on_fault: OnFault) -> Iterator[None]:
    """Inside, an InputError ends the block and goes to ``on_fault``, where there is one."""
    try:
        yield
    except InputError as error:
        if on_fault is None:
            raise
        on_fault(error)


def read_records(path: Path, on_fault: OnFault = None) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every record of a file, or of a folder of parquet shards of one split: its name ``rows.jsonl:7``, where it
    stands (for errors), and the record."""
    readers: dict[str, Callable[[Path], Iterator[tuple[int, Any]]]] = {
        ".parquet": _parquet_records, ".json": _json_records
    }  # fmt: skip
    for file in _files(path):
        with telling(on_fault):
            for number, given in readers.get(file.suffix, _lines)(file):
                where = f"{file}, row {number}"
                with telling(on_fault):
                    record = parse_json(given, where, "the line") if isinstance(given, bytes) else given
                    if not isinstance(record, dict):
                        raise InputError(f"{where}: expected a JSON object, got {record!r:.80}")
                    yield f"{file.name}:{number}", where, record


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        if not path.name.endswith((".jsonl", ".jsonl.gz", ".json", ".parquet")):
            raise InputError(
                f"{path}: expected a name that ends in .jsonl, .jsonl.gz, .json or .parquet, got {path.name!r}"
            )
        return [path]
    shards = sorted(path.glob("*.parquet"))
    if not shards:
        raise InputError(f"{path}: expected a folder with .parquet files, got none; name a file or another folder")
    splits = sorted({shard.stem.split("-")[0] for shard in shards})
    if len(splits) > 1:
        raise InputError(f"{path}: expected the shards of one split, got {', '.join(splits)}; name one file instead")
    return shards


def _lines(file: Path) -> Iterator[tuple[int, bytes]]:
    number = 0
    with gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb") as lines:
        try:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield number, line
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise InputError(
                f"{file}, after row {number}: expected a whole gzip file, got one cut off or damaged ({error}); "
                "copy or download it again"
            ) from error


def _json_records(file: Path) -> Iterator[tuple[int, Any]]:
    """The elements of a list."""
    yield from enumerate(parse_json(file.read_bytes(), str(file), "the file", list), start=1)


def _parquet_records(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(file) as parquet:
            for batch in parquet.iter_batches(batch_size=256):
                for record in batch.to_pylist():
                    number += 1
                    yield number, record
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(
            f"{file}, after row {number}: expected a whole parquet file, got one that cannot be read "
            f"({str(error).splitlines()[0]}); copy or download it again"
        ) from error


def parse_json(text: str | bytes, where: str, field: str, kind: type = dict) -> Any:
    """The JSON object (or list) in ``text``; ``field`` names it in errors."""
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except ValueError as error:  # bad UTF-8 included
        raise InputError(f"{where}: expected {field} to be JSON, got {text[:60]!r} ({error})") from error
    if not isinstance(value, kind):
        noun = "object" if kind is dict else "list"
        raise InputError(f"{where}: expected {field} to be a JSON {noun}, got {value!r:.80}")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON, and never equal to itself")


def need(record: Mapping[str, Any], keys: tuple[str, ...], where: str, noun: str) -> None:
    """Refuses a record without one of ``keys``."""
    missing = [key for key in keys if key not in record]
    if missing:
        raise InputError(
            f"{where}: expected the {noun}{'s' * (len(missing) > 1)} {', '.join(missing)}, "
            f"got only {', '.join(record) or 'none'}; give rows in a published layout"
        )


def take(record: Mapping[str, Any], key: str, kind: type, where: str, prefix: str = "") -> Any:
    """The value under ``key``, which has to be of this kind: dict, list, str, int, float or bool."""
    expected, types = _KINDS[kind]
    if key not in record:
        raise InputError(f"{where}, field {prefix}{key}: expected {expected}, got no such key")
    value = record[key]
    if not isinstance(value, types) or (isinstance(value, bool) and kind is not bool):
        raise InputError(f"{where}, field {prefix}{key}: expected {expected}, got {value!r:.80}")
    return value
