"""Many sessions of one world as a ``gymnasium.vector.VectorEnv``, whose steps are one batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array, iterate

from rlvr_world.sessions.session import Session, step_together
from rlvr_world.types import World


class VectorSession(gym.vector.VectorEnv):
    """``num_envs`` sessions that step together; each comes to what it would come to alone.

    An episode that is over begins anew as ``autoreset`` says: in the next step (whose action is then left out), in the
    same step (``final_obs`` and ``final_info`` in the infos), or not at all: DISABLED leaves it where it is, with a
    reward of 0, until ``reset`` is called, with ``options={"reset_mask": bool [num_envs]}`` for some.
    """

    def __init__(
        self,
        world: World,
        num_envs: int = 1,
        horizon: int = 32,
        autoreset: AutoresetMode = AutoresetMode.NEXT_STEP,
    ) -> None:
        self.sessions = [Session(world, horizon, world.render_mode) for _ in range(num_envs)]
        self.num_envs, self.render_mode, self.autoreset = num_envs, world.render_mode, autoreset
        self.metadata = {**self.sessions[0].metadata, "autoreset_mode": autoreset}
        self.single_action_space, self.single_observation_space = world.action_space, world.observation_space
        self.action_space, self.observation_space = (
            batch_space(space, num_envs) for space in (world.action_space, world.observation_space)
        )
        self._seen: list[Any] = [None] * num_envs

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin episodes: with seed, seed + 1 and so on, with a list of seeds, or as each session's own draws say."""
        none: list[int | None] = [None] * self.num_envs
        seeds = [seed + i for i in range(self.num_envs)] if isinstance(seed, int) else list(seed or none)
        rest = dict(options or {})
        infos: dict[str, Any] = {}
        for i in map(int, np.flatnonzero(rest.pop("reset_mask", np.ones(self.num_envs, bool)))):
            self._seen[i], info = self.sessions[i].reset(seed=seeds[i], options=rest)
            infos = self._add_info(infos, info, i)
        return self._observations(), infos

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        rewards, (ended, cut) = np.zeros(self.num_envs), np.zeros((2, self.num_envs), bool)
        infos: dict[str, Any] = {}
        given = list(iterate(self.action_space, actions))
        live = [i for i, session in enumerate(self.sessions) if not session.over]
        if self.autoreset == AutoresetMode.NEXT_STEP:
            for i in set(range(self.num_envs)) - set(live):
                self._seen[i], info = self.sessions[i].reset()
                infos = self._add_info(infos, info, i)
        steps = step_together([self.sessions[i] for i in live], [given[i] for i in live])
        for i, step in zip(live, steps, strict=True):
            self._seen[i], rewards[i], ended[i], cut[i] = step[:4]
            info = dict(step.info)
            if step.over and self.autoreset == AutoresetMode.SAME_STEP:
                infos = self._add_info(infos, {"final_obs": step.observation, "final_info": info}, i)
                self._seen[i], info = self.sessions[i].reset()
            infos = self._add_info(infos, info, i)
        return self._observations(), rewards, ended, cut, infos

    def render(self) -> tuple[Any, ...]:
        return tuple(session.render() for session in self.sessions)

    def close_extras(self, **kwargs: Any) -> None:
        for session in self.sessions:
            session.close()

    def _observations(self) -> Any:
        room: Any = create_empty_array(self.single_observation_space, self.num_envs)
        return concatenate(self.single_observation_space, self._seen, room)
