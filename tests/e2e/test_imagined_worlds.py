"""A text game, pages and video as trained models imagine them: one interface, and each step what ``predict`` says."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from rlvr_world import Imagined, InputError, Malformed, Session
from rlvr_world.sessions.imagined import worlds_of
from rlvr_world.sessions.judged import Judged


def start(case: Any, row: Any = None, **how: Any) -> Session:
    session = Session(Imagined(case.world, **how), horizon=8)
    session.reset(seed=1, options={"row": (row or case.rows[0]).id})
    return session


def action_of(case: Any, row: Any) -> Any:
    return row.action[-2] if hasattr(row.state, "read") else row.action


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return bool(np.array_equal(one, other))


def test_it_keeps_gymnasiums_contract(case: Any) -> None:
    world = Imagined(case.world)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*alternative render modes.*")  # it has no id to be made by
        warnings.filterwarnings(
            "ignore", message=".*symmetric and normalized space.*"
        )  # actions are in the data's units
        check_env(Session(world, render_mode=world.render_mode))


def test_a_step_is_what_predict_says(case: Any) -> None:
    for row in case.rows:
        session = start(case, row, temperature=0.0, attempts=1)
        observation, _, _, truncated, info = session.step(action_of(case, row))
        after = case.world.predict(row.state, row.action)
        if isinstance(after, Malformed):
            assert info["malformed"] == after.reason
            assert truncated
        elif hasattr(after, "read"):
            assert np.array_equal(observation, after.read()[-1])
        else:
            assert getattr(session.state, "seen", session.state) == after


def test_futures_do_not_depend_on_what_is_asked_with_them(case: Any) -> None:
    session, action = start(case, temperature=1.0), action_of(case, case.rows[0])
    plans = [[action, action], [action], [action, action, action]]
    together = session.imagine(plans, n=3)
    alone = session.imagine(plans[:1])
    assert same(alone[0][0][-1].observation, together[0][0][len(alone[0][0]) - 1].observation)
    for step in together[0][0]:
        observation, reward, terminated, truncated, _ = session.step(action)
        assert same(observation, step.observation)
        assert (reward, terminated, truncated) == (step.reward, step.terminated, step.truncated)


def test_an_observation_is_a_state_to_start_from(case: Any) -> None:
    session = start(case)
    observation = session.world.observe(session.state)
    again, _ = session.fork().reset(seed=5, options={"state": observation})
    if isinstance(observation, str):  # who names a game as a row does?
        assert session.state.seen == session.world.start(0, {"state": observation})[0].seen
    assert same(again, observation)
    with pytest.raises(InputError):
        session.reset(options={"state": 7})
    with pytest.raises(InputError, match="start, row: expected the end of an id"):
        session.reset(options={"row": "nowhere"})


def test_what_is_no_action_leaves_the_page_and_stopping_ends_it(web: Any) -> None:
    session = start(web)
    before = session.world.observe(session.state)
    for action, words in (
        ("fly", "expected one of click"),
        ("click [99]", "no element [99]"),
        ("click 2", "click [id]"),
    ):
        after, *_, info = session.step(action)
        assert words in info["action_error"]
        assert after == before
    assert session.step("stop [done]")[2] is True


def test_frames_are_kept_as_tokens(video: Any) -> None:
    """A frame that was imagined is not encoded again, and what is shown is what its tokens decode to."""
    session, row = start(video), video.rows[0]
    layout = video.world.domain.layout
    for number in range(3):
        observation, *_ = session.step(row.action[0] * (number - 1))
    state = session.state
    assert len(state.frames) == layout.context
    assert observation.shape == (16, 16, 3)
    assert session.render_mode is None
    for action in (np.zeros(3), "push", [[0.0, 0.0]], [0.0, float("nan")]):
        with pytest.raises(InputError, match="expected 2 finite numbers"):
            session.step(action)
    with pytest.raises(InputError, match="window: expected the 1 of this model"):
        session.reset(options={"window": 3})


def test_a_judge_says_what_is_a_success(video: Any) -> None:
    asked = []

    def judge(frames: np.ndarray) -> np.ndarray:
        asked.append(frames.shape)
        return np.arange(len(frames)) == 1

    session = Session(Judged(Imagined(video.world), judge))
    session.reset(seed=0, options={"row": video.rows[0].id})
    action = video.rows[0].action[0]
    one, two = session.imagine([[action, action], [-action, action]])
    assert [(step.reward, step.terminated, step.info["is_success"]) for step in two[0]] == [(1.0, True, True)]
    assert [step.terminated for step in one[0]] == [False, False]
    assert asked == [(2, 16, 16, 3), (1, 16, 16, 3)]


def test_a_question_too_long_is_one_sentence(text: Any) -> None:
    config = replace(text.world.domain.config, max_prompt=3)
    model = replace(text.world, domain=type(text.world.domain)(config, text.world.domain.tokenizer, None))
    session = Session(Imagined(model))
    session.reset(seed=0)
    with pytest.raises(InputError, match=r"raise data\.max_prompt"):
        session.step("look")


def test_a_real_world_is_offered_only_where_there_is_one(text: Any, capsys: pytest.CaptureFixture[str]) -> None:
    worlds = worlds_of(str(text.run))
    assert "sft" in worlds
    assert "real" not in worlds
    assert "no real world: recipe bytesized32: its rows come from files" in capsys.readouterr().err
    assert worlds["sft"]().start(0, {})[0] is not None
    with pytest.raises(InputError, match="nowhere"):  # at once, and not when somebody plays
        worlds_of(str(text.run / "nowhere"))
