"""Planners on a number line whose shortest ways are known, and on the embedded text games."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from rlvr_world import Outcome, recipes
from rlvr_world.config import PlanConfig
from rlvr_world.errors import InputError
from rlvr_world.overrides import override
from rlvr_world.planning.search import (
    Remembered,
    Start,
    Trial,
    at_random,
    attempt,
    beam_search,
    by_rule,
    distance,
    looking_ahead,
    replay,
    starts,
    without_model,
)
from rlvr_world.recipes.tasks import Task
from rlvr_world.types import Asked, Streams

GOAL = 13


class Line:
    """Numbers: one more, or twice as much. ``wrong`` are pairs after which it says nothing that can be read; with
    ``slips`` it is off by one in every other sample."""

    action_space = observation_space = None
    render_mode = "ansi"

    def __init__(self, wrong: set[tuple[int, str]] = frozenset(), slips: bool = False) -> None:  # type: ignore[assignment]
        self.wrong, self.slips = wrong, slips
        self.asked: list[tuple[int, str]] = []
        self.streams: list[tuple[int, ...]] = []

    def start(self, seed: int, options: Any) -> tuple[int, dict[str, Any]]:
        return options.get("state", options.get("first", 1)), {}

    def read_action(self, given: Any) -> Any:
        return given

    def advance(self, asked: Asked, streams: Streams) -> list[Outcome]:
        self.asked += asked
        self.streams += streams
        return [self._one(*pair, stream) for pair, stream in zip(asked, streams, strict=True)]

    def _one(self, state: int, action: str, stream: tuple[int, ...]) -> Outcome:
        if (state, action) in self.wrong:
            return Outcome(state, info={"malformed": "nobody can read it"})
        after = (state + 1 if action == "more" else 2 * state) + (self.slips and stream[-1] % 2)
        return Outcome(after, float(after == GOAL), after >= GOAL)

    def observe(self, state: int) -> int:
        return state

    def render(self, state: int) -> str:
        return str(state)

    def close(self) -> None: ...


def line(real: Line | None = None) -> Task:
    """From 12 the goal is one action away; between the two worlds nothing differs but the start."""
    begin = {"low": {"first": 1}, "high": {"first": 4}}
    return Task(real or Line(), begin, lambda at: ("more", "twice"), lambda at: "more" if at == GOAL - 1 else None)


def plan(world: Any, at: int, beam: PlanConfig | None = None) -> Any:
    return beam_search(world, at, line(), beam or PlanConfig(), random.Random(0))


def kept(trial: Trial) -> Trial:
    """As a run's file has it."""
    return Trial(**json.loads(json.dumps(asdict(trial))))


def test_the_shortest_plan_is_found_as_deep_as_it_looks() -> None:
    assert plan(Line(), 3).actions == ("twice", "twice", "more")
    assert plan(Line(), 3, PlanConfig(depth=2)).found, "the action that reaches the goal lies one beyond the depth"
    short = plan(Line(), 3, PlanConfig(depth=1))
    assert (short.found, len(short.actions), short.asked) == (False, 1, 2)
    assert plan(Line(), 12).asked == 0, "what can be seen without a model is not asked"


def test_a_goal_read_from_the_score_takes_the_world_at_its_word() -> None:
    assert plan(Line(), 3, PlanConfig(goal="score")).actions == ("twice", "twice", "more")
    assert plan(Line(), 12, PlanConfig(goal="score", depth=1)).asked == 2
    assert not plan(Line(), 3, PlanConfig(goal="score", depth=2)).found


def test_no_depth_is_begun_when_time_is_over() -> None:
    over, ample = PlanConfig(seconds=1e-9), PlanConfig(seconds=60)
    short = plan(Line(), 3, over)
    assert (short.found, short.asked) == (False, 2), "the first depth is always looked at"
    assert plan(Line(), 3, ample) == plan(Line(), 3)
    assert plan(Line(), 6, over).actions == ("twice", "more"), "a goal that it has come by is taken"


def test_what_cannot_be_read_leads_nowhere() -> None:
    assert plan(Line(wrong={(3, "twice"), (5, "more")}), 3, PlanConfig(depth=2)).actions == ("more",), "by 4 to 5 and 8"
    lost = plan(Line(wrong={(3, "twice"), (3, "more")}), 3)
    assert (lost.found, lost.asked, len(lost.actions)) == (False, 2, 1)


class Traps(Line):
    """It says that the episode is over where the goal is one action away."""

    def _one(self, state: int, action: str, stream: tuple[int, ...]) -> Outcome:
        outcome = super()._one(state, action, stream)
        return Outcome(outcome.state, 0.0, outcome.terminated or outcome.state == GOAL - 1)


def test_no_plan_goes_on_from_an_end() -> None:
    assert plan(Line(), 6, PlanConfig(depth=1)).found
    assert not plan(Traps(), 6, PlanConfig(depth=1)).found


def test_of_samples_the_plan_that_most_agree_on() -> None:
    found = plan(Line(slips=True), 5, PlanConfig(samples=3))
    assert found.actions == ("twice", "more", "more"), "12 by 10 or 11 in three samples, by 6 in two"
    assert plan(Line(), 5, PlanConfig(samples=3)).actions == ("more", "twice", "more"), "12 by 6 in all"


def test_a_world_that_remembers_is_asked_once() -> None:
    world = Line()
    memory = Remembered(world)
    first, again = plan(memory, 3), plan(memory, 3)
    assert first == again
    assert len(world.asked) == len(set(world.asked))
    assert memory.advance([(3, "more"), (3, "more")], [(0,), (1,)]) == [Outcome(4)] * 2


def test_a_beam_that_looks_at_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="width: expected at least 1, got 0"):
        PlanConfig(width=0)


def test_starts_are_as_far_as_they_say_and_of_each_world() -> None:
    found = starts(line(), 6, (2, 3))
    assert {start.world for start in found} == {"low", "high"}
    for start in found:
        assert start.distance == distance(line(), Line(), start.state, 6) in (2, 3)
        state = {"low": 1, "high": 4}[start.world]
        for action in start.actions:
            state = state + 1 if action == "more" else 2 * state
        assert state == start.state
    assert found == starts(line(), 6, (2, 3)), "walks are seeded"
    assert distance(line(), Line(), 1, 2) is None


def test_a_trial_says_what_was_done_and_can_be_done_again() -> None:
    task, start = line(), Start("low", ("more", "more"), 3, 3)
    trial = attempt(task, start, looking_ahead(Line(), task, PlanConfig(), lambda at: at), more=1)
    assert (trial.won, trial.actions, trial.plans[0]) == (True, ("twice", "twice", "more"), ("twice", "twice", "more"))
    assert replay(task, kept(trial))
    assert not replay(task, replace(trial, actions=("more",)))


def test_planners_without_a_model() -> None:
    task = line()
    near, far = Start("low", (), 1, 12), Start("low", (), 5, 1)
    assert attempt(task, near, without_model(task), 0).won
    tries = [attempt(task, near, at_random(task), 0, seed).won for seed in range(40)]
    assert 0.2 < sum(tries) / len(tries) < 0.8
    assert attempt(task, far, at_random(task), 1, seed=3) == attempt(task, far, at_random(task), 1, seed=3)
    stuck = Task(Line(), task.starts, lambda at: (), lambda at: None)
    assert attempt(stuck, far, at_random(stuck), 1).actions == (), "nothing can be done"


@pytest.mark.parametrize("rooms", [2, 4])
def test_a_textworld_state_admits_what_the_game_admits(rooms: int) -> None:
    pytest.importorskip("textworld", reason="its games come from TextWorld: pip install 'rlvr-world[textgame]'")
    from rlvr_world.domains.text_game.config import TextWorldSpec
    from rlvr_world.domains.text_game.envs.textworld import Game, afforded
    from rlvr_world.domains.text_game.rows import GameState

    for number in range(3):
        game = Game(TextWorldSpec(rooms=rooms, objects=6), random.Random(number))
        for facts, _, moves in game.walk(random.Random(number), visits=30):
            objects = game.objects(facts)
            assert afforded(game, GameState(tuple(objects), {}, 0)) == sorted(moves)
        objects[0] = {**objects[0], "contains": [*objects[0]["contains"], "a thing of another game"]}
        assert afforded(game, GameState(tuple(objects), {}, 0)), "what the game does not have is passed over"


def test_the_real_world_as_its_own_model_wins_the_games(tmp_path: Path) -> None:
    pytest.importorskip("textworld", reason="its games come from TextWorld: pip install 'rlvr-world[textgame]'")
    config = override(recipes.find("demo").config(), ["data.env.games=4"])
    tasks = recipes.find("demo").tasks(config)
    assert set(tasks["trained games"].starts).isdisjoint(tasks["unseen games"].starts)
    for task in tasks.values():
        from_ = starts(task, 8, (2, 3))
        assert len({start.world for start in from_}) == 4
        own = looking_ahead(Remembered(task.real), task, PlanConfig(), lambda at: at)
        trials = [attempt(task, start, own, more=1) for start in from_]
        assert all(trial.won and len(trial.actions) == trial.distance for trial in trials)
        assert all(replay(task, kept(trial)) for trial in trials)


WINS = {("start", "half"): 0.5, ("start", "never"): 0.0, ("hall", "always"): 1.0, ("hall", "never"): 0.0}


class Doors:
    """Three doors and a hall behind one: a door wins in some of the samples, as the world has it."""

    action_space = observation_space = None
    render_mode = "ansi"

    def start(self, seed: int, options: Any) -> tuple[Any, dict[str, Any]]:
        return options.get("state", options.get("at")), {}

    def read_action(self, given: Any) -> Any:
        return given

    def advance(self, asked: Asked, streams: Streams) -> list[Outcome]:
        return [self._one(*pair, stream[-1]) for pair, stream in zip(asked, streams, strict=True)]

    def _one(self, at: str, action: str, sample: int) -> Outcome:
        if action == "on":
            return Outcome("hall" if at == "start" else at, info={"changed": at == "start"})
        return Outcome(at, float(sample % 4 < 4 * WINS[at, action]), True)

    def observe(self, state: Any) -> Any:
        return {"seen": state}  # not hashable, as pages are not

    def close(self) -> None: ...


def doors(real: Any = None) -> Task:
    """Episodes of three actions whose way to the goal nobody knows."""
    actions = {"start": ("never", "half", "on"), "hall": ("never", "always", "on")}
    rules = {"first": lambda at: actions[at][0], "nothing": lambda at: None}
    begin = {"near": {"at": "hall"}, "far": {"at": "start"}}
    return Task(real or Doors(), begin, actions.__getitem__, rules=rules, horizon=3, seed=7)


def likeliest_from(at: str, **settings: Any) -> Any:
    beam = PlanConfig(**{"goal": "chance", "samples": 4, **settings})
    return looking_ahead(Doors(), doors(), beam, lambda state: state)(at, random.Random(0), ())


def test_the_action_is_taken_from_which_a_win_is_likeliest() -> None:
    assert likeliest_from("start", depth=1).actions == ("half",), "0.5, and 0.45 for what goes on"
    deep = likeliest_from("start", depth=2)
    assert (deep.actions, deep.asked) == (("on",), 24), "0.9 behind the hall"
    assert likeliest_from("hall", depth=1).actions == ("always",), "going on in the hall changes nothing"
    assert likeliest_from("start", depth=2, width=1).actions == ("on",)
    nothing = Task(Doors(), {}, lambda at: ())
    assert looking_ahead(Doors(), nothing, PlanConfig(goal="chance"), str)("start", random.Random(0), ()) is None


def test_no_depth_of_chances_is_begun_when_time_is_over() -> None:
    short = likeliest_from("start", depth=2, seconds=1e-9)
    assert (short.actions, short.asked) == (("half",), 12), "as with depth 1"
    assert likeliest_from("start", depth=2, seconds=60).actions == ("on",)


def test_episodes_start_where_no_way_is_known() -> None:
    task = doors()
    found = starts(task, 3, (2,))
    assert [(one.world, one.seed, one.distance) for one in found] == [("near", 7, 0), ("far", 7, 0), ("near", 8, 0)]
    ahead = looking_ahead(Doors(), task, PlanConfig(goal="chance", samples=4), lambda at: at)
    trials = [attempt(task, start, ahead, more=0) for start in found]
    assert [(one.won, one.actions, one.seed) for one in trials] == [
        (True, ("always",), 7), (True, ("on", "always"), 7), (True, ("always",), 8)
    ]  # fmt: skip
    assert [attempt(task, found[1], by_rule(rule), 0).actions for rule in task.rules.values()] == [("never",), ()]
    assert replay(task, kept(trials[1]))


def test_what_is_seen_need_not_be_hashable() -> None:
    world = Remembered(Doors())
    for goal, first in (("chance", "half"), ("score", "half"), ("state", None)):
        beam = PlanConfig(depth=2, goal=goal)  # type: ignore[arg-type]
        found = looking_ahead(world, doors(), beam, lambda at: at)("start", random.Random(0), [{"seen": "hall"}])
        assert found is not None
        assert first in (None, found.actions[0]), goal
