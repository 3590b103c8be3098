"""Replays of recorded episodes: who is told what, what the end says, and a run's tables and files."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rlvr_world import InputError, cli, recipes
from rlvr_world.diagnose import studies
from rlvr_world.diagnose.rollouts import study_replay
from rlvr_world.overrides import override
from rlvr_world.recipes.recorded import recorded_video
from rlvr_world.runs import runner
from rlvr_world.types import Score, Transition

TINY = """threads=1 data.source=npz data.height=16 data.width=16 data.frame_skip=2 data.action_pool=1
data.proprio=true data.test_every=3 data.split.test=0.3 data.split.valid=0.3 data.lpips=none
data.reward.lpips=0 data.tokenizer.groups=8 data.tokenizer.widths=32,32 data.tokenizer.latent=8
data.tokenizer.steps=2 data.tokenizer.batch=2 data.tokenizer.patch_width=32 model.hidden=32 model.layers=1
model.heads=2 sft.steps=2 sft.batch=4 sft.eval_every=0 rl.seeds=0 rl.steps=1 rl.prompts=2 rl.group=2
rl.eval_every=0 eval.rows=2 eval.runs=1 data.context=2 data.proprio_first=true"""


def settings(tmp_path: Path) -> Any:
    """Episodes of a square that goes where it is told; its file knows where it is, and how often it was told."""
    folder = tmp_path / "square"
    folder.mkdir()
    for episode in range(12):
        rng = np.random.default_rng(episode)
        image, place = np.full((9, 16, 16, 3), 240, np.uint8), rng.integers(2, 10, 2)
        action, places = rng.integers(-2, 3, (9, 2)).astype(np.float32), np.empty((9, 2), np.float32)
        for t in range(9):
            image[t, place[0] : place[0] + 4, place[1] : place[1] + 4] = (200, 40, 40)
            places[t] = place
            place = np.clip(place + action[t].astype(int), 0, 12)
        arrays = {"image": image, "action": action, "proprio": places, "told": np.arange(9), "note": np.zeros(3)}
        np.savez_compressed(folder / f"square_eps_{episode:08d}.npz", **arrays)
    return override(
        recipes.find("pusht").config(), [*TINY.split(), f"data.path={folder}", f"data.cache={tmp_path / 'cache'}"]
    )


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a probe comes to is of no matter here."""
    monkeypatch.setattr("rlvr_world.recipes.recorded.STEPS", 10)


def test_a_recording_is_whole_and_measured_against_itself(tmp_path: Path) -> None:
    data = settings(tmp_path).data
    walks, look = recorded_video(data, 0)
    walk = walks[0]
    assert [len(walk.seen), len(walk.actions)] == [4, 3]  # frames 2, 4, 6, 8 of which the first is given
    assert walk.start.state.steps == (0, 2)
    whole = walk.start.state.episodes.actions(walk.start.state.episode)
    np.testing.assert_array_equal(np.concatenate(walk.actions), whole[2:8].flatten())
    assert look(walk.seen, walk.seen)[0]["mse"].tolist() == [0, 0, 0]
    still, told = look(walk.seen[:1] * 4, walk.seen)
    assert set(still) == {"mse", "moving"}
    assert still["moving"].tolist() == [0, 0, 0]
    errors = [np.square(walk.seen[0] / 255 - frame / 255).mean() for frame in walk.seen[1:]]
    assert still["mse"].tolist() == pytest.approx(errors)
    names = ["proprio 0", "proprio 1", "told 0"]  # what is not a row a frame says nothing
    assert [name.split(" (")[0] for name in told] == names


def test_a_run_answers_in_tables_and_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="expected recorded video to replay"):
        recipes.find("demo").recorded(recipes.find("demo").config())
    run = tmp_path / "run"
    runner.train(settings(tmp_path), run)
    capsys.readouterr()
    assert cli.main(["study", "replay", str(run), "--rows", "3"]) == 0
    parts = capsys.readouterr().out.split("\n\n")
    assert [one.split(" (")[0] for one in parts[::2]] == ["proprio 0", "proprio 1", "told 0", "mse", "moving"]
    head, _, *rows = parts[1].splitlines()
    assert head == "| steps ahead | 1 | 2 | 3 |"
    assert [row.split(" | ")[0] for row in rows] == [
        "| recorded",
        "| no change",
        "| rl/seed0",
        "| sft",
        "| control/seed0",
    ]
    answers = json.loads((run / "studies" / "replay.json").read_text())
    assert answers["mse"]["sft"][0]["n"] == 3  # episodes
    assert answers["moving"]["no change"][0]["mean"] == 0
    known = next(of for name, of in answers.items() if name.startswith("proprio 0"))
    assert [one["mean"] for one in known["recorded"]] == pytest.approx([1, 1, 1])
    assert {one.name for one in (run / "studies").glob("replay-*")} == {"replay-mse.png", "replay-moving.png"}
    assert study_replay(run, 3).split("\n\n") == [*parts[:-1], parts[-1].rstrip()]
    assert cli.main(["study", "energy", str(run), "--samples", "4", "--rows", "3"]) == 0
    head, _, *rows = capsys.readouterr().out.splitlines()
    assert head == "|  | far from the truth | far from each other | energy score |"
    assert {row.split(" | ")[0] for row in rows} >= {"| rl/seed0", "| sft", "| control/seed0", "| rl - sft"}
    of_sft = json.loads((run / "studies" / "energy.json").read_text())["sft"]
    far, apart, energy = (one["mean"] for one in of_sft)
    assert 0 < far < 1
    assert energy == pytest.approx(far - apart / 2)


def test_the_energy_score_counts_each_pair_of_draws_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three draws 1, 2 and 3.6 from the truth, and 1, 3 and 5 from each other, beside one that does not read."""
    draws = [Score(4 - 1.0, {"apart": 4.0}), Score(6 - 2.0, {"apart": 6.0}), Score(-9.0, malformed="no frame")]
    draws.append(Score(8 - 3.6, {"apart": 8.0}))
    rows = [Transition("0", None, None, None, world="an episode")]
    run = SimpleNamespace(config=recipes.find("rope").config(), splits=SimpleNamespace(test=rows))
    monkeypatch.setattr(studies.runner, "opened_run", lambda folder: run)
    monkeypatch.setattr(studies, "models_of", lambda folder: {"sft": folder})
    monkeypatch.setattr(studies, "_drawn", lambda *asked: [("sft", None, [])])
    monkeypatch.setattr(studies, "scored", lambda *groups: [draws])
    assert studies.study_energy(tmp_path, 4, 1).splitlines()[-1] == "| sft | 2.2 | 3 | 0.7 |"
