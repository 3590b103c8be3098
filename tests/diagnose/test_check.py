"""``check`` and ``doctor``: rows that read, rewards that know the truth, and a verdict before RL."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rlvr_world import cli
from rlvr_world.diagnose.check import check
from rlvr_world.diagnose.doctor import doctor
from rlvr_world.domains.text_game.domain import TextGame
from rlvr_world.errors import InputError
from rlvr_world.overrides import override
from rlvr_world.recipes import find
from rlvr_world.runs import runner
from rlvr_world.runs.jobs import Run, base_model, write_world
from rlvr_world.runs.tracking import Log
from rlvr_world.types import Score

TINY = """model.vocabulary=300 model.layers=1 model.hidden=32 model.heads=2 model.precision=float32 model.device=cpu
data.split.valid=0.2 threads=1 rl.prompts=3 rl.group=4 rl.steps=7 data.max_response=140""".split()  # noqa: SIM905


@pytest.fixture
def settings(house: Any) -> list[str]:
    path = house(30)
    return [*TINY, f"data.train={path}", f"data.test={path}"]


def config(settings: list[str]) -> Any:
    return override(find("bytesized32").config(), settings)


def test_sound_rows_pass(settings: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "bytesized32", *settings]) == 0
    said = capsys.readouterr().out
    assert "| test | 30 | changed 15, unchanged 15 | 3 |" in said
    assert "faults: none" in said
    line = next(line for line in said.splitlines() if line.startswith("| test | 30 | 0 |"))
    least, mean, no_change = (float(cell) for cell in line.split("|")[4:7])
    assert (least, mean) == (0.3, pytest.approx((1.3 + 0.3) / 2))
    assert no_change < mean


def test_a_reward_that_prefers_no_change_is_found(
    settings: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    score = TextGame.score
    monkeypatch.setattr(TextGame, "score", lambda *a: Score(-score(*a).value, score(*a).parts))
    assert cli.main(["check", "bytesized32", *settings]) == 1
    said = capsys.readouterr().out
    assert "'no change' scores -0.0" in said
    assert "more than the true answer's -1.3" in said


def test_a_reward_that_is_not_finite_is_a_fault_and_never_a_traceback(
    settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(TextGame, "score", lambda *_: Score(float("nan")))
    good, said = check(config(settings), limit=2)
    assert not good
    assert "the score is nan, expected a finite number" in said
    small = ["sft.steps=1", "sft.batch=2", "sft.eval_every=1", "eval.valid_rows=2", "rl.steps=0"]
    given = [s for s in settings if s != "rl.steps=7"]
    assert cli.main(["train", "bytesized32", "--out", str(tmp_path / "run"), *given, *small]) == 2
    assert "the score is nan" in capsys.readouterr().err
    assert not (tmp_path / "run").exists(), "the true answer is scored before anything is trained"


def test_a_best_that_validation_does_not_measure_is_refused(
    settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = [
        "sft.steps=1",
        "sft.batch=2",
        "sft.eval_every=1",
        "eval.valid_rows=2",
        "checkpoints.best=-eval/overal/value",
    ]
    assert cli.main(["train", "bytesized32", "--out", str(tmp_path / "run"), *settings, *small]) == 2
    assert "checkpoints.best: expected a number that is logged, got 'eval/overal/value'" in capsys.readouterr().err


def test_answers_that_nobody_could_write_are_found(settings: list[str]) -> None:
    good, said = check(config([*settings[:-3], "data.max_response=20", *settings[-2:]]))
    assert not good
    assert "tokens, at most 20 can be written; raise data.max_response" in said
    assert said.count("\n- row") == 10, "no more are told than a person reads"


def test_a_decoder_that_spoils_the_truth_is_found(settings: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    decode = TextGame.decode
    monkeypatch.setattr(TextGame, "decode", lambda self, written, row: decode(self, [written[0][:-1]], row))
    good, said = check(config(settings), limit=5)
    assert not good, "a missing bracket is not repaired"
    assert "neither JSON nor a Python literal" in said
    monkeypatch.setattr(TextGame, "decode", lambda self, written, row: decode(self, [written[0][5:]], row))
    good, said = check(config(settings), limit=5)
    assert not good
    assert "the true answer reads as malformed" in said


def test_a_row_that_does_not_read_is_named(house: Any, settings: list[str], capsys: Any) -> None:
    path = Path(settings[-1].partition("=")[2])
    rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    rows[6]["tick_state"]["objects"][1]["uuid"] = "one"
    del rows[9]["game"]
    bad = house(rows)
    bad.write_bytes(gzip.compress(gzip.decompress(bad.read_bytes()) + b"{half\n"))
    assert cli.main(["check", "bytesized32", *settings[:-1], f"data.test={bad}"]) == 1
    said = capsys.readouterr().out
    assert "faults: 3\n" in said
    assert all(f"row {number}" in said for number in (7, 10, len(rows) + 1))
    assert "tick_state.objects[1].uuid: expected an integer, got 'one'" in said


def test_rows_that_do_not_read_can_be_skipped(house: Any, settings: list[str], capsys: Any) -> None:
    path = Path(settings[-1].partition("=")[2])
    rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    rows[6]["tick_state"]["objects"][1]["uuid"] = "one"
    given = ["check", "bytesized32", *settings[:-1], f"data.test={house(rows)}", "data.skip_faulty=true"]
    assert cli.main([*given, "--rows", "3"]) == 0
    said = capsys.readouterr()
    assert "left out: 1 rows (rows that do not read)" in said.out
    assert "row 7, field tick_state.objects[1].uuid: expected an integer, got 'one'" in said.err


def test_an_empty_split_is_a_fault_and_rows_left_out_are_told(
    settings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = find("bytesized32")
    splits = replace(recipe.splits(config(settings)), test=[], left_out={"lost by the browser": 3, "seen": 0})
    monkeypatch.setattr(type(recipe), "splits", lambda *_: splits)
    good, said = check(override(recipe.config(), settings), limit=2)
    assert not good
    assert "faults: 1\n- split test: expected rows, got none" in said
    assert "left out: 3 rows (lost by the browser)" in said
    assert "(seen)" not in said


def test_doctor_wants_a_start_that_has_learned_something(settings: list[str]) -> None:
    with pytest.raises(InputError, match="train sft first"):
        doctor(config(settings))


def test_doctor_measures_and_says_what_to_change(
    settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runner, "write_report", lambda folder: folder)
    given = [*settings, "sft.steps=1", "sft.batch=2", "rl.steps=0", "eval.rows=2", "data.max_response=12"]
    given = [g for g in given if g not in ("data.max_response=140", "rl.steps=7")]
    runner.train(config(given), tmp_path / "run")
    given[given.index("rl.steps=0")] = "rl.steps=7"
    assert cli.main(["doctor", "bytesized32", *given, "--model", str(tmp_path / "run"), "--prompts", "9"]) == 1
    said = capsys.readouterr().out
    assert "9 prompts, 4 rollouts each" in said
    assert "| groups without spread | 100% | NO: nothing to learn from" in said
    assert "| malformed | 100% | NO: the start does not know the format" in said
    assert "| cut off at the longest | " in said
    assert "s, " in said.partition("| a step |")[2]
    assert said.splitlines()[-1].startswith("no-go: groups without spread, malformed")


def test_doctor_says_go_where_there_is_something_to_learn(
    settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = base_model(_run(settings, tmp_path))
    drawn = iter(torch.rand(10_000, generator=torch.Generator().manual_seed(0)).tolist())
    monkeypatch.setattr(TextGame, "score", lambda *_: Score(next(drawn), {"exact": 0.0}))
    good, said = doctor(config(settings), base, prompts=6)
    assert "| groups without spread | 0% | ok |" in said
    assert "NO" not in said.replace("NO: answers are cut off", "")
    assert good == ("NO" not in said)


def test_doctor_takes_a_domain_of_groups_that_is_no_video(
    settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = base_model(_run(settings, tmp_path))
    pairs = {
        "decode_groups": lambda self, groups, rows: [
            [self.decode(one, row) for one in g] for g, row in zip(groups, rows, strict=True)
        ],
        "score_groups": lambda self, made, rows: [
            [self.score(one, row) for one in g] for g, row in zip(made, rows, strict=True)
        ],
    }
    for name, method in pairs.items():
        monkeypatch.setattr(TextGame, name, method, raising=False)
    _, said = doctor(config(settings), base, prompts=3)
    assert "GiB is the process's peak" in said


def _run(settings: list[str], folder: Path) -> Run:
    given, recipe = config(settings), find("bytesized32")
    run = Run(folder, given, recipe, recipe.splits(given), Log(folder))
    write_world(run)
    return run
