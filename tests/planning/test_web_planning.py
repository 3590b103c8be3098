"""Planners on pages of MiniWoB in a real browser: what they are tried on and what is remembered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from importlib.util import find_spec
from typing import Any

import pytest

from rlvr_world import recipes
from rlvr_world.config import PlanConfig
from rlvr_world.domains.web_page.config import miniwob_tasks
from rlvr_world.domains.web_page.envs import played
from rlvr_world.overrides import override
from rlvr_world.planning.search import attempt, by_rule, looking_ahead, starts
from rlvr_world.recipes.tasks import Task
from rlvr_world.recipes.web_page import family


def tasks(*settings: str) -> dict[str, Task]:
    recipe = recipes.find("miniwob-goals")
    return recipe.tasks(override(recipe.config(), settings))


@pytest.fixture
def buttons() -> Iterator[Task]:
    if find_spec("playwright") is None:
        pytest.skip("the extra web is not installed")
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
