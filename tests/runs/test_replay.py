"""Any rollout of a run made again bit for bit, and a failed step done again, by the verb."""

from __future__ import annotations

import gzip
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlvr_world import cli
from rlvr_world.config import RecordConfig
from rlvr_world.domains.text_game.domain import TextGame
from rlvr_world.errors import Halted, InputError
from rlvr_world.overrides import override
from rlvr_world.recipes import find
from rlvr_world.runs import runner
from rlvr_world.runs.jobs import job
from rlvr_world.runs.records import Recorder, chosen, read_kept
from rlvr_world.runs.replay import replay
from rlvr_world.training.sft import rows_of_step
from rlvr_world.types import Score

TINY = """model.vocabulary=300 model.layers=1 model.hidden=32 model.heads=2 model.precision=float32 model.device=cpu
sft.steps=2 sft.batch=4 rl.steps=5 rl.prompts=3 rl.group=3 rl.save_every=2 rl.eval_every=2 rl.minibatches=2
rl.drop_zero_variance=false control.enabled=false data.max_response=10 data.split.valid=0.2 eval.rows=3
eval.valid_rows=2 record.extremes=1 record.sample=1 guards.still_steps=0 threads=1 data.even=0""".split()  # noqa: SIM905


@pytest.fixture(scope="module")
def tiny(house: Any) -> Any:
    path = house(30)
    return override(find("bytesized32").config(), [*TINY, f"data.train={path}", f"data.test={path}"])


@pytest.fixture(scope="module")
def trained(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    runner.train(tiny, folder)
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy, to be spoiled."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def test_any_rollout_is_made_again(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stage = run / "rl" / "seed0"
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for step in range(5):
        ids = list(read_kept(stage, step))
        assert len(ids) == 3
        for rollout in ids[:2]:
            shown = replay(run, rollout, redo=4)
            assert f"rollout {rollout} of {stage}" in shown
            assert "; bit for bit the kept one" in shown, shown.splitlines()[0]
            kept = read_kept(stage, step)[rollout]
            assert f"row {kept['row']}, action" in shown
            assert f"reward {kept['value']:.6g}: exact" in shown
            assert f"malformed: {kept['malformed']}" in shown
            assert shown.count("\n  ") >= len(kept["ids"])
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}, "nothing is written"
    assert cli.main(["replay", str(run), "4/2/2"]) == 0
    assert f"made again from {stage / 'step-000004'}" in capsys.readouterr().out


def test_rows_drawn_by_spread_are_found_again(tiny: Any, tmp_path: Path) -> None:
    settings = ["rl.draw=spread", "rl.dynamic_sampling=2", "rl.steps=4", "data.reward=task_specific"]
    runner.train(override(tiny, settings), tmp_path / "run")
    stage = tmp_path / "run" / "rl" / "seed0"
    numbers = set()
    for step in range(4):
        for rollout, kept in read_kept(stage, step).items():
            numbers.add(int(rollout.split("/")[1]))
            for redo in (0, 4):
                shown = replay(tmp_path / "run", rollout, redo=redo)
                assert f"row {kept['row']}, action" in shown
                assert ("as it was kept" if step % 2 and not redo else "; bit for bit the kept one") in shown
    assert max(numbers) >= 3, "some are of the second batch of a step"


def test_a_policy_that_is_not_kept_is_said_so(run: Path) -> None:
    rollout = next(iter(read_kept(run / "rl" / "seed0", 1)))
    assert "as it was kept; to make it again from" in replay(run, rollout)
    assert "add --redo 1" in replay(run, rollout)
    (run / "rl" / "seed0" / "rollouts" / "000001.jsonl.gz").unlink()
    with pytest.raises(InputError, match="add --redo 1 to train them again"):
        replay(run, rollout)
    assert "it was not kept, so there is nothing to compare" in replay(run, rollout, redo=1)


def test_a_kept_rollout_that_was_tampered_with_differs(run: Path) -> None:
    file = run / "rl" / "seed0" / "rollouts" / "000004.jsonl.gz"
    rows = [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]
    rows[0]["ids"][1] += 1
    file.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    assert "IT DIFFERS from the kept one from token 1 on" in replay(run, rows[0]["id"])
    file.write_bytes(b"no gzip")
    with pytest.raises(InputError, match=r"000004\.jsonl\.gz: expected kept rollouts"):
        replay(run, rows[0]["id"])


@pytest.mark.parametrize("rollout", ["", "1", "1/2", "a/b/c", "9/0/0", "0/3/0", "0/0/3", "-1/0/0"])
def test_an_id_that_does_not_exist_is_refused(rollout: str, trained: Path) -> None:
    with pytest.raises(InputError, match="rollout"):
        replay(trained, rollout)


def test_a_failed_step_fails_again_by_the_verb(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A scorer with a bug that one row meets; the command that the message names shows it again."""
    score, train = TextGame.score, find("bytesized32").splits(tiny).train
    meant = train[rows_of_step(len(train), 3, 2, 0)[1]].id

    def buggy(self: TextGame, prediction: Any, transition: Any) -> Score:
        return Score(math.nan) if transition.id == meant else score(self, prediction, transition)

    monkeypatch.setattr(TextGame, "score", buggy)
    with pytest.raises(Halted, match=f"row {meant}: the score is nan"):
        runner.train(tiny, tmp_path / "run")
    fault = tmp_path / "run" / "faults" / "rl-seed0-000002"
    capsys.readouterr()
    assert cli.main(["replay", str(fault)]) == 0
    assert "it fails again: row" in capsys.readouterr().out
    monkeypatch.setattr(TextGame, "score", score)
    assert cli.main(["replay", str(fault)]) == 1
    assert "it does not fail here; it said: row" in capsys.readouterr().out


def test_a_bug_of_a_scorer_keeps_no_weights_and_happens_again(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The step is come to again from the checkpoint before it, two steps back, to the same failure on the same row."""
    settings = override(tiny, ["rl.save_every=100"])
    score, train = TextGame.score, find("bytesized32").splits(settings).train
    meant = train[rows_of_step(len(train), 3, 2, 0)[1]].id
    seen: list[str] = []

    def buggy(self: TextGame, prediction: Any, transition: Any) -> Score:
        seen.append(prediction.text)
        return {}["gone"] if transition.id == meant and len(seen) > 10 else score(self, prediction, transition)

    monkeypatch.setattr(TextGame, "score", buggy)
    with pytest.raises(RuntimeError, match=f"row {meant}: the domain failed on it .KeyError"):
        runner.train(settings, tmp_path / "run")
    [fault] = (tmp_path / "run" / "faults").iterdir()
    assert {file.name for file in fault.iterdir()} == {"fault.json", "manifest.json"}
    assert sum(file.stat().st_size for file in fault.iterdir()) < 2000
    capsys.readouterr()
    assert cli.main(["replay", str(fault)]) == 0
    assert "it fails again: row" in capsys.readouterr().out


def test_a_run_that_a_guard_stopped_tells_why_and_goes_on(
    tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    with pytest.raises(Halted, match=r"step 2: in 2 steps no group had two different rewards"):
        runner.train(override(tiny, ["guards.flat_steps=2"]), folder)
    assert cli.main(["resume", str(folder)]) == 3, "it comes to the same end"
    assert "rlvr-world: step 2: in 2 steps no group" in capsys.readouterr().err
    assert "guard</span> step 2: in 2 steps no group" in (folder / "report.html").read_text()
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace('"flat_steps": 2', '"flat_steps": 0'))
    assert cli.main(["resume", str(folder)]) == 0
    assert "guard</span>" not in (folder / "report.html").read_text()


def test_the_extremes_and_a_sample_are_chosen() -> None:
    values = [0.5, 0.1, 0.9, 0.5, 0.2, 0.7]
    assert chosen(values, RecordConfig(extremes=1, sample=0), [0]) == [1, 2]
    for seed in range(5):
        got = chosen(values, RecordConfig(extremes=2, sample=1), [seed])
        assert {1, 2, 4, 5} < set(got)
        assert len(got) == 5
    assert chosen(values, RecordConfig(extremes=9, sample=9), [0]) == list(range(6))
    assert chosen([], RecordConfig(), [0]) == []


@pytest.mark.parametrize("cut_at", [None, 5, 9, 17])
def test_what_is_kept_is_bounded_and_the_same_after_a_cut(cut_at: int | None, trained: Path, tmp_path: Path) -> None:
    stage: Any = job(runner.opened_run(trained), "rl/seed0").open()[0]
    rows, groups, _ = stage.rollouts(0)
    scores = [[Score(0.1 * i) for i in range(3)] for _ in range(3)]

    def keep(folder: Path, steps: range) -> None:
        recorder = Recorder(folder, RecordConfig(extremes=1, sample=1, megabytes=0.006), 0)
        for step in steps:
            recorder.keep(step, rows, groups, scores)

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    keep(whole, range(20))
    if cut_at is not None:
        keep(cut, range(cut_at))
    keep(cut, range(max(0, (cut_at or 0) - 3), 20))
    files = {path.name: path.read_bytes() for path in (whole / "rollouts").iterdir()}
    assert files == {path.name: path.read_bytes() for path in (cut / "rollouts").iterdir()}
    assert 2 <= len(files) < 20
    assert sum(map(len, files.values())) < 0.0062e6


def test_a_failed_step_of_a_tokenizer_fails_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = pytest.importorskip("rlvr_world.recipes.video_recipe")
    (tmp_path / "noise").mkdir()
    for episode in range(12):
        draw = np.random.default_rng(episode)
        image = draw.integers(0, 255, (5, 16, 16, 3)).astype(np.uint8)
        np.savez(tmp_path / "noise" / f"noise_eps_{episode:08d}.npz", image=image, action=np.zeros((5, 2)))
    shape = """data.source=npz data.height=16 data.width=16 data.frame_skip=1 data.action_pool=1
    data.lpips=none data.reward.lpips=0
    data.split.test=0.3 data.split.valid=0.3 data.tokenizer.widths=32,32 data.tokenizer.groups=8
    data.tokenizer.latent=8 data.tokenizer.steps=4 data.tokenizer.batch=2 data.tokenizer.eval_every=0 threads=1
    model.device=cpu model.precision=float32 sft.steps=1 rl.steps=0"""
    config = override(find("pusht").config(), [*shape.split(), f"data.path={tmp_path / 'noise'}"])
    create = recipe.create_visual_tokenizer

    def spoiled(*arguments: Any) -> Any:
        tokenizer = create(*arguments)
        next(tokenizer.parameters()).data *= 1e37
        return tokenizer

    with monkeypatch.context() as broken:
        broken.setattr(recipe, "create_visual_tokenizer", spoiled)
        broken.setattr(runner, "opened", lambda run: (None, None))  # which would see it before the stage does
        with pytest.raises(Halted, match="stopped before the update: gradient not finite"):
            runner.train(config, tmp_path / "run")
    fault = tmp_path / "run" / "faults" / "tokenizer-000000"
    assert cli.main(["replay", str(fault)]) == 0
    assert "tokenizer, step 0: it fails again: gradient not finite" in capsys.readouterr().out
