"""Sessions of ``rlvr-world serve`` as a ``gymnasium.vector.VectorEnv``. Knows neither LeRobot nor rlvr_world.

All sessions are asked at once, so that the server steps them in one batch of its model.
"""

from __future__ import annotations

import base64
import io
import json
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector.utils import batch_space
from PIL import Image


class ServedWorlds(gym.vector.VectorEnv):
    """``num_envs`` sessions of one world. One whose episode is over stays where it is until all are reset together:
    with seeds, which name the starts of the server's task."""

    def __init__(
        self, url: str, num_envs: int, world: str = "", token: str = "", steps: int = 300, fps: int = 10
    ) -> None:
        self.url, self.num_envs, self.world, self.token, self.steps = url.rstrip("/"), num_envs, world, token, steps
        self.names: list[str] = []
        self.seen: list[dict[str, np.ndarray]] = []
        self.task, self.over, self.won = "", np.ones(num_envs, bool), np.zeros(num_envs, bool)
        self._pool = ThreadPoolExecutor(num_envs)
        schema = self._ask("GET", f"/schema?world={world}" if world else "/schema")["action"]["prefixItems"]
        low, high = (np.float32([one.get(end, sign * np.inf) for one in schema]) for end, sign in ENDS)
        self.single_action_space = gym.spaces.Box(low, high)
        [told] = self._open([0])
        shapes = {name: value.shape for name, value in _read(told["observation"]).items()}
        self._close()
        boxes: dict[str, gym.Space[Any]] = {"pixels": gym.spaces.Box(0, 255, shapes["pixels"], np.uint8)}
        if "agent_pos" in shapes:
            boxes["agent_pos"] = gym.spaces.Box(-np.inf, np.inf, shapes["agent_pos"], np.float32)
        self.single_observation_space = gym.spaces.Dict(boxes)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.metadata = {"autoreset_mode": gym.vector.AutoresetMode.DISABLED, "render_fps": fps}
        self.render_mode = "rgb_array"

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of what is seen, by name, and of an ``action``."""
        seen = {name: tuple(space.shape or ()) for name, space in self.single_observation_space.spaces.items()}
        return {**seen, "action": tuple(self.single_action_space.shape or ())}

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Options, which are LeRobot's own, are left out."""
        self._close()
        first = int(np.random.default_rng().integers(2**31)) if seed is None else seed
        seeds = [first + i for i in range(self.num_envs)] if isinstance(first, int) else list(first)
        told = self._open(seeds)
        self.names, self.seen = [one["session_id"] for one in told], [_read(one["observation"]) for one in told]
        self.task = str(told[0]["info"].get("task", ""))
        self.over, self.won = np.zeros(self.num_envs, bool), np.zeros(self.num_envs, bool)
        return self._observations(), {}

    def step(self, actions: Any) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        live, rewards = np.flatnonzero(~self.over), np.zeros(self.num_envs)
        ended = self.over.copy()
        cut = np.zeros(self.num_envs, bool)
        given = [{"action": np.asarray(actions[i], float).tolist()} for i in live]
        paths = [f"/v1/sessions/{self.names[i]}/step" for i in live]
        for i, told in zip(live, self._pool.map(self._ask, ["POST"] * len(live), paths, given), strict=True):
            self.seen[i], rewards[i] = _read(told["observation"]), told["reward"]
            ended[i], cut[i] = told["terminated"], told["truncated"]
            self.won[i] = told["info"].get("is_success", False)
        self.over = ended | cut
        return self._observations(), rewards, ended, cut, {"is_success": self.won.copy()}

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """What LeRobot asks of each world."""
        if name == "render":
            return tuple(one["pixels"] for one in self.seen)
        known = {"_max_episode_steps": self.steps, "task": self.task, "task_description": self.task}
        if name not in known:
            raise AttributeError(name)
        return (known[name],) * self.num_envs

    def get_attr(self, name: str) -> tuple[Any, ...]:
        return self.call(name)

    def render(self) -> tuple[np.ndarray, ...]:
        return self.call("render")

    def close_extras(self, **kwargs: Any) -> None:
        self._close()
        self._pool.shutdown()

    def _open(self, seeds: list[int]) -> list[dict[str, Any]]:
        named = {"world": self.world} if self.world else {}
        given = [{"seed": int(seed), **named} for seed in seeds]
        told = list(self._pool.map(self._ask, ["POST"] * len(given), ["/v1/sessions"] * len(given), given))
        self.names = [one["session_id"] for one in told]
        return told

    def _close(self) -> None:
        names, self.names = self.names, []
        with suppress(OSError, RuntimeError):  # a server that is gone holds none
            list(self._pool.map(self._ask, ["DELETE"] * len(names), [f"/v1/sessions/{name}" for name in names]))

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        headers |= {"Authorization": f"Bearer {self.token}"} if self.token else {}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=600) as reply:
                text = reply.read()
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{self.url}{path}: {error.read().decode()[:300]}") from error
        except urllib.error.URLError as error:
            start = "start it: rlvr-world serve RUN --task NAME"
            raise RuntimeError(f"{self.url}: expected a server there, got {error.reason}; {start}") from error
        return json.loads(text) if text else None

    def _observations(self) -> dict[str, np.ndarray]:
        return {name: np.stack([one[name] for one in self.seen]) for name in self.single_observation_space.spaces}


ENDS = (("minimum", -1), ("maximum", 1))


def _read(observation: Any) -> dict[str, np.ndarray]:
    """``pixels`` uint8 [H, W, 3], and ``agent_pos`` float32 [P] where it is felt, as the server writes them."""
    seen = observation if isinstance(observation, dict) else {"pixels": observation}
    picture = Image.open(io.BytesIO(base64.b64decode(seen["pixels"].partition(",")[2])))
    found = {"pixels": np.asarray(picture.convert("RGB"))}
    return found | ({"agent_pos": np.float32(seen["agent_pos"])} if "agent_pos" in seen else {})
