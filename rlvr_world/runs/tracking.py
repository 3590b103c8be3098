"""metrics.jsonl, always, and beside it timings.jsonl; TensorBoard, trackio and wandb by name.

What the clock says is kept apart: two runs with one seed have the same metrics.jsonl, byte for byte.
"""

from __future__ import annotations

import importlib
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlvr_world.errors import InputError
from rlvr_world.system.files import flush, write_whole
from rlvr_world.runs.checkpoints import Counters

TRACKERS = ("tensorboard", "trackio", "wandb")
Sink = Callable[[str, int, Mapping[str, float]], None]
"""(stage, step, numbers)."""


class Log:
    """One JSON object a line: stage, step, tokens and named numbers. Trackers get the same numbers."""

    def __init__(self, run: Path, trackers: Sequence[str] = (), settings: dict[str, Any] | None = None) -> None:
        self.path, self.timings = run / "metrics.jsonl", run / "timings.jsonl"
        self.sinks: dict[str, Sink] = {}
        for name in trackers:
            open_ = _tracker(name)
            if sink := _try(name, lambda open_=open_: open_(run, settings or {})):  # type: ignore[misc]
                self.sinks[name] = sink

    def rewind(self, stage: str, step: int) -> list[dict[str, Any]]:
        """Drop what this stage logged after ``step``: those steps will be done again. Returns its rows that stay."""
        stays = []
        for path in (self.path, self.timings):
            lines = path.read_text().splitlines() if path.exists() else []
            kept = []
            for line in lines:
                try:
                    row = json.loads(line)
                except json.JSONDecodeError:
                    continue  # the last line of a run that was killed while writing it
                if row["stage"] != stage or 0 < row["step"] <= step or (step > 0 and row["step"] == 0):
                    kept.append(line + "\n")
                    stays += [row] if row["stage"] == stage and path == self.path else []
            if lines:
                write_whole(path, "".join(kept))
        return stays

    def write(
        self, stage: str, counters: Counters, metrics: Mapping[str, float], timings: Mapping[str, float]
    ) -> dict[str, Any]:
        """Add a row to metrics.jsonl, and what the clock says to timings.jsonl; the row."""
        named = {"stage": stage, "step": counters.step}
        finite = {k: v if math.isfinite(v) else None for k, v in metrics.items()}
        row = {**named, "tokens": counters.tokens, **finite}
        for path, values in ((self.timings, {**named, **timings}), (self.path, row)):
            with path.open("a") as file:
                file.write(json.dumps(values) + "\n")
        for name, sink in list(self.sinks.items()):
            if not _try(name, lambda sink=sink: sink(stage, counters.step, {**metrics, **timings}) or True):  # type: ignore[misc]
                del self.sinks[name]
        return row

    def flush(self) -> None:
        """See that all rows are on the disk: a checkpoint must not outlive the rows before it."""
        for path in (self.path, self.timings):
            if path.exists():
                flush(path)


def _try(name: str, call: Callable[[], Any]) -> Any:
    """What a tracker gives, or None where it fails, whatever way: said once, and training goes on without it."""
    try:
        return call()
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 - a tracker is somebody else's code, and no reason to lose a run
        reason = " ".join(str(error).split())
        print(
            f"rlvr-world: tracker {name} failed ({type(error).__name__}: {reason}); the run goes on without it, "
            "metrics.jsonl has every number",
            file=sys.stderr,
            flush=True,
        )
        return None


def _tracker(name: str) -> Callable[[Path, dict[str, Any]], Sink]:
    """What opens a tracker. Raises InputError for one that is not known or not installed."""
    if name not in TRACKERS:
        raise InputError(f"trackers: unknown tracker {name!r}, expected some of {', '.join(TRACKERS)}")
    module = {"tensorboard": "torch.utils.tensorboard"}.get(name, name)
    try:
        tracker = importlib.import_module(module)
    except ImportError as error:
        raise InputError(f"trackers: {name} is not installed; pip install 'rlvr-world[{name}]'") from error
    return lambda run, settings: (_tensorboard if name == "tensorboard" else _hosted)(tracker, run, settings)


def _tensorboard(tracker: Any, run: Path, settings: dict[str, Any]) -> Sink:
    writer = tracker.SummaryWriter(str(run / "tensorboard"))

    def sink(stage: str, step: int, metrics: Mapping[str, float]) -> None:
        for key, value in metrics.items():
            writer.add_scalar(f"{stage}/{key}", value, step)
        writer.flush()

    return sink


def _hosted(tracker: Any, run: Path, settings: dict[str, Any]) -> Sink:
    tracker.init(project="rlvr-world", name=run.name, config=settings)

    def sink(stage: str, step: int, metrics: Mapping[str, float]) -> None:
        tracker.log({f"{stage}/{k}": v for k, v in metrics.items()} | {f"{stage}/step": step})

    return sink
