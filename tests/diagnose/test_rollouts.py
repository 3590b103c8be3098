"""How near imagined walks are: what counts as near, that the truth is not told, a run's answer in table and files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlvr_world import InputError, Outcome, cli, recipes
from rlvr_world.config import Config
from rlvr_world.diagnose import rollouts
from rlvr_world.diagnose.rollouts import imagined, nearness, study_rollouts
from rlvr_world.domains.scene import AnyText
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
    films = imagined(Adding(), walks, 5)  # type: ignore[arg-type]
    seen = [[step and step.observation for step in film] for film in films]
    assert seen == [["1", "2", "3"], ["2", "5"], ["4", None]]


def test_of_pages_it_is_told_how_often_the_end_was_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Buttons:
        """The third click ends an episode and, on pages of odd seeds, wins; the model says so of the second one."""

        action_space, observation_space, render_mode = AnyText(9), None, "ansi"

        def __init__(self, ends: int) -> None:
            self.ends = ends

        def start(self, seed: int, options: Any) -> Any:
            return options.get("state", {"observation": "0", "goal": str(seed % 2)}), {"commands": ["click [1]"]}

        def read_action(self, given: Any) -> Any:
            return given

        def advance(self, asked: Any, streams: Any) -> list[Outcome]:
            pages = [{**state, "observation": str(int(state["observation"]) + 1)} for state, _ in asked]
            over = [int(page["observation"]) >= self.ends for page in pages]
            told = {"commands": ["click [1]"]}
            return [Outcome(p, float(p["goal"]) * end, end, told) for p, end in zip(pages, over, strict=True)]

        def observe(self, state: Any) -> Any:
            return state

        def close(self) -> None: ...

    monkeypatch.setattr(rollouts.runner, "stored_config", lambda run: Config(recipe="miniwob-goals"))
    monkeypatch.setattr(type(recipes.find("miniwob-goals")), "real", lambda self, config: Buttons(3))
    monkeypatch.setattr(rollouts, "models_of", lambda run: {"sft": 3, "rl/seed0": 2})
    monkeypatch.setattr(rollouts, "Imagined", lambda ends, attempts: Buttons(ends))
    text = study_rollouts(tmp_path, 4, 4)
    assert "\n\noutcomes\n\n| steps ahead | 1 | 2 | 3 |\n" in text
    told = json.loads((tmp_path / "studies" / "rollouts-outcomes.json").read_text())
    means = {name: [one["mean"] for one in of] for name, of in told.items()}
    assert means == {"no change": [1, 1, 0], "sft": [1, 1, 1], "rl/seed0": [1, 0, 0], "rl - sft": [0, -1, -1]}


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
    assert names == [
        "| no change",
        "| rl/seed0",
        "| sft",
        "| control/seed0",
        "| rl - sft",
        "| control - sft",
        "| rl - control",
    ]
    told = json.loads((tmp_path / "whole" / "studies" / "rollouts.json").read_text())
    assert told["sft"][0]["n"] == 2  # games
    assert {one["mean"] for one in told["sft"]} == {0.0}  # so small a model writes nothing that reads
    assert (tmp_path / "whole" / "studies" / "rollouts.png").read_bytes().startswith(b"\x89PNG")
