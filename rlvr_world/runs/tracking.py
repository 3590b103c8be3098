"""metrics.jsonl, always, and beside it timings.jsonl; TensorBoard, trackio and wandb by name.

What the clock says is kept apart: two runs with one seed have the same metrics.jsonl, byte for byte.
"""

from __future__ import annotations

import importlib
import json
import math
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlvr_world.errors import InputError
from rlvr_world.evaluation.report import log_rows
from rlvr_world.runs.checkpoints import Counters
from rlvr_world.system import ranks
from rlvr_world.system.files import flush, read_object, write_whole

TRACKERS = ("tensorboard", "trackio", "wandb")
Numbers = Mapping[str, float]
Sink = Callable[[str, int, Numbers], None]
"""(stage, step, numbers)."""


class Log:
    """One JSON object a line: stage, step, tokens and named numbers. Trackers get the same numbers."""

    def __init__(self, run: Path, trackers: Sequence[str] = (), settings: dict[str, Any] | None = None) -> None:
        self.path, self.timings = run / "metrics.jsonl", run / "timings.jsonl"
        self.sinks: dict[str, Sink] = {}
        for name in trackers if ranks.first() else ():
            if sink := _try(name, _opened, name, tracker_module(name), run, settings or {}):
                self.sinks[name] = sink

    def rewind(self, stage: str, step: int) -> list[dict[str, Any]]:
        """Drop what this stage logged after ``step``: those steps will be done again. Returns its rows that stay."""

        def cut() -> list[dict[str, Any]]:
            stays: list[dict[str, Any]] = []
            for path in (self.timings, self.path):
                if not path.exists():
                    continue
                kept = [row for row in log_rows(path) if row["stage"] != stage or (step and row["step"] <= step)]
                write_whole(path, "".join(json.dumps(row) + "\n" for row in kept))
                stays = [row for row in kept if row["stage"] == stage]
            return stays

        return ranks.by_first(cut)

    def write(self, stage: str, counters: Counters, metrics: Numbers, timings: Numbers) -> dict[str, Any]:
        """Add a row to metrics.jsonl, and what the clock says to timings.jsonl; the row, by which all ranks decide."""
        named = {"stage": stage, "step": counters.step}
        finite = {k: v if math.isfinite(v) else None for k, v in metrics.items()}
        row = {**named, "tokens": counters.tokens, **finite}
        for path, values in ((self.timings, {**named, **timings}), (self.path, row)) if ranks.rank() == 0 else ():
            with path.open("a") as file:
                file.write(json.dumps(values) + "\n")
        for name, sink in list(self.sinks.items()):  # of the first process alone
            if _try(name, sink, stage, counters.step, {**metrics, **timings}) is None:
                del self.sinks[name]
        return ranks.by_first(lambda: row)

    def flush(self) -> None:
        """See that all rows are on the disk: a checkpoint must not outlive the rows before it."""
        for path in (self.path, self.timings):
            if path.exists():
                flush(path)


def _try(name: str, call: Callable[..., Any], *arguments: Any) -> Any:
    """What a tracker gives, or None where it fails, whatever way: said once, and training goes on without it."""
    try:
        return call(*arguments) or True
    except Exception as error:  # noqa: BLE001 - a tracker is somebody else's code, and no reason to lose a run
        failed = f"tracker {name} failed ({type(error).__name__}: {' '.join(str(error).split())})"
        goes_on = "the run goes on without it, metrics.jsonl has every number"
        print(f"rlvr-world: {failed}; {goes_on}", file=sys.stderr, flush=True)
        return None


def tracker_module(name: str) -> Any:
    """The module of a tracker. Raises InputError for one that is not known or not installed."""
    if name not in TRACKERS:
        raise InputError(f"trackers: unknown tracker {name!r}, expected some of {', '.join(TRACKERS)}")
    try:
        return importlib.import_module("torch.utils.tensorboard" if name == "tensorboard" else name)
    except ImportError as error:
        raise InputError(f"trackers: {name} is not installed; pip install 'rlvr-world[{name}]'") from error


def _opened(name: str, tracker: Any, run: Path, settings: dict[str, Any]) -> Sink:
    if name != "tensorboard":
        own = run / "trackers.json"
        if not own.exists():
            write_whole(own, json.dumps({"id": uuid.uuid4().hex[:8]}))
        key = read_object(own).get("id")  # a run that is resumed goes on in its own one there
        named = {"name": run.name, "id": key} if name == "wandb" else {"name": f"{run.name}-{key}"}
        tracker.init(project="rlvr-world", config=settings, resume="allow", **named)
        return lambda stage, step, numbers: tracker.log(
            {f"{stage}/{key}": value for key, value in numbers.items()} | {f"{stage}/step": step}
        )
    writer = tracker.SummaryWriter(str(run / "tensorboard"))

    def sink(stage: str, step: int, numbers: Numbers) -> None:
        for key, value in numbers.items():
            writer.add_scalar(f"{stage}/{key}", value, step)
        writer.flush()

    return sink
