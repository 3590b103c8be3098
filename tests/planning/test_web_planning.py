"""Planners on pages of MiniWoB in a real browser: what they are tried on and what is remembered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from rlvr_world import recipes
from rlvr_world.config import PlanConfig
from rlvr_world.diagnose.planning import plan_run
from rlvr_world.domains.web_page.config import miniwob_tasks
from rlvr_world.domains.web_page.envs import played
from rlvr_world.domains.web_page.envs.chromium import find_chromium
from rlvr_world.errors import InputError
from rlvr_world.overrides import override
from rlvr_world.planning.search import attempt, by_rule, looking_ahead, starts
from rlvr_world.recipes.tasks import Task
from rlvr_world.recipes.web_page import family
from rlvr_world.runs import runner
from rlvr_world.runs.world_model import WorldModel
from tests import tiny


def tasks(*settings: str) -> dict[str, Task]:
    recipe = recipes.find("miniwob-goals")
    return recipe.tasks(override(recipe.config(), settings))


@pytest.fixture
def browser() -> None:
    for module in ("miniwob", "playwright"):
        pytest.importorskip(module, reason="pip install 'rlvr-world[web]'")
    try:
        find_chromium("", "")
    except InputError as error:
        pytest.skip(str(error))


@pytest.fixture
def buttons(browser: None) -> Iterator[Task]:
    found = tasks("data.env.tasks=click-test-2,enter-text")["trained tasks"]
    yield found
    found.real.close()


def test_unseen_tasks_are_of_other_kinds_and_pages_of_other_seeds() -> None:
    assert not {family(task) for task in miniwob_tasks("goals")} & {family(task) for task in miniwob_tasks("unseen")}
    found = tasks()
    assert {name: tuple(task.starts) for name, task in found.items()} == {
        "trained tasks": miniwob_tasks("goals"), "unseen tasks": miniwob_tasks("unseen")
    }  # fmt: skip
    env = recipes.find("miniwob-goals").config().data.env
    assert all(task.seed > env.seed + env.episodes for task in found.values())
    assert [*tasks("data.unseen=")] == ["trained tasks"]
    plain = tasks("data.style=compact", "data.outcome_reward=right")
    assert plain == recipes.find("miniwob").tasks(recipes.find("miniwob").config()) == {}


def test_planners_act_on_real_pages_and_what_came_is_remembered(buttons: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    begin = played.begin
    monkeypatch.setattr(played, "begin", lambda *args: opened.append(args[2:]) or begin(*args))
    from_ = starts(buttons, 4, ())
    assert [(start.world, start.seed) for start in from_] == [
        (task, buttons.seed + turn) for turn in range(2) for task in ("click-test-2", "enter-text")
    ]
    first = from_[0].state
    assert "click [3]" in buttons.actions(first), "button ONE"
    assert buttons.actions(first) == buttons.actions(first)
    ahead = looking_ahead(buttons.real, buttons, PlanConfig(depth=1, goal="chance"), lambda at: at)
    rule = by_rule(buttons.rules["hand rule, in the goal's order"])
    trials = [attempt(buttons, start, rule, more=0) for start in from_]
    assert all(trial.won for trial in trials), "the goals name the button, or quote what to type and then name Submit"
    assert [len(trial.actions) for trial in trials if trial.world == "click-test-2"] == [1, 1]
    typed = next(trial for trial in trials if trial.world == "enter-text")
    assert len(set(typed.actions)) == len(typed.actions), "nothing is done twice"
    real = [attempt(buttons, start, ahead, more=0) for start in from_]
    assert [trial.won for trial in real if trial.world == "click-test-2"] == [True, True]
    before = len(opened)
    again: list[Any] = [attempt(buttons, start, ahead, more=0) for start in from_]
    assert json.dumps([asdict(trial) for trial in again]) == json.dumps([asdict(trial) for trial in real])
    assert len(opened) == before, "no page is opened for what is known"


def test_a_run_plans_on_pages_by_what_its_model_says(
    browser: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its model says, wrongly, that button ONE wins after TWO alone: so TWO is done, and loses."""
    small = f"""{tiny.MODEL} model.vocabulary=320 data.env.tasks=click-test-2,enter-text data.env.episodes=6
    data.env.steps=1 data.unseen= data.split.test=0.3 data.split.valid=0.2 data.max_response=8 sft.steps=1 sft.batch=2
    sft.pretrain_steps=0 sft.eval_every=0 rl.steps=0 eval.rows=1 eval.valid_rows=1 plan.starts=2"""
    config = override(recipes.find("miniwob-goals").config(), [*small.split(), f"data.cache={tmp_path}"])
    runner.train(config, tmp_path / "run")
    own, asked = WorldModel.answers, list[str]()

    def said(prompt: str) -> str:
        if "click @ button 'TWO'" in prompt:
            return "~@ focused: True\n=> goes on"
        return "none\n=> success" if "'TWO' focused: True" in prompt else "none\n=> failure"

    def answers(self: Any, scripts: Any, *how: Any) -> Any:
        assert len(own(self, scripts, *how)) == len(scripts)
        tokenizer, prompts = self.learner.tokenizer, [self.learner.tokenizer.decode(one.prompt) for one in scripts]
        asked.extend(prompts)
        return [[[tokenizer.encode(said(prompt), add_special_tokens=False)]] for prompt in prompts]

    monkeypatch.setattr(WorldModel, "answers", answers)
    plan_run(tmp_path / "run", config)
    result = json.loads((tmp_path / "run" / "planning" / "trained-tasks" / "sft.json").read_text())
    trial, typed = result["trials"]
    assert (trial["world"], trial["actions"], trial["won"]) == ("click-test-2", ["click [4]"], False)
    own_pages = ["Click Test Task" in prompt for prompt in asked]
    assert own_pages == [True] * trial["asked"] + [False] * typed["asked"], "each is asked about its own pages"
    assert trial["asked"] > 2, "both buttons, then what is left on the page that it imagines"
    rivals = {name: parts["success"] for name, parts in result["rows"]["baselines"].items()}
    assert {*rivals} == {"random", "most frequent", "hand rule", "hand rule, in the goal's order", "real world, 1 deep"}
    assert [rivals[name][0] for name in ("hand rule", "real world, 1 deep")] == [1.0, 1.0]
