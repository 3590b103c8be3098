"""Checkpoints: a model folder plus the trainer's state beside it. Safetensors and JSON, no pickle.

A checkpoint is written under a temporary name with a manifest (SHA-256 of each file), flushed to disk and renamed:
a folder named ``step-000120`` is whole, or its manifest says that it is not. Random streams and data order are
functions of (seed, step), so weights, optimizer moments and counters are all there is to keep.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from rlvr_world.system import ranks
from rlvr_world.system.files import digest, flush, sha256, write_whole
from rlvr_world.training.optimizer import TRAINER

MANIFEST = "manifest.json"
BEFORE = "before.json"
"""In a checkpoint: the names of those before it that stay beside it."""
ENDED = "ended.json"
"""In a stage's folder: the step whose checkpoint is its result although later ones were trained, and why."""


@dataclass(frozen=True)
class Counters:
    """Where a stage stands."""

    step: int = 0
    tokens: int = 0
    """Tokens that forwards have processed, sampling included."""


class State(Protocol):
    """What a stage trains, as far as checkpoints know it."""

    sharded: bool
    """Whether each rank holds a share of it."""

    def save(self, folder: Path) -> None:
        """Write weights and optimizer state into an empty folder; where it is shared out all ranks have to."""

    def restore(self, checkpoint: Path) -> None:
        """Take them back from such a folder. Raises InputError where they do not fit."""


def save(folder: Path, state: State, counters: Counters, keep: int = 2, spare: Collection[int] = ()) -> Path:
    """Write ``folder/step-NNNNNN`` whole or not at all; after it stands, all but the last ``keep`` checkpoints and
    those of the steps in ``spare`` are removed. It names those that stay, so ``sound`` ends what a kill cut off."""
    final, partial = folder / name_of(counters.step), folder / f".partial-{counters.step:06d}"
    ranks.by_first(lambda: str(fresh(partial)))
    if state.sharded or ranks.rank() == 0:
        state.save(partial)
    ranks.by_first(lambda: _finish(partial, final, counters, keep, spare))
    return final


def _finish(partial: Path, final: Path, counters: Counters, keep: int, spare: Collection[int]) -> None:
    folder = final.parent
    (partial / TRAINER).mkdir(exist_ok=True)
    (partial / TRAINER / "counters.json").write_text(json.dumps(asdict(counters)))
    before = [old.name for old in checkpoints(folder) if old != final]
    last = [*before, final.name][-max(1, keep) :]
    stay = [name for name in before if name in last or name in map(name_of, spare)]
    (partial / TRAINER / BEFORE).write_text(json.dumps(stay))
    publish(partial, final)
    _prune(final)


def _prune(last: Path) -> None:
    """Remove the checkpoints before ``last`` that were not to stay."""
    stay = json.loads((last / TRAINER / BEFORE).read_text())
    for old in checkpoints(last.parent):
        if old.name < last.name and old.name not in stay:
            _remove(old)


def name_of(step: int) -> str:
    return f"step-{step:06d}"


def fresh(partial: Path) -> Path:
    """An empty folder of this name, whatever a killed writer left there."""
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return partial


def publish(partial: Path, final: Path) -> None:
    """Add the manifest to ``partial``, flush all of it to disk, then give it its name."""
    files = sorted(path for path in partial.rglob("*") if path.is_file())
    (partial / MANIFEST).write_text(json.dumps({str(f.relative_to(partial)): sha256(f) for f in files}, indent=1))
    for path in [*partial.rglob("*"), partial]:
        flush(path)
    if final.exists():
        _remove(final)
    os.replace(partial, final)
    flush(final.parent)


def _remove(folder: Path) -> None:
    """In one instant for everybody who looks for it by its name."""
    gone = folder.with_name(f".removed-{folder.name}")
    shutil.rmtree(gone, ignore_errors=True)
    os.replace(folder, gone)
    shutil.rmtree(gone)


def damage(folder: Path) -> str:
    """What is wrong with a published folder, in a few words that name the file; "" where it is as it was written."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return f"it has no {MANIFEST}" if folder.exists() else "it is missing"
    except ValueError:
        return f"its {MANIFEST} does not read"
    for name, written in manifest.items() if isinstance(manifest, dict) else [(MANIFEST, "")]:
        file = folder / name
        if not file.is_file():
            return f"its file {name} is missing"
        if sha256(file) != written:
            return f"its file {name} is not what {MANIFEST} says (SHA-256)"
    return ""


def identity(model: str | Path) -> str:
    """Of which bytes a model is: the digest of its manifest, else of its folder; "" for what is no folder here."""
    return digest(folder / MANIFEST if ((folder := Path(model)) / MANIFEST).is_file() else folder)


def sound(folder: Path) -> Path | None:
    """The last checkpoint of a stage that is as it was written, where the stage goes on; None where there is none.

    Damaged ones are named on stderr and put aside as ``damaged-step-NNNNNN``; what a killed writer left, or had
    still to remove, is removed.
    """
    name = ranks.by_first(lambda: _sound(folder))
    return folder / name if name else None


def _sound(folder: Path) -> str:
    for left in (*folder.glob(".partial-*"), *folder.glob(".removed-*")):
        shutil.rmtree(left)
    if (folder / ENDED).exists() and (named := latest(folder)) and not named.is_dir():
        said = f"{folder / ENDED} names a checkpoint that is missing, {named.name}; the stage goes on from its last one"
        print(f"rlvr-world: {said}", file=sys.stderr, flush=True)
        (folder / ENDED).unlink()
    while (last := latest(folder)) is not None and (fault := damage(last)):
        os.replace(last, fresh(last.with_name(f"damaged-{last.name}")))
        (folder / ENDED).unlink(missing_ok=True)
        before = latest(folder)
        goes_on = f"going on from {before.name}" if before else "the stage starts anew"
        print(f"rlvr-world: checkpoint {last} is damaged: {fault}; put aside, {goes_on}", file=sys.stderr, flush=True)
    if last is None:
        return ""
    _prune(last)
    return last.name


def checkpoints(folder: Path) -> list[Path]:
    """Checkpoints of a stage, oldest first."""
    return sorted(folder.glob("step-*"))


def latest(folder: Path) -> Path | None:
    """The result of a stage so far: its last checkpoint, or the one that it was ended with."""
    if (folder / ENDED).exists():
        try:
            return folder / name_of(json.loads((folder / ENDED).read_bytes())["step"])
        except (ValueError, LookupError, TypeError):
            return folder / f"{ENDED}: no step"
    return max(folder.glob("step-*"), default=None)


def end_with(folder: Path, step: int, reason: str) -> Path:
    """Make the checkpoint of ``step`` the result of a stage, whatever came after it."""
    ranks.by_first(lambda: write_whole(folder / ENDED, json.dumps({"step": step, "reason": reason})))
    return folder / name_of(step)


def read_counters(checkpoint: Path) -> Counters:
    return Counters(**json.loads((checkpoint / TRAINER / "counters.json").read_text()))
