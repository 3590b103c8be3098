"""The one training loop: every stage (SFT, RL, the control, a visual tokenizer) is a step function run to its end."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from rlvr_world.config import CheckpointConfig, GuardConfig
from rlvr_world.errors import Halted, NonFinite
from rlvr_world.training import checkpoint
from rlvr_world.training.checkpoint import Counters, State
from rlvr_world.training.faults import write_fault
from rlvr_world.training.guards import Best, Collapsed, Guard
from rlvr_world.training.stopping import Stop, stoppable
from rlvr_world.training.tracking import Log


class Stage(Protocol):
    def step(self, step: int, progress: float) -> tuple[dict[str, float], int]:
        """Do step number ``step`` at a fraction ``progress`` of the stage; metrics and tokens processed.

        Metrics whose name starts with ``time/`` are seconds, and are logged apart.
        """
        ...

    @property
    def full_speed(self) -> float | None:
        """Tokens a second at the machine's peak, by which MFU is told; None for work that is not counted in FLOP."""
        ...


Done = tuple[Path, Counters]
"""The checkpoint that a stage came to, and where it stood then."""


def finished(folder: Path, progress_of: Callable[[Counters], float]) -> Done | None:
    """The result of a stage that has come to its end and is as it was written; None where there is more to do."""
    last = checkpoint.sound(folder)
    if last is None:
        return None
    counters = checkpoint.read_counters(last)
    return (last, counters) if progress_of(counters) >= 1 or (folder / checkpoint.ENDED).exists() else None


def run_stage(
    name: str,
    stage: Stage,
    state: State,
    folder: Path,
    log: Log,
    progress_of: Callable[[Counters], float],
    validate: Callable[[], dict[str, float]],
    save_every: int,
    eval_every: int,
    keep: CheckpointConfig | None = None,
    guard: Guard | None = None,
) -> Done:
    """Run a stage from its last checkpoint to ``progress_of(counters) >= 1``.

    ``validate`` is called before the first step, every ``eval_every`` steps (0: never) and at the end. SIGTERM and
    Ctrl-C save after the step that they fall into and raise ``Stop``. Raises Halted where a guard stops the stage.
    """
    keep = keep or CheckpointConfig()
    guard = guard or Guard(GuardConfig(), keep)
    counters, saved = Counters(), checkpoint.sound(folder)
    if saved is not None:
        state.restore(saved)
        counters = checkpoint.read_counters(saved)
    best = Best(keep.best)
    for row in log.rewind(name, counters.step):
        best.see(row)
        if ended := _see(guard, row, best, folder):
            return ended, checkpoint.read_counters(ended)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
    shown = (TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[shown]}"))
    with Progress(*columns, *shown) as bar, stoppable(at_once=False) as asked:
        task = bar.add_task(name, total=1.0, shown="")
        bar.update(task, completed=progress_of(counters))

        def end_step(metrics: Mapping[str, float], timings: Mapping[str, float], due: bool) -> Path | None:
            """Log, save where that is due, hold the row against the rules; the result of a stage that they end."""
            row = log.write(name, counters, metrics, timings)
            bar.update(task, completed=min(1.0, progress_of(counters)), shown=_shown({**metrics, **timings}))
            if best.see(row) or due:
                log.flush()
                checkpoint.save(folder, state, counters, keep.keep, () if best.step is None else (best.step,))
            return _see(guard, row, best, folder)

        if counters.step == 0 and eval_every:
            end_step(validate(), {}, due=False)
        while (progress := progress_of(counters)) < 1:
            started = time.perf_counter()
            try:
                guard.check()
                metrics, tokens = stage.step(counters.step, progress)
            except torch.OutOfMemoryError:  # nothing in a folder would make it happen again elsewhere
                raise
            except (NonFinite, RuntimeError) as error:
                _report_fault(error, write_fault(log.path.parent, stage, state, name, counters, progress, error))
                raise
            seconds = time.perf_counter() - started
            metrics |= guard.measured()
            timings = {k: metrics.pop(k) for k in list(metrics) if k.startswith("time/")}
            timings |= {"seconds": seconds, "tokens_per_second": tokens / seconds}
            if stage.full_speed:
                timings["mfu"] = tokens / seconds / stage.full_speed
            counters = replace(counters, step=counters.step + 1, tokens=counters.tokens + tokens)
            last, stop = progress_of(counters) >= 1, asked()
            if eval_every and (last or counters.step % eval_every == 0):
                metrics |= validate()
            if ended := end_step(metrics, timings, due=last or bool(stop) or counters.step % save_every == 0):
                return ended, checkpoint.read_counters(ended)
            if stop:
                raise Stop(stop)
    final = checkpoint.latest(folder)
    assert final is not None
    return final, counters


def _see(guard: Guard, row: Mapping[str, Any], best: Best, folder: Path) -> Path | None:
    """Hold a row against the rules; the checkpoint that a collapsed stage is ended with, where it is rolled back."""
    try:
        guard.see(row)
    except Collapsed as error:
        kept = None if best.step is None else folder / checkpoint.name_of(best.step)
        kept = kept if kept and not checkpoint.damage(kept) else None
        known = f"the best verified checkpoint is {kept}" if kept else "no checkpoint is verified"
        if guard.config.collapse == "stop" or kept is None:
            raise Halted(f"{folder}: the policy has collapsed: {error}; {known}") from error
        assert best.step is not None
        print(f"rlvr-world: {folder}: the policy has collapsed: {error}; rolled back: {known}", file=sys.stderr)
        return checkpoint.end_with(folder, best.step, str(error))
    return None


def _report_fault(error: Exception, fault: Path) -> None:
    """Say where the failed step is kept; numbers that are not finite are a way for a run to end, all else is a bug."""
    again = f"what it failed on is in {fault}: `rlvr-world replay {fault}` makes it fail again"
    if isinstance(error, NonFinite):
        raise Halted(f"stopped before the update: {error}; {again}") from error
    print(f"rlvr-world: {again}", file=sys.stderr, flush=True)


def _shown(metrics: Mapping[str, float]) -> str:
    """The few numbers worth watching."""
    names = (
        "loss",
        "reward",
        "accuracy/changed",
        "eval/changed/exact",
        "eval/overall/lpips",
        "malformed",
        "tokens_per_second",
        "mfu",
    )
    return "  ".join(f"{n.removeprefix('eval/')} {metrics[n]:.4g}" for n in names if n in metrics)
