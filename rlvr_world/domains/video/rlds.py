"""Robot data sets in RLDS (RT-1 and its kin of Open X-Embodiment), rewritten as the published npz layout.

TensorFlow is not needed: an episode is a ``tf.train.Example`` in a TFRecord file, and its pictures are JPEG or PNG.
Names of the files are those of the published converter, which numbers episodes as tensorflow_datasets gives them.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import re
import struct
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import fsspec
import numpy as np

from rlvr_world.domains.video.episodes import decoded_image, stacked
from rlvr_world.domains.video.readers.npz import write_npz
from rlvr_world.errors import InputError
from rlvr_world.system.progress import track

CYCLE, BLOCK = 16, 16
"""tensorflow_datasets reads so many files side by side, and so many episodes of one before it goes on to the next."""
PICTURES = (b"\xff\xd8", b"\x89PNG")  # JPEG, PNG
OBSERVED = "steps/observation/"


def convert(
    source: str, dataset: str, out: Path, max_episodes: int = 0, camera: str = "", workers: int = 0
) -> tuple[int, int]:
    """Writes ``out/<dataset>/<split>_eps_<8 digits>.npz``, one file an episode; returns how many are new, and how many
    lie in files that are not there (a download of a part).

    ``source``: the folder (or gs:// address) that holds ``<dataset>/<version>``, the highest of which is taken.
    ``camera``: which picture, in a folder ``<dataset>-<camera>``; empty takes ``image`` or the only one.
    ``max_episodes``: at most so many over all splits, also of those that are there; 0 takes all. Files that exist are
    not made again. ``workers``: processes, 0 for one a CPU. Raises InputError for an unknown data set, and for an
    episode without the pictures or actions.
    """
    if source.startswith("gs://"):
        import gcsfs  # noqa: F401  (missing, it names the extra)
    try:
        fs, root = fsspec.core.url_to_fs(os.path.expanduser(source))
    except ValueError as error:
        raise InputError(f"{source}: expected a folder or a gs:// bucket, got: {error}") from error
    versions = fs.glob(f"{root}/{dataset}/*/dataset_info.json")
    if not versions:
        raise InputError(f"{source}/{dataset}: expected <version>/dataset_info.json, found none; check folder and name")
    newest = str(max(versions, key=lambda file: [int(n) for n in file.split("/")[-2].split(".") if n.isdigit()]))
    folder = newest.rsplit("/", 1)[0]
    target = out / (f"{dataset}-{camera.replace('/', '-')}" if camera else dataset)
    target.mkdir(parents=True, exist_ok=True)
    there = {name.rsplit("/", 1)[-1] for name in fs.ls(folder, detail=False)}
    wanted = _wanted(fs.cat_file(newest), newest, target, max_episodes)
    jobs = [(fs.unstrip_protocol(f"{folder}/{name}"), wanted[name], camera) for name in sorted(wanted.keys() & there)]
    missing = sum(len(wanted[name]) for name in wanted.keys() - there)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers or os.cpu_count(), mp_context=spawn) as pool:
        counts = (map if workers == 1 else pool.map)(_convert_file, jobs)
        return sum(next(counts) for _ in track(jobs, f"converting {dataset}", "files")), missing


def _wanted(written: bytes, where: str, target: Path, most: int) -> dict[str, dict[int, Path]]:
    """By name of a record file, and by place in it, the episodes that are not yet written."""
    try:
        info = json.loads(written)
        name, splits = info["name"], {one["name"]: [int(n) for n in one["shardLengths"]] for one in info["splits"]}
        plain = all(re.fullmatch(r"\w[\w.-]*", split) for split in splits)  # they become names of files
    except (KeyError, TypeError, ValueError, RecursionError):
        plain = False
    if not plain:
        raise InputError(f"{where}: expected name, splits and their shardLengths; download it again")
    every = ((split, at) for split, lengths in sorted(splits.items()) for at in enumerate(interleaved(lengths)))
    found: dict[str, dict[int, Path]] = {}
    for split, (number, (shard, place)) in islice(every, most or None):
        file = target / f"{split}_eps_{number:08d}.npz"
        if not file.exists():
            of = f"{name}-{split}.tfrecord-{shard:05d}-of-{len(splits[split]):05d}"
            found.setdefault(of, {})[place] = file
    return found


def interleaved(lengths: Sequence[int]) -> list[tuple[int, int]]:
    """Episodes as (file, place in it), in the order in which tensorflow_datasets gives those of files so long."""
    waiting = ([(file, place) for place in range(length)] for file, length in enumerate(lengths) if length)
    slots = [iter(next(waiting, [])) for _ in range(CYCLE)]
    order: list[tuple[int, int]] = []
    while len(order) < sum(lengths):
        for i, slot in enumerate(slots):
            order += (some := list(islice(slot, BLOCK)))
            if len(some) < BLOCK:  # at its end: another file in its place, from the next round on
                slots[i] = iter(next(waiting, []))
    return order


def _convert_file(job: tuple[str, dict[int, Path], str]) -> int:
    """Some episodes of a file. A record is size, checksum, episode and checksum; checksums are not looked at."""
    url, wanted, camera = job
    with fsspec.open(url, "rb") as stream:
        at, end = 0, stream.seek(0, io.SEEK_END)
        for place in range(max(wanted) + 1):
            where = f"{url.removeprefix('file://')}, episode {place}"
            stream.seek(at)
            head = stream.read(12)
            size = struct.unpack("<Q", head[:8])[0] if len(head) == 12 else end
            at += size + 16
            if at > end:
                raise InputError(f"{where}: expected a whole record, the file ends before; download it again")
            if place in wanted:
                images, actions = _arrays(fields := _fields(stream.read(size), where), camera, where)
                told = [str(bytes(*v[:1]), errors="replace") for k, v in fields.items() if "language_instruction" in k]
                write_npz(wanted[place], {"image": images, "action": actions, "instruction": "".join(told[:1])})
    return len(wanted)


def _fields(record: bytes, where: str) -> dict[str, Any]:
    """The features of a ``tf.train.Example``, by path: lists of byte strings, arrays float32 or int64."""
    found: dict[str, Any] = {}
    try:
        for _, features in _parts(memoryview(record)):
            for _, entry in _parts(features):
                key, feature = (value for _, value in _parts(entry))
                for kind, values in _parts(feature):
                    found[str(key, "utf-8")] = _READ[kind]([value for _, value in _parts(values)])
    except (IndexError, KeyError, OverflowError, ValueError) as error:
        raise InputError(f"{where}: not a tf.train.Example ({error}); download the file again") from None
    return found


def _parts(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The fields of a message, all of which are bytes: their numbers and values."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        size, at = _varint(data, at)
        if tag & 7 != 2 or at + size > len(data):
            raise ValueError(f"a field of type {tag & 7} and {size} bytes")
        yield tag >> 3, data[at : at + size]
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, at most ten of them, and where the next field begins."""
    value = 0
    for i in range(10):
        value |= (data[at + i] & 127) << 7 * i
        if data[at + i] < 128:
            return value, at + i + 1
    raise ValueError("a number of more than 64 bits")


def _integers(values: list[memoryview]) -> np.ndarray:
    """Negative ones are stored as 64 bits."""
    found, at, data = [], 0, memoryview(b"".join(values))
    while at < len(data):
        one, at = _varint(data, at)
        found.append(one)
    return np.array(found, np.uint64).astype(np.int64)


_READ: dict[int, Any] = {1: list, 2: lambda values: np.frombuffer(b"".join(values), "<f4"), 3: _integers}
"""What a feature holds: byte strings, floats or integers."""


def _arrays(fields: dict[str, Any], camera: str, where: str) -> tuple[np.ndarray, np.ndarray]:
    """The frames, uint8 [T, H, W, 3], and the actions, float32 [T, A], of one episode; of several fields of an action
    those first that come first in the alphabet."""
    pictured = [k for k, of in fields.items() if isinstance(of, list) and of and bytes(of[0]).startswith(PICTURES)]
    cameras = [key.removeprefix(OBSERVED) for key in pictured if key.startswith(OBSERVED)]
    name = camera or ("image" if "image" in cameras or len(cameras) != 1 else cameras[0])
    if name not in cameras:
        known = ", ".join(sorted(cameras)) or "none"
        raise InputError(f"{where}: expected the pictures steps/observation/{name}, found {known}; see --camera")
    shown = f"{where}, picture {name}"
    images = stacked([decoded_image(data, shown) for data in fields[OBSERVED + name]], shown)
    keys = sorted((key for key in fields if f"{key}/".startswith("steps/action/")), key=lambda key: key.split("/"))
    rows = [fields[key] for key in keys]
    T, wrong = len(images), [key for key, row in zip(keys, rows, strict=True) if len(row) % len(images)]
    if not keys or wrong or any(isinstance(row, list) for row in rows):
        wanted = "for each frame as many numbers in steps/action"
        got = ", ".join(f"{key} of {len(fields[key])}" for key in keys) or f"only {', '.join(sorted(fields))}"
        raise InputError(f"{where}: expected {wanted}, got {T} frames and {got}; take another data set")
    return images, np.concatenate([row.reshape(T, -1).astype(np.float32) for row in rows], axis=1)
