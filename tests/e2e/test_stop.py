"""SIGTERM to the real command: the step is ended and saved, the way on is said; meanwhile the folder is its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import pytest

from rlvr_world import cli
from rlvr_world.errors import InputError
from rlvr_world.recipes.text_game import TextGameRecipe

SETTINGS = """model.vocabulary=300 model.layers=1 model.hidden=32 model.heads=2 model.device=cpu model.precision=float32
threads=1 sft.steps=1000000 sft.batch=2 sft.save_every=1000000 sft.eval_every=0 data.split.valid=0.2"""


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "rlvr_world", *map(str, arguments)]


def test_sigterm_saves_and_says_how_to_go_on(house: Any, tmp_path: Path) -> None:
    rows, run = house(30), tmp_path / "run"
    given = [*SETTINGS.split(), f"data.train={rows}", f"data.test={rows}"]
    process = subprocess.Popen(
        command("train", "bytesized32", "--out", run, *given),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    log, deadline = run / "metrics.jsonl", time.monotonic() + 240
    while not log.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
    second = subprocess.run(command("resume", run), capture_output=True, text=True, timeout=240, check=False)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=240)
    assert process.returncode == 128 + signal.SIGTERM, said
    assert f"stopped; go on with: rlvr-world resume {run}" in said
    steps = log.read_text().count("\n")
    assert [path.name for path in (run / "sft").iterdir()] == [f"step-{steps:06d}"]
    assert second.returncode == 2, second.stderr
    assert "another process works in this run folder" in second.stderr


def test_a_run_stopped_while_its_rows_are_collected_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: Any) -> NoReturn:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the signal was not heard")

    def refused(*_: Any) -> NoReturn:
        raise InputError("rows.jsonl: no such file")

    run, wrong = tmp_path / "run", tmp_path / "wrong"
    monkeypatch.setattr(TextGameRecipe, "splits", stopped)
    for arguments in (["train", "bytesized32", "--out", str(run)], ["resume", str(run)]):
        assert cli.main(arguments) == 128 + signal.SIGTERM
        assert f"stopped; go on with: rlvr-world resume {run}" in capsys.readouterr().err
    monkeypatch.setattr(TextGameRecipe, "splits", refused)
    assert cli.main(["resume", str(run)]) == 2
    assert (run / "config.json").is_file(), "what it has is not thrown away"
    assert cli.main(["train", "bytesized32", "--out", str(wrong)]) == 2
    assert not wrong.exists()
