"""Studies of one tiny run: the best of N with its crossing, RL by group size, and planning by depth, width, samples."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rlvr_world import cli, recipes
from rlvr_world.diagnose import planning, studies
from rlvr_world.errors import InputError
from rlvr_world.overrides import override
from rlvr_world.runs import runner
from rlvr_world.types import Score
from tests.diagnose.test_rollouts import TINY


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("textworld", reason="pip install 'rlvr-world[textgame]'")
    folder = tmp_path_factory.mktemp("studied")
    settings = [*TINY.split(), f"data.cache={folder / 'cache'}"]
    runner.train(override(recipes.find("demo").config(), settings), folder / "run")
    return folder / "run"


def scripted(values: dict[str, list[float]], names: list[str]) -> Any:
    """Scores of each model in turn instead of what it wrote."""
    turns = iter(names)

    def judge(domain: Any, groups: Any, rows: Any) -> Iterator[list[tuple[Any, Score]]]:
        some = values[next(turns).split("/")[0]]
        return iter([[(None, Score(some[i % len(some)])) for i in range(len(group))] for group in groups])

    return judge


def test_the_best_of_n_says_where_the_start_comes_up_to_rl(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["rl/seed0", "sft", "control/seed0"]
    values = {"rl": [0.5], "sft": [0.0, 0.0, 0.0, 0.9], "control": [0.2]}
    monkeypatch.setattr(studies, "judge", scripted(values, names))
    assert cli.main(["study", "best-of", str(run), "--samples", "4", "--rows", "2"]) == 0
    head, _, *rows, _, said = capsys.readouterr().out.splitlines()
    assert head == "| best of | 1 | 2 | 4 |"
    assert rows[:3] == [
        "| rl/seed0 | 0.5 | 0.5 | 0.5 |",
        "| sft | 0.225 | 0.45 | 0.9 |",
        "| control/seed0 | 0.2 | 0.2 | 0.2 |",
    ]
    assert said == "the start of RL from best of 3 on does as well as RL"
    monkeypatch.setattr(studies, "judge", scripted({**values, "sft": [0.1]}, names))
    assert studies.study_best_of(run, 4, 2).endswith("the start of RL stays below RL")
    told = json.loads((run / "studies" / "best-of.json").read_text())
    assert [one["mean"] for one in told["sft"]] == pytest.approx([0.1] * 3)
    assert (run / "studies" / "best-of.png").read_bytes().startswith(b"\x89PNG")


def test_rl_in_groups_of_each_size_is_trained_once(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = studies.study_group_size(run, (2, 3), 1)
    assert table.splitlines()[0] == "| rollouts a group | 2 | 3 |"
    assert [row.split(" | ")[0] for row in table.splitlines()[2:]] == ["| sft", "| rl", "| rl - sft"]
    folder = run / "studies" / "group-size"
    kept = [json.loads((folder / size / "config.json").read_text()) for size in ("2", "3")]
    assert [(one["rl"]["group"], one["sft"]["steps"], one["control"]["enabled"]) for one in kept] == [
        (2, 0, False),
        (3, 0, False),
    ]
    assert folder.with_suffix(".png").is_file()
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*.safetensors")}
    assert studies.study_group_size(run, (2, 3), 1) == table
    assert before == {file: file.stat().st_mtime_ns for file in folder.rglob("*.safetensors")}
    monkeypatch.setattr(studies, "latest", lambda folder: None)
    with pytest.raises(InputError, match="expected a run with a finished sft stage"):
        studies.study_group_size(run, (2,), 1)


def test_planning_is_swept_and_held_against_exactness(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(planning, "SWEPT", {"depth": (1, 2), "samples": (1,)})
    assert cli.main(["study", "planning", str(run), "--rows", "2"]) == 0
    said = capsys.readouterr().out
    for task in ("trained-games", "unseen-games"):
        assert f"{task}\n\n| depth | 1 | 2 |" in said
        for kind in ("changed", "overall"):
            assert f"{task}: one-step exactness ({kind}) and success correlate by " in said
        assert (run / "studies" / "planning" / f"{task}-depth.png").is_file()
    kept = json.loads((run / "studies" / "planning" / "samples-1" / "trained-games" / "sft.json").read_text())
    assert (kept["protocol"]["temperature"], kept["protocol"]["starts"]) == (1.0, 2)
    monkeypatch.setattr(planning, "_try", lambda *_: pytest.fail("what stands is not made again"))
    planning.study_planning(run, 2)
    assert not (run / "planning").exists(), "the run's own results stay as they are"


@pytest.mark.parametrize("flag", ["samples", "depth", "rows", "steps"])
def test_how_much_is_no_less_than_it_can_be(flag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["study", "best-of", str(tmp_path), f"--{flag}", "-1"]) == 2
    assert f"--{flag}: expected at least" in capsys.readouterr().err
