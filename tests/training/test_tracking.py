"""metrics.jsonl after a cut: every step once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlvr_world.errors import InputError
from rlvr_world.training.checkpoint import Counters
from rlvr_world.training.tracking import Log


def steps(log: Log, stage: str) -> list[int]:
    return [row["step"] for row in map(json.loads, log.path.read_text().splitlines()) if row["stage"] == stage]


@pytest.mark.parametrize("at", [0, 2, 5])
def test_a_cut_leaves_every_step_once(tmp_path: Path, at: int) -> None:
    log = Log(tmp_path)
    log.rewind("sft", 0)  # nothing there yet
    for stage in ("sft", "rl"):
        for step in range(6):
            log.write(stage, Counters(step), {"loss": 1.0})
    with log.path.open("a") as file:
        file.write('{"stage": "rl", "st')  # killed while writing
    again = Log(tmp_path)
    again.rewind("rl", at)
    for step in range(at + 1 if at else 0, 7):  # the row of step 0 is written anew only by a stage that starts anew
        again.write("rl", Counters(step), {"loss": 2.0})
    assert steps(again, "rl") == list(range(7))
    assert steps(again, "sft") == list(range(6))


def test_rows_are_json_whatever_the_numbers(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.write("rl", Counters(3, 40, 1.5), {"kl": float("nan"), "gap": float("inf"), "loss": 0.5})
    [row] = map(json.loads, log.path.read_text().splitlines())
    assert row == {"stage": "rl", "step": 3, "tokens": 40, "seconds": 1.5, "kl": None, "gap": None, "loss": 0.5}


def test_an_unknown_tracker_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown tracker 'mlflow', expected some of tensorboard"):
        Log(tmp_path, ("mlflow",))
