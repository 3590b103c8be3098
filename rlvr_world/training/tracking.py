"""metrics.jsonl, always; TensorBoard, trackio and wandb by name."""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlvr_world.errors import InputError
from rlvr_world.files import write_whole
from rlvr_world.training.checkpoint import Counters

TRACKERS = ("tensorboard", "trackio", "wandb")


class Log:
    """One JSON object a line: stage, step, tokens, seconds and named numbers. Trackers get the same numbers."""

    def __init__(self, run: Path, trackers: Sequence[str] = (), settings: dict[str, Any] | None = None) -> None:
        self.path = run / "metrics.jsonl"
        self.sinks = [_open_tracker(name, run, settings or {}) for name in trackers]

    def rewind(self, stage: str, step: int) -> None:
        """Drop what this stage logged after ``step``: those steps will be done again."""
        if not self.path.exists():
            return
        kept = []
        for line in self.path.read_text().splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue  # the last line of a run that was killed while writing it
            if row["stage"] != stage or 0 < row["step"] <= step or (step > 0 and row["step"] == 0):
                kept.append(line + "\n")
        write_whole(self.path, "".join(kept))

    def write(self, stage: str, counters: Counters, metrics: dict[str, float]) -> None:
        finite = {k: v if math.isfinite(v) else None for k, v in metrics.items()}
        row = {"stage": stage, "step": counters.step, "tokens": counters.tokens, "seconds": counters.seconds, **finite}
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        for sink in self.sinks:
            sink(stage, counters.step, metrics)


def _open_tracker(name: str, run: Path, settings: dict[str, Any]) -> Any:
    """A function (stage, step, metrics) that feeds a tracker."""
    if name not in TRACKERS:
        raise InputError(f"trackers: unknown tracker {name!r}, expected some of {', '.join(TRACKERS)}")
    module = {"tensorboard": "torch.utils.tensorboard"}.get(name, name)
    try:
        tracker = importlib.import_module(module)
    except ImportError as error:
        raise InputError(f"trackers: {name} is not installed; pip install 'rlvr-world[{name}]'") from error
    if name == "tensorboard":
        writer = tracker.SummaryWriter(str(run / "tensorboard"))

        def to_tensorboard(stage: str, step: int, metrics: dict[str, float]) -> None:
            for key, value in metrics.items():
                writer.add_scalar(f"{stage}/{key}", value, step)
            writer.flush()

        return to_tensorboard
    tracker.init(project="rlvr-world", name=run.name, config=settings)

    def to_tracker(stage: str, step: int, metrics: dict[str, float]) -> None:
        tracker.log({f"{stage}/{k}": v for k, v in metrics.items()} | {f"{stage}/step": step})

    return to_tracker
