"""The one training loop: every stage (SFT, RL, the control, a visual tokenizer) is a step function run to its end."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from rlvr_world.training import checkpoint
from rlvr_world.training.checkpoint import Counters, State
from rlvr_world.training.tracking import Log


class Stage(Protocol):
    def step(self, step: int, progress: float) -> tuple[dict[str, float], int]:
        """Do step number ``step`` at a fraction ``progress`` of the stage; metrics and tokens processed."""
        ...


def finished(folder: Path, progress_of: Callable[[Counters], float]) -> tuple[Path, Counters] | None:
    """The last checkpoint of a stage that has come to its end; None where there is more to do."""
    last = checkpoint.latest(folder)
    if last is None or progress_of(counters := checkpoint.read_counters(last)) < 1:
        return None
    return last, counters


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
) -> Path:
    """Run a stage from its last checkpoint to ``progress_of(counters) >= 1``; the final checkpoint's folder.

    ``validate`` is called before the first step, every ``eval_every`` steps (0: never) and at the end.
    """
    counters = Counters()
    if (last := checkpoint.latest(folder)) is not None:
        state.restore(last)
        counters = checkpoint.read_counters(last)
    log.rewind(name, counters.step)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[shown]}")) as bar:
        task = bar.add_task(name, total=1.0, shown="")
        bar.update(task, completed=progress_of(counters))
        if counters.step == 0 and eval_every:
            log.write(name, counters, validate())
        while (progress := progress_of(counters)) < 1:
            started = time.perf_counter()
            metrics, tokens = stage.step(counters.step, progress)
            seconds = time.perf_counter() - started
            counters = replace(
                counters, step=counters.step + 1, tokens=counters.tokens + tokens, seconds=counters.seconds + seconds
            )
            metrics["tokens_per_second"] = tokens / seconds
            finished = progress_of(counters) >= 1
            if eval_every and (finished or counters.step % eval_every == 0):
                metrics |= validate()
            log.write(name, counters, metrics)
            bar.update(task, completed=min(1.0, progress_of(counters)), shown=_shown(metrics))
            if finished or counters.step % save_every == 0:
                checkpoint.save(folder, state, counters)
    final = checkpoint.latest(folder)
    assert final is not None
    return final


def _shown(metrics: dict[str, float]) -> str:
    """The few numbers worth watching."""
    names = (
        "loss",
        "reward",
        "accuracy/changed",
        "eval/changed/exact",
        "eval/overall/lpips",
        "malformed",
        "tokens_per_second",
    )
    return "  ".join(f"{n.removeprefix('eval/')} {metrics[n]:.4g}" for n in names if n in metrics)
