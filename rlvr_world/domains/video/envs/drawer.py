"""A robot arm opens or closes a drawer: Meta-World (MIT), played by experts, worse hands and random ones.

A frame every ``hold`` simulator steps of 0.0125 s; an action is held that long. It is Meta-World's: the hand's move
(x, y, z) and the gripper's effort, each in [-1, 1]. Proprioception is the hand's place (m) and how open the gripper is.
Even episodes begin with the drawer shut and are to open it, odd ones the other way round.
Shape legend: T frames, H height, W width, A = 4 action, P = 4 proprioception.
"""

from __future__ import annotations

import atexit
from collections.abc import Iterator
from itertools import count
from typing import Any

import numpy as np

from rlvr_world.domains.video.envs.specs import DrawerSpec
from rlvr_world.domains.video.envs.table import Filmed, headless

FORMAT = "3"  # part of the cache's key: raise it when the same spec gives other episodes
_FREE: dict[tuple[str, int], list[tuple[Any, Filmed]]] = {}  # simulators: to make one takes longer than an episode
_BACK, _UP = np.eye(3)[1:]  # away from who sits before the drawer


def _hand(drawer: Drawer, spec: DrawerSpec, rng: np.random.Generator) -> tuple[str, Iterator[np.ndarray]]:
    """Whose it is, and its actions without end: in two of seven episodes an expert's, in two that of one who mistakes
    where the handle is, else the other task's expert's, a random one, or one that changes. A model that saw no failure
    imagines success; one that saw no near miss imagines it of whoever comes near."""
    kind = str(rng.choice(["expert", "expert", "near", "near", "wrong", "random", "switch"]))
    aside = rng.normal(0, 0.04, 3) * (kind == "near")  # m
    noise, bias = rng.uniform(0, spec.noise), rng.normal(0, 0.25, 4) * (rng.random() < 0.5)
    turn, wild = int(rng.integers(spec.length // 8, spec.length)), rng.random() < 0.5  # of one who switches
    drift, waits = rng.uniform(-1, 1, 4), rng.random() < 0.5

    def act(t: int) -> np.ndarray:
        nonlocal drift
        if t == 0 and waits:
            return np.zeros(4, np.float32)
        if rng.random() < 0.25:
            drift = rng.uniform(-1, 1, 4)
        turned = kind == "switch" and t >= turn
        task = {"open": "close", "close": "open"}[drawer.task] if kind == "wrong" or turned else drawer.task
        astray = kind == "random" or (turned and wild)
        wanted, spread = (drift, 0.2) if astray else (drawer.expert(task, aside) + bias, noise)
        return np.clip(wanted + rng.normal(0, spread, 4), -1, 1).astype(np.float32)

    return kind, map(act, count())


class Drawer:
    """The drawer of an episode, and the arm that moves it. ``hand``: actions without end, float32 [A], each for where
    the arm is when it is asked for."""

    def __init__(self, spec: DrawerSpec, episode: int, rng: np.random.Generator) -> None:
        self.task, self.hold, self.size = [*spec.tasks][episode % len(spec.tasks)], spec.hold, spec.size
        self._free, self.won, self._plain = _FREE.setdefault((self.task, spec.size), []), True, list[Any]()
        self.env, self._camera = self._free.pop() if self._free else _made(self.task, spec.size)
        box = self.env._random_reset_space
        while self.won:  # a task that is done at its start is none
            self.env._last_rand_vec = rng.uniform(box.low, box.high)
            self.state, _ = self.env.reset()
            away = np.append(rng.uniform([-1, -0.8, -0.3], [1, 0.2, 1]), 0.0)  # the hand begins elsewhere
            self.act(away, int(rng.integers(1, 13)))
            self.act(np.zeros(4))  # at rest: what was before the first frame was the same
        self._kind, self.hand = _hand(self, spec, rng)

    def picture(self) -> np.ndarray:
        """uint8 [H, W, 3]: of a picture half as large again what hand and drawer fill."""
        top, left = round(5 / 32 * self.size), round(15 / 32 * self.size)
        return self._camera.picture()[::-1, ::-1][top:, left:][: self.size, : self.size]

    def repaint(self) -> None:
        """From now on colours, light and view are others, as in a simulator that was built after a real scene."""
        model = self.env.model
        self._plain = [(one, one.copy()) for one in (model.mat_rgba, model.light_diffuse, model.cam_fovy)]
        model.mat_rgba[:, :3] = np.clip(model.mat_rgba[:, :3] * [0.75, 0.95, 1.2], 0, 1)
        model.light_diffuse *= 0.8
        model.cam_fovy -= 4.0  # degrees

    def felt(self) -> np.ndarray:
        return self.state[:4]

    def places(self) -> np.ndarray:
        """float [1, 1]: how far the drawer is open (m)."""
        return np.array([[self.opened]])

    def told(self) -> dict[str, Any]:
        """``proprio`` [P]; ``measure``, how far the drawer is open (m), and ``success``, whether that is what the task
        wants; ``expert`` [A], what an expert would do, and ``demo``, whether it is one who acts."""
        measured = {"proprio": self.felt(), "measure": self.opened, "success": self.won}
        return {**measured, "expert": self.expert(self.task), "demo": self._kind == "expert"}

    def act(self, action: np.ndarray, steps: int = 0) -> None:
        for _ in range(steps or self.hold):
            self.state, _, _, _, info = self.env.step(np.clip(action, -1, 1).astype(np.float32))
        self.reward, self.won = float(info["success"]), bool(info["success"])
        self.opened = float(-self.env.data.joint("goal_slidey").qpos[0])  # m

    def expert(self, task: str, aside: Any = 0.0) -> np.ndarray:
        """What to do now for a task, float32 [A]: as Meta-World's own scripts, at the pace of held actions, for one to
        whom the handle is ``aside`` of where it is (m [3])."""
        hand, handle = self.state[:3], self.state[4:7] - _UP * 0.02 + aside
        handle[2] += 0.05 * ((task == "close") - (self.task == "close"))  # they name other points of it
        to, effort = (_to_close(hand, handle), 1.0) if task == "close" else (_to_open(hand, handle), -1.0)
        pace = 50.0 if task == "open" and to[1] < handle[1] else 70 / self.hold
        return np.append(np.clip(pace * (to - hand), -1, 1), effort).astype(np.float32)

    def close(self) -> None:
        for changed, plain in self._plain:
            changed[:] = plain
        self._free.append((self.env, self._camera))


def _to_open(hand: np.ndarray, handle: np.ndarray) -> np.ndarray:  # above the handle, down behind it, then back
    if np.linalg.norm(hand[:2] - handle[:2]) > 0.06:
        low = hand[2] < handle[2] + 0.12 and hand[1] > handle[1] - 0.02  # the drawer is in the way
        return np.array([*hand[:2], handle[2] + 0.25]) if low else handle + _UP * 0.2
    return handle if abs(hand[2] - handle[2]) > 0.04 else handle - _BACK * 0.06


def _to_close(hand: np.ndarray, handle: np.ndarray) -> np.ndarray:  # over to the drawer's front, down, then on
    front = handle - _BACK * 0.075
    if hand[1] > handle[1]:
        return np.array([*hand[:2], handle[2] + 0.5]) if hand[2] < handle[2] + 0.23 else front + _UP * 0.23
    return front if abs(hand[2] - handle[2]) > 0.04 else handle


def _made(task: str, size: int) -> tuple[Any, Filmed]:
    """A simulator, and Meta-World's corner camera, nearer (it hangs upside down)."""
    headless()
    import mujoco
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE

    made: Any = ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE[f"drawer-{task}-v3-goal-observable"]
    env = made(seed=0)
    env._freeze_rand_vec, env.max_path_length = True, 10**6  # where the drawer stands is set by hand
    env.model.vis.quality.shadowsize = env.model.vis.quality.offsamples = 0  # both are very slow without a GPU
    env.model.camera("corner4").fovy = 46.0
    env.model.site_rgba[:, 3] = 0  # the dot at the goal is no part of the world
    filmed = Filmed(env.model, env.data, "corner4", size * 3 // 2, fine=2)
    for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
        filmed.renderer.scene.flags[flag] = 0
    atexit.register(filmed.close)  # before the graphics driver goes, which was imported above
    return env, filmed
