"""The one training loop: every stage (SFT, RL, the control, a visual tokenizer) is a step function run to its end, or
to the end of the step into which SIGTERM or Ctrl-C falls; a second signal stops at once."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch

from rlvr_world.config import CheckpointConfig
from rlvr_world.errors import Halted, NonFinite
from rlvr_world.runs import checkpoints
from rlvr_world.runs.checkpoints import Counters, State
from rlvr_world.runs.guards import Best, Collapsed, Guard
from rlvr_world.runs.records import write_fault
from rlvr_world.runs.tracking import Log
from rlvr_world.system import ranks
from rlvr_world.system.progress import progress

RESULTS = ("loss", "reward", "accuracy/changed", "eval/changed/exact", "eval/overall/lpips", "malformed")
SHOWN = (*RESULTS, "tokens_per_second", "mfu")
"""The few numbers worth watching."""


class Stage(Protocol):
    def step(self, step: int, progress: float) -> tuple[dict[str, float], int]:
        """Do step number ``step`` at a fraction ``progress`` of the stage; metrics and tokens processed. Metrics whose
        name starts with ``time/`` are seconds, and are logged apart."""

    @property
    def full_speed(self) -> float | None:
        """Tokens a second at the machine's peak, by which MFU is told; None for work that is not counted in FLOP."""


ProgressOf = Callable[[Counters], float]
"""How far a stage is, from 0 to 1, where it ends."""
Validate = Callable[[], dict[str, float]]
"""Numbers of held-out data, named ``eval/...``."""


@dataclass(frozen=True)
class Schedule:
    """A stage of a run: where it lies, how far it has come, when it saves and validates."""

    name: str
    folder: Path
    progress_of: ProgressOf
    save_every: int
    eval_every: int
    """0 never validates."""


def finished(schedule: Schedule) -> Path | None:
    """The last checkpoint of a stage that has come to its end; None where there is more to do."""
    last = checkpoints.sound(schedule.folder)
    if last is None or (schedule.folder / checkpoints.ENDED).exists():
        return last
    return last if schedule.progress_of(checkpoints.read_counters(last)) >= 1 else None


def run_stage(
    schedule: Schedule, stage: Stage, state: State, log: Log, validate: Validate, keep: CheckpointConfig, guard: Guard
) -> Path:
    """Run a stage from its last checkpoint to ``schedule.progress_of(counters) >= 1``; the checkpoint it came to.

    ``validate`` is called before the first step, every ``eval_every`` steps and at the end. SIGTERM and Ctrl-C save
    after the step that they fall into and raise ``Stop``. Raises Halted where a guard stops the stage.
    """
    name, folder, progress_of = schedule.name, schedule.folder, schedule.progress_of
    counters, saved, best = Counters(), checkpoints.sound(folder), Best(keep.best)
    if saved is not None:
        state.restore(saved)
        counters = checkpoints.read_counters(saved)
    for row in log.rewind(name, counters.step):
        best.see(row)
        if ended := _see(guard, row, best, folder):
            return ended
    with progress(name, 1.0) as tell, stoppable(at_once=False) as asked:
        tell(progress_of(counters))

        def end_step(metrics: Mapping[str, float], timings: Mapping[str, float], due: bool) -> Path | None:
            """Log, save where that is due, hold the row against the rules; the result of a stage that they end."""
            row = log.write(name, counters, metrics, timings)
            numbers = {**metrics, **timings}
            shown = (f"{n.removeprefix('eval/')} {numbers[n]:.4g}" for n in SHOWN if n in numbers)
            tell(progress_of(counters), f"step {counters.step}  {'  '.join(shown)}")
            if best.see(row) or due:
                log.flush()
                checkpoints.save(folder, state, counters, keep.keep, () if best.step is None else (best.step,))
            return _see(guard, row, best, folder)

        if counters.step == 0 and schedule.eval_every:
            end_step(validate(), {}, due=False)
        while progress_of(counters) < 1:
            metrics, tokens, timings = _step(schedule, stage, state, log, counters, guard)
            counters = replace(counters, step=counters.step + 1, tokens=counters.tokens + tokens)
            last, stop = progress_of(counters) >= 1, max(ranks.everyone(asked()))
            if schedule.eval_every and (last or counters.step % schedule.eval_every == 0):
                metrics |= validate()
            due = last or bool(stop) or counters.step % schedule.save_every == 0
            if ended := end_step(metrics, timings, due):
                return ended
            if stop:
                raise Stop(stop)
    final = checkpoints.latest(folder)
    assert final is not None
    return final


def _step(
    schedule: Schedule, stage: Stage, state: State, log: Log, counters: Counters, guard: Guard
) -> tuple[dict[str, float], int, dict[str, float]]:
    """One step: its metrics, tokens and timings. What it failed on is kept in ``RUN/faults``."""
    started, done = time.perf_counter(), schedule.progress_of(counters)
    try:
        guard.check()
        metrics, tokens = stage.step(counters.step, done)
    except torch.OutOfMemoryError:  # nothing in a folder would make it happen again elsewhere
        raise
    except (NonFinite, RuntimeError) as error:
        ranks.check_others(error)
        fault = write_fault(log.path.parent, stage, state, schedule.name, counters, done, error)
        again = f"what it failed on is in {fault}: `rlvr-world replay {fault}` makes it fail again"
        if isinstance(error, NonFinite):  # a way for a run to end; all else is a bug
            raise Halted(f"stopped before the update: {error}; {again}") from error
        print(f"rlvr-world: {again}", file=sys.stderr if ranks.first() else sys.__stderr__, flush=True)
        raise
    seconds = time.perf_counter() - started
    metrics |= guard.measured()
    timings = {k: metrics.pop(k) for k in list(metrics) if k.startswith("time/")}
    timings |= {"seconds": seconds, "tokens_per_second": tokens / seconds}
    if stage.full_speed:
        timings["mfu"] = tokens / seconds / stage.full_speed / ranks.size()
    return metrics, tokens, timings


def _see(guard: Guard, row: Mapping[str, Any], best: Best, folder: Path) -> Path | None:
    """Hold a row against the rules; the result of a collapsed stage that is rolled back."""
    try:
        guard.see(row)
    except Collapsed as error:
        kept = None if best.step is None else folder / checkpoints.name_of(best.step)
        sound = kept is not None and not checkpoints.damage(kept)
        known = f"the best verified checkpoint is {kept}" if sound else "no checkpoint is verified"
        said = f"{folder}: the policy has collapsed: {error}"
        if guard.config.collapse == "stop" or not sound or best.step is None:
            raise Halted(f"{said}; {known}") from error
        print(f"rlvr-world: {said}; rolled back: {known}", file=sys.stderr)
        return checkpoints.end_with(folder, best.step, str(error))
    return None


class Stop(KeyboardInterrupt):
    """The user, or the machine's scheduler, asked the run to stop; ``number`` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextmanager
def stoppable(at_once: bool) -> Iterator[Callable[[], int]]:
    """Inside, a signal raises ``Stop`` at once, or is noted: the function that is given says its number, 0 before.

    A noted signal raises ``Stop`` at the end of the block, and a second one wherever the program is. Outside the main
    thread signals are left alone. Torchrun hands on what its processes were sent already: no second signal counts.
    """
    asked: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if at_once or (asked and ranks.size() == 1):
            raise Stop(number)
        asked.append(number)
        more = "; once more stops at once" if ranks.size() == 1 else ""
        print(f"rlvr-world: stopping after this step{more}", file=sys.stderr, flush=True)

    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)} if main else {}
    try:
        yield lambda: asked[0] if asked else 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if asked:
        raise Stop(asked[0])
