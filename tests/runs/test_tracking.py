"""metrics.jsonl after a cut: every step once."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from rlvr_world.errors import InputError
from rlvr_world.runs.checkpoints import Counters
from rlvr_world.runs.tracking import Log


def steps(log: Log, stage: str) -> list[int]:
    return [row["step"] for row in map(json.loads, log.path.read_text().splitlines()) if row["stage"] == stage]


@pytest.mark.parametrize("at", [0, 2, 5])
def test_a_cut_leaves_every_step_once(tmp_path: Path, at: int) -> None:
    log = Log(tmp_path)
    log.rewind("sft", 0)  # nothing there yet
    for stage in ("sft", "rl"):
        for step in range(6):
            log.write(stage, Counters(step), {"loss": 1.0}, {"seconds": 0.5})
    for path in (log.path, log.timings):
        with path.open("a") as file:
            file.write('{"stage": "rl", "st')  # killed while writing
    again = Log(tmp_path)
    assert [row["step"] for row in again.rewind("rl", at)] == list(range(at + 1 if at else 0))
    for step in range(at + 1 if at else 0, 7):  # the row of step 0 is written anew only by a stage that starts anew
        again.write("rl", Counters(step), {"loss": 2.0}, {"seconds": 1.5})
    assert steps(again, "rl") == list(range(7))
    assert steps(again, "sft") == list(range(6))
    timings = [json.loads(line) for line in again.timings.read_text().splitlines()]
    assert [(row["stage"], row["step"]) for row in timings] == [
        (row["stage"], row["step"]) for row in map(json.loads, again.path.read_text().splitlines())
    ]
    assert all("seconds" in row for row in timings)
    assert "seconds" not in again.path.read_text(), "what the clock says is kept apart"


def test_rows_are_json_whatever_the_numbers(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.write("rl", Counters(3, 40), {"kl": float("nan"), "gap": float("inf"), "loss": 0.5}, {})
    [row] = map(json.loads, log.path.read_text().splitlines())
    assert row == {"stage": "rl", "step": 3, "tokens": 40, "kl": None, "gap": None, "loss": 0.5}


def test_an_unknown_tracker_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown tracker 'mlflow', expected some of tensorboard"):
        Log(tmp_path, ("mlflow",))


@pytest.mark.parametrize("when", ["init", "log"])
def test_a_tracker_that_is_down_never_stops_training(
    when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = []

    def down(*_: Any, **__: Any) -> None:
        calls.append(when)
        raise ConnectionError("no route\nto host")

    tracker = types.SimpleNamespace(init=lambda **_: None, log=lambda _: None)
    setattr(tracker, when, down)
    monkeypatch.setitem(sys.modules, "wandb", tracker)  # type: ignore[arg-type]
    log = Log(tmp_path, ("wandb",))
    for step in range(3):
        log.write("rl", Counters(step), {"loss": 1.0}, {})
    assert steps(log, "rl") == [0, 1, 2]
    assert calls == [when], "it is left alone after it has failed"
    assert "tracker wandb failed (ConnectionError: no route to host)" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_resumed_run_goes_on_in_its_own_run_of_a_tracker(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[dict[str, Any]] = []
    tracker = types.SimpleNamespace(init=lambda **given: opened.append(given), log=lambda _: None)
    monkeypatch.setitem(sys.modules, name, tracker)  # type: ignore[arg-type]
    one, other = tmp_path / "one" / "mine", tmp_path / "other" / "mine"
    for run in (one, one, other):
        run.mkdir(parents=True, exist_ok=True)
        Log(run, (name,), {"seed": 0})
    first, again, apart = opened
    assert first == again, "a second start of one folder is the same run there"
    assert first["resume"] == "allow"
    assert first["name"].startswith("mine")
    key = "id" if name == "wandb" else "name"
    assert first[key] != apart[key], "another folder of the same name is another run"
