"""Sessions in the embedded text world, real and imagined: the contract, named draws, forks, and what goes wrong."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from typing import Any

import pytest
from gymnasium.utils.env_checker import check_env

from rlvr_world import Imagined, InputError, Session, WorldModel, recipes
from rlvr_world.domains.scene import read_text, start_rows
from rlvr_world.models.loading import create_model
from rlvr_world.models.text_tokenizer import train_text_tokenizer
from rlvr_world.overrides import override
from rlvr_world.sampling.engine import Sampling
from rlvr_world.sessions.session import SessionClosed, SessionOver, step_together
from rlvr_world.sessions.vector import VectorSession
from rlvr_world.training.learner import Learner
from rlvr_world.types import Script, Streams, Transition, World, Written

pytest.importorskip("textworld", reason="its games come from TextWorld: pip install 'rlvr-world[textgame]'")

SETTINGS = """data.env.games=3 data.max_prompt=4000 data.max_response=8 model.hidden=16 model.layers=1 model.heads=2
model.device=cpu model.precision=float32"""
LOOK = '{"modified": [], "removed": [], "score": {}}'


class Told(WorldModel):
    """A model that answers what it is told to; it notes what it was asked for and under which names."""

    def answers(
        self, scripts: Sequence[Script], streams: Streams, sampling: Sampling, n: int = 1
    ) -> list[list[Written]]:
        self.asked.append((list(streams), sampling.temperature))
        said = [self.says(stream) for stream in streams]
        return [[[self.domain.tokenizer.encode(text)]] for text in said]


@pytest.fixture(scope="module")
def untrained() -> WorldModel:
    """A model of the demo with random weights: it writes nothing that reads."""
    config = override(recipes.find("demo").config(), SETTINGS.split())
    tokenizer = train_text_tokenizer([], 259)
    model = create_model(config.model, len(tokenizer), tokenizer, 0)
    learner = Learner(model, tokenizer, config.model, config.sft.optimizer, None)
    recipe = recipes.find("demo")
    return WorldModel(config, recipe, learner, recipe.domain(config, model, tokenizer, None))


@pytest.fixture
def told(untrained: WorldModel) -> Any:
    model = Told(untrained.config, untrained.recipe, untrained.learner, untrained.domain)
    vars(model).update(asked=[], says=lambda stream: LOOK)
    return model


def quest(session: Session, info: dict[str, Any]) -> list[str]:
    """Commands that win the real game from its start."""
    return session.world._game(info["game"]).plan


def test_the_worlds_keep_gymnasiums_contract(untrained: WorldModel, told: Any) -> None:
    for world in (untrained.real(), Imagined(untrained), Imagined(told)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", message=".*alternative render modes.*")
            check_env(Session(world, render_mode="ansi"))


def test_a_quest_is_won_in_the_real_game() -> None:
    session = Session(recipes.find("demo").real(recipes.find("demo").config()))
    _, info = session.reset(seed=2)
    plan = quest(session, info)
    *early, last = session.imagine([plan])[0][0]
    assert not any(step.terminated or step.reward for step in early)
    assert (last.reward, last.terminated, last.truncated, last.info["won"]) == (1.0, True, False, True)
    for command in plan:
        observation, *told = session.step(command)
    assert told[:3] == [1.0, True, False]
    assert json.loads(observation) == json.loads(last.observation)
    with pytest.raises(SessionOver, match="reset it"):
        session.step("look")


def test_an_action_that_is_none_leaves_the_state(untrained: WorldModel) -> None:
    for world in (untrained.real(), Imagined(untrained)):
        session = Session(world)
        before, _ = session.reset(seed=1)
        after, reward, terminated, truncated, info = session.step("fly to the moon")
        assert (after, reward, terminated, truncated) == (before, 0.0, False, False)
        assert "expected a command such as" in info["action_error"]
        with pytest.raises(InputError, match="expected a text"):
            session.step(7)
        assert session.steps == 1


def test_what_is_not_possible_now_is_none_in_the_real_game(untrained: WorldModel) -> None:
    session = Session(untrained.real())
    before, info = session.reset(seed=1)
    ever = Imagined(untrained).start(1, {})[1]["commands"]
    assert set(info["commands"]) < set(ever)
    after, *_, told = session.step(next(command for command in ever if command not in info["commands"]))
    assert after == before
    assert "action_error" in told


def test_an_answer_that_does_not_read_is_drawn_again_and_then_ends_the_episode(told: Any) -> None:
    vars(told).update(says=lambda stream: "nothing")
    session = Session(Imagined(told, attempts=3))
    before, _ = session.reset(seed=4)
    after, _, terminated, truncated, info = session.step("look")
    assert (after, terminated, truncated) == (before, False, True)
    assert info["malformed"] == "no JSON object in the answer"
    assert told.asked == [([(4, 0, 0, 0, 0)], 0.0), ([(4, 0, 0, 0, 1)], 1.0), ([(4, 0, 0, 0, 2)], 1.0)]
    vars(told).update(says=lambda stream: LOOK if stream[-1] == 1 else "nothing")
    session.reset(seed=4)
    assert "malformed" not in session.step("look")[-1]


def test_draws_are_named_whatever_they_are_asked_with(untrained: WorldModel) -> None:
    """With random weights each draw writes something else: the tokens say which draw it was."""
    drawn: dict[tuple[int, ...], Any] = {}

    class Noted(WorldModel):
        def answers(self, scripts: Any, streams: Streams, sampling: Sampling, n: int = 1) -> Any:
            found = super().answers(scripts, streams, sampling, n)
            drawn.update({stream: answer for stream, [answer] in zip(streams, found, strict=True)})
            return [[[self.domain.tokenizer.encode(LOOK)]] for _ in found]

    model = Noted(untrained.config, untrained.recipe, untrained.learner, untrained.domain)
    world = Imagined(model, temperature=1.0)
    one, two = Session(world), Session(world)
    one.reset(seed=1), two.reset(seed=2)
    one.imagine([["look", "inventory"], ["inventory", "look"]], n=2)
    together = dict(drawn)
    assert set(together) == {(1, step, plan, sample, 0) for step in (0, 1) for plan in (0, 1) for sample in (0, 1)}
    assert len({tuple(map(tuple, answer)) for answer in together.values()}) == 8
    drawn.clear()
    step_together([two, one], ["inventory", "look"])
    assert drawn[1, 0, 0, 0, 0] == together[1, 0, 0, 0, 0]
    assert drawn[2, 0, 0, 0, 0] != drawn[1, 0, 0, 0, 0]
    one.step("inventory")
    assert drawn[1, 1, 0, 0, 0] == together[1, 1, 0, 0, 0]


def test_an_action_is_text() -> None:
    assert read_text("take key") == "take key"
    for given in ("type [3] [\ud800]", "take\x00key", 3, "x" * 401):
        with pytest.raises(InputError, match="action"):
            read_text(given)


def test_a_row_is_asked_for_by_the_end_of_its_id() -> None:
    choose = start_rows(lambda: [Transition(f"rows:{n}", n, "", None) for n in range(3)])
    assert choose(0, {"row": ":2"}).state == 2
    with pytest.raises(InputError, match=r"got \[7\]"):
        choose(0, {"row": [7]})


def test_an_option_that_there_is_not_is_refused_with_those_that_there_are(untrained: WorldModel) -> None:
    for world in (untrained.real(), Imagined(untrained)):
        session = Session(world)
        assert session.reset(options={"game": 1})[1]["game"] == "house-0001"
        with pytest.raises(InputError, match="start: expected options out of state, game, got 'gmae'"):
            session.reset(options={"gmae": 1})


def test_a_fork_goes_its_own_way(untrained: WorldModel) -> None:
    session = Session(untrained.real())
    _, info = session.reset(seed=2)
    plan = quest(session, info)
    fork = session.fork(seed=9)
    assert fork.state is session.state
    assert session.step(plan[0])[0] == fork.step(plan[0])[0]
    before = session.world.observe(session.state)
    fork.step(plan[1])
    fork.close()
    assert session.world.observe(session.state) == before
    assert (session.seed, fork.seed) == (2, 9)


def test_a_model_goes_on_from_where_the_real_game_stands(told: Any) -> None:
    real, imagined = Session(told.real()), Session(Imagined(told))
    observation, info = real.reset(seed=2)
    assert imagined.reset(seed=2)[0] == observation
    observation = real.step(quest(real, info)[0])[0]
    for state in (real.state, observation, json.loads(observation), real.state.seen):
        seen, info = imagined.reset(seed=0, options={"state": state})
        assert json.loads(seen)["objects"] == json.loads(observation)["objects"]
    with pytest.raises(InputError, match=r"field state\.objects"):
        imagined.reset(options={"state": {"objects": 3}})
    with pytest.raises(InputError, match="its own states"):
        real.reset(options={"state": observation})


def test_episodes_end_at_the_horizon_and_sessions_when_closed(told: Any) -> None:
    session = Session(Imagined(told), horizon=2)
    with pytest.raises(SessionOver, match="has not begun"):
        session.step("look")
    session.reset(seed=0)
    assert [step.truncated for step in session.imagine([["look"] * 5])[0][0]] == [False, True]
    assert session.step("look")[3] is False
    assert session.step("look")[3] is True
    with pytest.raises(SessionOver):
        session.imagine([["look"]])
    session.close()
    for call in (session.reset, session.fork, lambda: session.step("look")):
        with pytest.raises(SessionClosed):
            call()
    for bad in ({"horizon": 0}, {"render_mode": "human"}):
        with pytest.raises(InputError):
            Session(session.world, **bad)  # type: ignore[arg-type]


def test_a_world_of_files_cannot_be_stepped() -> None:
    recipe = recipes.find("bytesized32")
    with pytest.raises(InputError, match="its rows come from files"):
        recipe.real(recipe.config())


def test_a_world_is_what_the_types_say(untrained: WorldModel) -> None:
    worlds: list[World] = [untrained.real(), Imagined(untrained)]
    for world in worlds:
        state, _ = world.start(0, {})
        assert world.observation_space.contains(world.observe(state))
        assert world.render(state)
        world.close()


def test_games_step_together(told: Any) -> None:
    envs = VectorSession(Imagined(told), 3)
    observations, infos = envs.reset(seed=0)
    assert len(set(observations)) == 3
    assert list(infos["game"]) == ["house-0009", "house-0019", "house-0029"]
    after, *_, infos = envs.step(("look", "fly", "inventory"))
    assert after == observations
    assert list(infos["_action_error"]) == [False, True, False]
    assert [len(streams) for streams, _ in told.asked] == [2]
