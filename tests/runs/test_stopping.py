"""How a stage stops in order: signals save at the end of the step, a full disk names the last good checkpoint."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlvr_world import cli
from rlvr_world.config import CheckpointConfig, GuardConfig
from rlvr_world.errors import Halted, InputError
from rlvr_world.runs import checkpoints as checkpoint
from rlvr_world.runs import runner
from rlvr_world.runs.checkpoints import Counters
from rlvr_world.runs.folder import alone, room_on_disk
from rlvr_world.runs.guards import Guard
from rlvr_world.runs.stage import Schedule, Stop, run_stage, stoppable
from rlvr_world.runs.tracking import Log
from rlvr_world.training.learner import Learner


class Counting:
    """A stage that does nothing, and a state that holds a number."""

    full_speed = None
    sharded = False

    def __init__(self, at: int = -1, number: signal.Signals = signal.SIGTERM, times: int = 1) -> None:
        self.at, self.number, self.times = at, number, times

    def step(self, step: int, progress: float) -> tuple[dict[str, float], int]:
        if step == self.at:
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)
        return {"loss": 1.0 / (1 + step)}, 10

    def save(self, folder: Path) -> None:
        (folder / "weights").write_text("w")

    def restore(self, saved: Path) -> None:
        assert (saved / "weights").read_text() == "w"


def run(stage: Counting, folder: Path) -> Path:
    schedule, keep = Schedule("sft", folder / "sft", lambda c: c.step / 6, 100, 0), CheckpointConfig()
    return run_stage(schedule, stage, stage, Log(folder), dict, keep, Guard(GuardConfig(), keep))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("at", [0, 3, 5])
def test_a_signal_saves_after_its_step(number: signal.Signals, at: int, tmp_path: Path) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Stop) as stopped:
        run(Counting(at, number), tmp_path)
    assert stopped.value.number == number
    assert signal.getsignal(number) == before
    last = checkpoint.sound(tmp_path / "sft")
    assert last is not None
    assert checkpoint.read_counters(last) == Counters(at + 1, 10 * (at + 1))
    assert run(Counting(), tmp_path).name == "step-000006"
    assert (tmp_path / "metrics.jsonl").read_text().count("\n") == 6


def test_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    with pytest.raises(Stop):
        run(Counting(3, times=2), tmp_path)
    assert checkpoint.latest(tmp_path / "sft") is None


def test_a_signal_that_nobody_asked_about_is_not_lost() -> None:
    def ask() -> None:
        with stoppable(at_once=False) as asked:
            assert asked() == 0
            os.kill(os.getpid(), signal.SIGTERM)
            assert asked() == signal.SIGTERM

    with pytest.raises(Stop):
        ask()


@pytest.mark.parametrize(("error", "code"), [(Stop(signal.SIGTERM), 143), (Stop(signal.SIGINT), 130)])
def test_the_command_says_how_to_go_on(
    error: Stop, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text("{}")

    def stopped(folder: Path) -> None:
        raise error

    monkeypatch.setattr(runner, "resume", stopped)
    assert cli.main(["resume", str(tmp_path)]) == code
    assert capsys.readouterr().err.strip() == f"stopped; go on with: rlvr-world resume {tmp_path}"


def test_two_processes_do_not_share_a_run_folder(tmp_path: Path) -> None:
    run_folder = tmp_path / "run"
    with (
        alone(run_folder),
        pytest.raises(InputError, match="another process works in this run folder"),
        alone(run_folder),
    ):
        pass
    with alone(run_folder):
        pass


def test_a_full_disk_stops_in_order(tmp_path: Path, learner_of: Callable[..., Learner]) -> None:
    """Files are really cut off: by the limit on their size that the system puts on a child process."""
    learner = learner_of()
    good = checkpoint.save(tmp_path / "sft", learner, Counters(3))
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        try:
            with room_on_disk(tmp_path):
                checkpoint.save(tmp_path / "sft", learner, Counters(4))
        except Halted as error:
            expected = ("no room is left on the disk", f"the last good checkpoint is {good}", "rlvr-world resume")
            os._exit(0 if all(words in str(error) for words in expected) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert [path.name for path in (tmp_path / "sft").iterdir()] == ["step-000003"]


def test_other_errors_of_the_system_are_not_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), room_on_disk(tmp_path):
        raise PermissionError(13, "denied")


def test_halted_is_told_in_a_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def halts(*_: Any) -> None:
        raise Halted("step 3: so it\nis")

    monkeypatch.setattr(runner, "resume", halts)
    assert cli.main(["resume", "run"]) == 3
    assert capsys.readouterr().err == "rlvr-world: step 3: so it is\n"
