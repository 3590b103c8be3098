"""Sessions that step together: Gymnasium's vector interface, its autoreset modes, and that neighbours do not matter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from rlvr_world import InputError, Outcome, Session
from rlvr_world.sessions.vector import VectorSession
from rlvr_world.types import Asked, Streams


class Counting:
    """A state is a number to which an action adds; at 10 and above the episode has ended."""

    action_space = gym.spaces.Discrete(5)
    observation_space = gym.spaces.Box(0, 255, (1,), np.int64)
    render_mode = "ansi"

    def __init__(self) -> None:
        self.batches: list[int] = []

    def start(self, seed: int, options: Mapping[str, Any]) -> tuple[int, Mapping[str, Any]]:
        return options.get("state", seed % 5), {"seed": seed}

    def read_action(self, given: Any) -> int:
        if not 0 <= int(given) < 5:
            raise InputError(f"action: expected 0 to 4, got {given}")
        return int(given)

    def advance(self, asked: Asked, streams: Streams) -> list[Outcome]:
        self.batches.append(len(asked))
        return [
            Outcome(state + action, float(action), state + action >= 10, {"stream": stream})
            for (state, action), stream in zip(asked, streams, strict=True)
        ]

    def observe(self, state: int) -> np.ndarray:
        return np.array([state])

    def render(self, state: int) -> str:
        return str(state)

    def close(self) -> None: ...


def test_each_is_as_if_it_were_alone() -> None:
    world = Counting()
    envs = VectorSession(world, 3, horizon=4)
    observations, infos = envs.reset(seed=2)
    assert observations.tolist() == [[2], [3], [4]]
    assert infos["seed"].tolist() == [2, 3, 4]
    alone = Session(world, horizon=4)
    alone.reset(seed=3)
    for action in (1, 0, 2):
        observations, rewards, ended, cut, infos = envs.step(np.array([0, action, 4]))
        expected = alone.step(action)
        assert (observations[1], rewards[1], ended[1], cut[1]) == expected[:4]
        assert infos["stream"][1] == expected[4]["stream"]
    assert envs.observation_space.contains(observations)
    assert envs.render() == ("2", "6", str(observations[2][0]))
    assert world.batches[0] == 3


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_what_is_over_begins_anew_as_the_mode_says(mode: AutoresetMode) -> None:
    envs = VectorSession(Counting(), 2, horizon=9, autoreset=mode)
    assert envs.metadata["autoreset_mode"] == mode
    envs.reset(options={"state": 7})
    observations, rewards, ended, _, infos = envs.step(np.array([3, 0]))
    assert (rewards.tolist(), ended.tolist()) == ([3.0, 0.0], [True, False])
    if mode == AutoresetMode.SAME_STEP:
        assert infos["final_obs"][0] == [10]
        assert infos["final_info"]["stream"][0][1] == 0
        assert observations[0] < 5
        assert envs.step(np.array([1, 0]))[1].tolist() == [1.0, 0.0]
        return
    assert observations[0] == 10
    observations, rewards, ended, _, infos = envs.step(np.array([4, 1]))
    assert (rewards.tolist(), ended.tolist()) == ([0.0, 1.0], [False, False])
    assert observations[1] == 8
    if mode == AutoresetMode.NEXT_STEP:
        assert observations[0] == infos["seed"][0] % 5
        return
    assert observations[0] == 10
    mask = np.array([True, False])
    observations, _ = envs.reset(seed=[4, 4], options={"reset_mask": mask})
    assert observations.tolist() == [[4], [8]]


def test_episodes_without_a_seed_go_by_the_first_one() -> None:
    def seeds() -> list[int]:
        envs = VectorSession(Counting(), 2, horizon=1)
        envs.reset(seed=5)
        found = [envs.step(np.array([0, 0]))[4] for _ in range(4)]
        return [seed for infos in found if "seed" in infos for seed in infos["seed"].tolist()]

    assert seeds() == seeds()
    assert len(set(seeds())) == 4


def test_a_wrong_action_moves_nobody() -> None:
    envs = VectorSession(Counting(), 2)
    envs.reset(seed=0)
    with pytest.raises(InputError, match="0 to 4"):
        envs.step(np.array([1, 7]))
    assert [session.steps for session in envs.sessions] == [0, 0]
    envs.close()
    assert all(session.closed for session in envs.sessions)
