"""Progress where there is no terminal: lines every so often, whole, with the numbers and the time left."""

from __future__ import annotations

import time

import pytest

from rlvr_world.system import progress as module
from rlvr_world.system.progress import clock, progress, track


@pytest.fixture
def clock_at(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_a_line_every_half_minute_and_one_at_the_end(clock_at: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with progress("sft", 400, "steps") as update:
        update(0)
        for step in range(1, 401):
            clock_at[0] += 0.5
            update(step, f"loss {1 / step:.3f} " + "x" * 100)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 200 / module.EVERY // 1 + 1
    assert lines[0].startswith("sft: 60 of 400 steps, 15 %, 2 min 50 s left, loss 0.017 xxx")
    assert lines[0].endswith("x" * 100), "nothing is cut"
    assert lines[-1].endswith("3 min 20 s in all")


def test_a_stage_that_goes_on_counts_what_is_left_from_where_it_began(
    clock_at: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with progress("rl", 1.0) as update:
        update(0.5)
        clock_at[0] += 40
        update(0.75, "reward 0.3")
    assert capsys.readouterr().err.splitlines()[0] == "rl: 75 %, 40 s left, reward 0.3"


def test_short_work_is_not_worth_a_line(clock_at: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track(range(3), "reading")) == [0, 1, 2]
    assert list(track([], "reading")) == []
    assert capsys.readouterr().err == ""


def test_times_as_people_say_them() -> None:
    assert [clock(s) for s in (4.4, 61, 3720)] == ["4 s", "1 min 1 s", "1 h 2 min"]
