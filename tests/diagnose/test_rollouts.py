"""How near imagined walks are: what counts as near, that the truth is not told, a run's answer in table and files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlvr_world import InputError, Outcome, cli, recipes
from rlvr_world.diagnose.rollouts import imagined, nearness, study_rollouts
from rlvr_world.overrides import override
from rlvr_world.recipes.tasks import Walk
from rlvr_world.runs import runner

TINY = """data.env.games=2 data.env.rows_per_game=12 model.vocabulary=320 data.max_prompt=2000 data.max_response=8
threads=1 model.device=cpu model.layers=1 model.hidden=32 model.heads=2 sft.steps=2 sft.batch=4 sft.eval_every=0
rl.steps=1 rl.prompts=2 rl.group=2 rl.eval_every=0 rl.drop_zero_variance=false eval.rows=2 eval.valid_rows=2"""


def test_what_is_near() -> None:
    assert nearness("a", "a") == 1
    assert nearness("a", "b") == 0
    page = {"observation": "one\ntwo\ntwo"}
    assert nearness(page, page) == 1
    assert nearness({"observation": "one\nthree\ntwo"}, page) == pytest.approx(2 / 3)
    black, white = np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8)
    assert nearness(black, black) == 0
    assert nearness({"pixels": black, "agent_pos": 1}, {"pixels": white, "agent_pos": 2}) == 1


def test_a_model_is_told_the_start_and_the_actions_alone() -> None:
    class Adding:
        """Adds what is done, until it has come to 4; then it says that the episode has ended."""

        action_space = observation_space = None
        render_mode = "ansi"

        def start(self, seed: int, options: Any) -> Any:
            return int(options["state"]), {}

        def read_action(self, given: Any) -> Any:
            return given

        def advance(self, asked: Any, streams: Any) -> list[Outcome]:
            return [Outcome(state + action, terminated=state + action >= 4) for state, action in asked]

        def observe(self, state: int) -> str:
            return str(state)

    walks = [Walk([1, 1, 1], [*"0193"], "a"), Walk([2, 3], [*"025"], "a"), Walk([4, 0], [*"044"], "b")]
    assert imagined(Adding(), walks, 5) == [["1", "2", "3"], ["2", "5"], ["4", None]]  # type: ignore[arg-type]


def test_a_run_answers_in_a_table_and_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("textworld", reason="pip install 'rlvr-world[textgame]'")
    run, settings = tmp_path / "run", [*TINY.split(), f"data.cache={tmp_path / 'cache'}"]
    config = override(recipes.find("demo").config(), settings)
    run.mkdir()
    (run / "config.json").write_text(json.dumps({"recipe": "demo"}))
    with pytest.raises(InputError, match="no trained model"):
        study_rollouts(run, 2, 2)
    runner.train(config, tmp_path / "whole")
    capsys.readouterr()
    assert cli.main(["study", "rollouts", str(tmp_path / "whole"), "--depth", "3", "--rows", "4"]) == 0
    head, _, *rows = capsys.readouterr().out.splitlines()
    assert head == "| steps ahead | 1 | 2 | 3 |"
    names = [row.split(" | ")[0] for row in rows]
    assert names == ["| no change", "| rl/seed0", "| sft", "| control/seed0"]
    told = json.loads((tmp_path / "whole" / "studies" / "rollouts.json").read_text())
    assert told["sft"][0]["n"] == 2  # games
    assert {one["mean"] for one in told["sft"]} == {0.0}  # so small a model writes nothing that reads
    assert (tmp_path / "whole" / "studies" / "rollouts.png").read_bytes().startswith(b"\x89PNG")
