"""CEM and MPPI towards frames: a dot on a table whose moves are known, and the embedded PushT."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from rlvr_world import Outcome, recipes
from rlvr_world.config import Config, PlanConfig
from rlvr_world.diagnose.planning import _baselines, plan_run
from rlvr_world.errors import InputError
from rlvr_world.evaluation.report import planning_text
from rlvr_world.overrides import override
from rlvr_world.planning.reaching import Hand, as_recorded, drawing, reach, searching
from rlvr_world.recipes.tasks import Goal, Reach
from rlvr_world.runs import runner
from rlvr_world.runs.folder import models_of
from rlvr_world.sessions.imagined import Imagined
from rlvr_world.types import Asked, Streams

PARTS = np.array([1.0, 0.5, 1.0, 0.5, -0.2, 0.8, -0.2, 0.8], np.float32).reshape(2, 4)
"""Two actions of two parts each, as a hand did them."""


class Dots:
    """A dot of light on a table of 16 x 16: each part of an action moves it. ``gone``: steps after which it is lost."""

    render_mode, observation_space = "rgb_array", None
    action_space: Any = gym.spaces.Box(-1.0, 1.0, (4,), np.float32)

    def __init__(self, gone: int = 99) -> None:
        self.gone, self.asked = gone, 0

    def start(self, seed: int, options: Any) -> tuple[Any, dict[str, Any]]:
        return (6.0, 6.0), {}

    def read_action(self, given: Any) -> np.ndarray:
        assert np.shape(given) == (4,)
        return np.asarray(given)

    def advance(self, asked: Asked, streams: Streams) -> list[Outcome]:
        self.asked += 1
        assert len({*streams}) == len(asked)
        return [self._one(np.add(at, action.reshape(2, 2).sum(0))) for at, action in asked]

    def _one(self, at: np.ndarray) -> Outcome:
        return Outcome(at, info={"lost": "gone"} if self.asked > self.gone else {"places": [at]})

    def observe(self, state: Any) -> Any:
        return self.render(state)

    def render(self, state: Any) -> np.ndarray:
        y, x = np.mgrid[:16, :16]
        light = np.exp(-((x - state[0]) ** 2 + (y - state[1]) ** 2) / 8)
        return (255 * light[..., None].repeat(3, 2)).astype(np.uint8)

    def close(self) -> None: ...


def dot_goal() -> Goal:
    begun = np.array([[6.0, 6.0]])
    places = begun + PARTS.reshape(-1, 2).sum(0)
    return Goal("dot", (6.0, 6.0), Dots().render(places[0]), PARTS, begun, places, seed=3)


def go(hand: Hand, real: Dots | None = None, more: int = 0) -> Any:
    return reach(Reach(real or Dots(), lambda count, distances: [], hold=2), dot_goal(), hand, more)


@pytest.mark.parametrize("kind", ["cem", "mppi"])
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_search_brings_the_frame_about(kind: Any, depth: int) -> None:
    world = Dots()
    hand = searching(world, 2, PlanConfig(solver=kind, depth=depth), lambda state: state)
    trial = go(hand)
    assert trial.won
    assert trial.left < 0.15
    assert len(trial.actions) == trial.distance == 2
    assert [len(plan) for plan in trial.plans] == [min(depth, 2), 1]
    assert trial.asked == 64 * 3 * (min(depth, 2) + 1)
    assert all(action[:2] == action[2:] for action in trial.actions)  # parts are alike
    assert go(hand) == trial  # and may be done again


def test_more_steps_may_be_given() -> None:
    trial = go(searching(Dots(), 2, PlanConfig(depth=1), lambda state: state), more=2)
    assert len(trial.actions) == 4
    assert trial.left < 0.15


def test_no_round_is_begun_when_time_is_over() -> None:
    trial = go(searching(Dots(), 2, PlanConfig(seconds=1e-9), lambda state: state))
    assert trial.asked == 64 * (2 + 1)  # one round in place of three


@pytest.mark.parametrize("solver", ["cem", "mppi"])
@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_the_search_begins_with_what_was_meant_before(solver: Any, count: int) -> None:
    """One candidate is the mean itself: what was meant, then the middle of the bounds."""
    hand = searching(Dots(), 2, PlanConfig(solver=solver, candidates=1, rounds=2), lambda state: state)
    meant = np.array([[0.75, -0.25], [0.125, 0.5], [1.0, 1.0]])[:count].repeat(2, 0).reshape(-1, 4)
    actions, asked = hand((6.0, 6.0), dot_goal(), 2, meant, np.random.default_rng(0))
    assert actions.tolist() == [*meant[:2].tolist(), *[[0.0] * 4] * (2 - count)]
    assert asked == 2 * 2


def test_what_is_left_of_a_plan_is_where_the_next_search_begins() -> None:
    handed = list[list[list[float]]]()
    search = searching(Dots(), 2, PlanConfig(), lambda state: state)

    def hand(state: Any, goal: Goal, left: int, meant: np.ndarray, rng: Any) -> tuple[np.ndarray, int]:
        handed.append(meant.tolist())
        return search(state, goal, left, meant, rng)

    trial = go(hand, more=1)
    assert handed == [[], *[[*map(list, plan[1:])] for plan in trial.plans[:-1]]]
    assert [len(meant) for meant in handed] == [0, 2, 1]


def test_what_is_compared_with() -> None:
    recorded = go(as_recorded)
    assert (recorded.left, recorded.asked) == (pytest.approx(0, abs=1e-6), 0)
    assert go(as_recorded, more=1).actions[-1] == [0.0] * 4
    drawn = go(drawing(Dots.action_space, 2))
    assert drawn.left > 0.3
    assert not go(as_recorded, Dots(gone=0)).won  # the real world is gone: all of the way is left
    assert go(as_recorded, Dots(gone=0)).left == 1


def test_goals_of_pusht(tmp_path: Path) -> None:
    pytest.importorskip("gym_pusht", reason="needs gym-pusht: pip install 'rlvr-world[pusht]'")
    changes = ["data.frame_skip=5", "data.action_pool=1", "data.env.length=41", "data.env.size=16"]
    config = override(recipes.find("pusht").config(), [*changes, "data.height=16", "data.width=16"])
    [task] = recipes.find("pusht").tasks(config).values()
    assert isinstance(task, Reach)
    goals = task.goals(3, (2, 3))
    assert [goal.actions.shape for goal in goals] == [(2, 10), (3, 10), (2, 10)]
    for goal in goals:
        assert reach(task, goal, as_recorded, 0).left == pytest.approx(0, abs=1e-6)
        assert goal.frame.shape == (16, 16, 3)
        assert goal.begun.shape == goal.places.shape == (8, 2)
    with pytest.raises(InputError, match=r"plan\.distances: expected less than the 8 steps of an episode, got 8"):
        task.goals(1, (8,))
    task.real.close()


def test_a_run_plans_for_frames_in_its_models(tmp_path: Path) -> None:
    pytest.importorskip("gym_pusht", reason="needs gym-pusht: pip install 'rlvr-world[pusht]'")
    small = """threads=1 model.device=cpu model.layers=1 model.hidden=32 model.heads=2 sft.steps=2 sft.batch=4
    sft.eval_every=0 rl.steps=0 eval.rows=2 eval.valid_rows=2 data.env.episodes=24 data.env.length=41 data.env.size=16
    data.height=16 data.width=16 data.split.test=0.3 data.split.valid=0.3 data.lpips=none data.reward.lpips=0
    data.tokenizer.widths=16,16 data.tokenizer.groups=8 data.tokenizer.latent=8 data.tokenizer.steps=4
    data.tokenizer.batch=4 data.tokenizer.patch_width=16 data.tokenizer.save_every=4 data.tokenizer.eval_every=0
    plan.starts=2 plan.distances=1,2 plan.candidates=4 plan.rounds=1 plan.depth=2 plan.simulator=true"""
    config = override(recipes.find("pusht_steps").config(), [*small.split(), f"data.cache={tmp_path / 'cache'}"])
    runner.train(config, tmp_path / "run")
    plan_run(tmp_path / "run", config)
    file = tmp_path / "run" / "planning" / "goal-frames" / "sft.json"
    result = json.loads(file.read_text())
    assert [len(trial["actions"]) for trial in result["trials"]] == [1, 2]
    assert [trial["asked"] for trial in result["trials"]] == [4, 4 * 2 + 4]
    assert result["lower_is_better"] == ["left"]
    overall = result["slices"]["overall"]
    assert overall["baselines"]["as recorded"]["left"]["mean"] == pytest.approx(0, abs=1e-6)
    assert overall["baselines"]["random"]["left"]["mean"] > 0
    assert {*overall["baselines"]} == {"random", "as recorded", "simulator"}
    assert "what is left ↓" in planning_text(tmp_path / "run")
    made = file.stat().st_mtime_ns
    plan_run(tmp_path / "run", config)
    assert file.stat().st_mtime_ns == made  # what stands is not made again
    plan_run(tmp_path / "run", override(config, ["plan.seed=1"]))
    assert json.loads(file.read_text())["trials"] != result["trials"]
    assert_that_all_draw_within_the_data(config, tmp_path / "run")


def assert_that_all_draw_within_the_data(config: Config, run: Path) -> None:
    """Else a planner would look good beside random actions that are only wider than its own."""
    [task], model = recipes.find(config.recipe).tasks(config).values(), models_of(run)["sft"]
    space = Imagined(model).action_space
    assert (space.low > task.real.action_space.low).any()
    [goal] = task.goals(1, (1,))
    for name, planner in _baselines(task, config.plan, model):
        actions, _ = planner(goal.state, goal, 1, goal.actions[:0], np.random.default_rng(0))
        assert name == "as recorded" or ((space.low <= actions) & (actions <= space.high)).all(), name
    task.real.close()
