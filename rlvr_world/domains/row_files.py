"""Files of rows, for every domain over text: records out of .jsonl, .jsonl.gz, .json and .parquet, and their fields.
What is wrong with one is raised as ``InputError`` naming file, row and field."""

from __future__ import annotations

import glob
import gzip
import json
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from rlvr_world.errors import InputError
from rlvr_world.types import Transition

_NOUNS = {dict: "an object", list: "a list", str: "a string", int: "an integer", float: "a number"}
_NOUNS |= {bool: "true or false"}
NO_TEXT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

ENDINGS = (".jsonl", ".jsonl.gz", ".json", ".parquet")
Record = tuple[str, str, dict[str, Any]]
"""A record's name, ``rows.jsonl:7``; where it stands, for errors; and its columns."""
OnFault = Callable[[InputError], None] | None
"""What is told of each row that does not read, which is then left out; None raises at the first."""


def skipping(skip_faulty: bool) -> tuple[OnFault, list[str]]:
    """For ``data.skip_faulty``: what to tell of faults, and the list to which it adds them."""
    faults: list[str] = []
    return (lambda error: faults.append(str(error))) if skip_faulty else None, faults


def left_out(faults: Sequence[str], noun: str = "rows") -> dict[str, int]:
    """How many were skipped, for ``Splits.left_out``; stderr is told so, with the first of them."""
    if faults:
        print(f"left out: {len(faults)} {noun} that do not read, the first: {faults[0]}", file=sys.stderr)
    return {f"{noun} that do not read": len(faults)} if faults else {}


@contextmanager
def telling(on_fault: OnFault) -> Iterator[None]:
    """Inside, an InputError ends the block and goes to ``on_fault``, where there is one."""
    try:
        yield
    except InputError as error:
        if on_fault is None:
            raise
        on_fault(error)


def read_transitions(
    path: str | Path,
    kind: str,
    parse: Callable[[str, str, dict[str, Any]], Transition],
    on_fault: OnFault,
    joined: Callable[[Iterable[Record]], Iterable[Record]] = iter,
) -> list[Transition]:
    """The rows of what ``path`` names, see ``locate``: what ``parse`` makes of its records, once they are ``joined``;
    at least one."""
    rows = []
    for record in joined(read_records(locate(path, kind), on_fault)):
        with telling(on_fault):
            rows.append(parse(*record))
    if not rows:
        raise InputError(f"{path}: expected at least one {kind} row that reads, got none; give a file with rows")
    return rows


def read_records(files: Iterable[Path], on_fault: OnFault = None) -> Iterator[Record]:
    """Every record of some files."""
    readers = {".parquet": _parquet_records, ".json": _json_records}
    for file in files:
        with telling(on_fault):
            for number, given in readers.get(file.suffix, _lines)(file):
                where = f"{file}, row {number}"
                with telling(on_fault):
                    record = parse_json(given, where, "the line") if isinstance(given, bytes) else given
                    if not isinstance(record, dict):
                        raise InputError(f"{where}: expected a JSON object, got {record!r:.80}")
                    yield f"{file.name}:{number}", where, record


def locate(place: str | Path, kind: str) -> list[Path]:
    """The files of rows that a setting names: one file, a pattern (``rows/*.jsonl``), a folder (its parquet
    files, if there are any), or a data set of the Hugging Face hub (``owner/name``). ``PLACE:NAME`` is one of several
    splits in a folder or data set, and may be a pattern too (``owner/name:train_*gold``). Raises InputError where there
    are none."""
    name, _, split = ("", "", "") if Path(place).expanduser().exists() else str(place).rpartition(":")
    path = Path(name if split and name else place).expanduser()
    if path.is_file():
        found = [path]
    elif glob.has_magic(str(path)):
        found = [Path(file) for file in sorted(glob.glob(str(path)))]
    else:
        found = _of_split(path if path.is_dir() else _fetched(str(path), split, kind), split, place)
    if not found or not all(file.name.endswith(ENDINGS) for file in found):
        got = ", ".join(file.name for file in found[:3]) or "no such file"
        raise InputError(f"{place}: expected {kind} rows in files whose name ends in {', '.join(ENDINGS)}, got {got}")
    return found


def _of_split(folder: Path, split: str, place: str | Path) -> list[Path]:
    """The files of one split, whose names begin with its own and go on with ``-00000-of-00004``."""
    files = [file for file in sorted(folder.rglob("*")) if file.name.endswith(ENDINGS)]
    files = files if split else [file for file in files if file.suffix == ".parquet"] or files
    if not files:
        raise InputError(f"{place}: expected a folder with row files ({', '.join(ENDINGS)}), got none; name another")
    names = {file: file.name.partition(".")[0].partition("-")[0] for file in files}
    if split:
        files = [file for file in files if fnmatch(names[file], split)]
    there = sorted({*names.values()})
    if not files or (not split and len(there) > 1 and any(re.match("train|test|val|dev", name) for name in there)):
        got = f"got {', '.join(there)}; name one, as in {folder.name}:test"
        raise InputError(f"{place}: expected the shards of one split, {got}")
    return files


def _fetched(name: str, split: str, kind: str) -> Path:
    """The folder of a data set on the hub, with the files of a split."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or name.endswith(ENDINGS):
        raise InputError(f"{name}: no such file or folder of {kind} rows; check the path")
    return download(name, [f"*{split}*{ending}" for ending in ENDINGS])


def download(name: str, patterns: Sequence[str]) -> Path:
    """The files of a data set of the hub that match; a local copy of them is taken where it is whole."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, repo_type="dataset", allow_patterns=list(patterns)))
    except (OSError, ValueError) as error:
        why = str(error).strip().partition("\n")[0]
        raise InputError(f"{name}: no such folder, and the hub gave no data set ({why}); check the name") from None


def _lines(file: Path) -> Iterator[tuple[int, Any]]:
    number = 0
    with gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb") as lines:
        try:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield number, line
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise _damaged(file, number, f"gzip file, got one cut off or damaged ({error})") from error


def _json_records(file: Path) -> Iterator[tuple[int, Any]]:
    yield from enumerate(parse_json(file.read_bytes(), str(file), "the file", list), start=1)


def _parquet_records(file: Path) -> Iterator[tuple[int, Any]]:
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(file) as parquet:
            for batch in parquet.iter_batches(batch_size=256):
                for record in batch.to_pylist():
                    number += 1
                    yield number, record
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        said = str(error).splitlines()[0]
        raise _damaged(file, number, f"parquet file, got one that cannot be read ({said})") from error


def _damaged(file: Path, number: int, what: str) -> InputError:
    return InputError(f"{file}, after row {number}: expected a whole {what}; copy or download it again")


def parse_json(text: str | bytes, where: str, field: str, kind: type = dict) -> Any:
    """The JSON object (or list) in ``text``; ``field`` names it in errors."""
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:  # bad UTF-8, brackets without end
        raise InputError(f"{where}: expected {field} to be JSON, got {text[:60]!r} ({error})") from error
    if not isinstance(value, kind):
        raise InputError(f"{where}: expected {field} to be a JSON {_NOUNS[kind].split()[1]}, got {value!r:.80}")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON, and never equal to itself")


def need(record: Mapping[str, Any], keys: tuple[str, ...], where: str, noun: str) -> None:
    """Refuses a record without one of ``keys``."""
    missing = [key for key in keys if key not in record]
    if missing:
        wanted = f"the {noun}{'s' * (len(missing) > 1)} {', '.join(missing)}"
        got = f"got only {', '.join(record) or 'none'}; give rows in a published layout"
        raise InputError(f"{where}: expected {wanted}, {got}")


def take(record: Mapping[str, Any], key: str, kind: type, where: str, prefix: str = "") -> Any:
    """The value under ``key``, which has to be of this kind: dict, list, str, int, float or bool."""
    if key not in record:
        raise InputError(f"{where}, field {prefix}{key}: expected {_NOUNS[kind]}, got no such key")
    value = record[key]
    if not isinstance(value, (int, float) if kind is float else kind) or (isinstance(value, bool) and kind is not bool):
        raise InputError(f"{where}, field {prefix}{key}: expected {_NOUNS[kind]}, got {value!r:.80}")
    if kind in (str, list):
        check_texts(value, where, f"{prefix}{key}")
    return value


def check_texts(value: Any, where: str, field: str) -> None:
    """Refuses characters that are no text anywhere in a value: half a surrogate pair, control characters but tab and
    newline, line ends that only some readers take for one. A tokenizer fails on the first, and none may frame a row."""
    if isinstance(value, str) and not value.isprintable() and (found := NO_TEXT.search(value)):
        what = f"U+{ord(found[0]):04X} at character {found.start()}"
        raise InputError(f"{where}, field {field}: expected text, got {what}; take it out or escape it")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            check_texts(key, where, field)
            check_texts(inner, where, f"{field}.{key}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            check_texts(inner, where, f"{field}[{index}]")


def take_inner(record: Mapping[str, Any], outer: str, key: str, kind: type, where: str) -> Any:
    """The value under ``key`` of the object under ``outer``."""
    return take(take(record, outer, dict, where), key, kind, where, f"{outer}.")


def last_message(record: Mapping[str, Any], where: str) -> str:
    """What the last message of the published layout's ``prompt`` says, or the text that stands there."""
    if isinstance(record.get("prompt"), str):
        return str(record["prompt"])
    messages = take(record, "prompt", list, where)
    if not messages or not isinstance(messages[-1], dict):
        raise InputError(f"{where}, field prompt: expected a list of messages, got {messages!r:.80}")
    return str(take(messages[-1], "content", str, where, "prompt[-1]."))


def own_prompt(row: Transition) -> str:
    """What a row asks in its own words. Raises InputError for one that does not."""
    if not row.prompt:
        mend = "give such rows, or have them built: data.style.row=false (text games), data.style=published (pages)"
        raise InputError(f"row {row.id}: expected a prompt of its own (a column prompt), got none; {mend}")
    return row.prompt


def reasoning_of(record: Mapping[str, Any], column: str, where: str) -> str:
    """A given chain of thought with its answer; empty where no column is named."""
    if column and column not in record:
        given = ", ".join(record)
        raise InputError(f"{where}: expected a reasoning column {column!r}, got only {given}; choose one of these")
    return str(take(record, column, str, where)) if column else ""


def asked(given: Any, read_state: Callable[[Mapping[str, Any]], Any]) -> Transition:
    """A transition without a next state, out of ``{"state": ..., "action": ...}``; ``id``, ``game`` and ``prompt`` may
    be given."""
    if not isinstance(given, Mapping):
        raise InputError(f"question: expected an object with the keys state and action, got {given!r:.80}")
    state, action = read_state(given), take(given, "action", str, "question")
    said = {"world": str(given.get("game", "")), "prompt": str(given.get("prompt", ""))}
    return Transition(str(given.get("id", "question")), state, action, None, **said)
