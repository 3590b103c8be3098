"""A robot arm opens or closes a drawer: Meta-World (MIT) and its scripted experts, with noise on their actions.

Meta-World asks for its own version of MuJoCo, so it needs an environment of its own (extra ``metaworld``). An action
is Meta-World's: the hand's move (x, y, z) and the gripper's effort, each in [-1, 1]. Proprioception is the hand's
place (m) and how open the gripper is.
Shape legend: T frames, H height, W width, A = 4 action, P = 4 proprioception.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rlvr_world.domains.video.envs.specs import DrawerSpec
from rlvr_world.domains.video.envs.table import Filmed, headless

FORMAT = "1"  # part of the cache's key: raise it when the same spec gives other episodes
_CAMERA, _VIEW = "corner4", 46.0  # degrees: the drawer and the hand fill the picture


def play(spec: DrawerSpec, episode: int) -> dict[str, np.ndarray]:
    """One episode: ``image`` uint8 [T, H, W, 3], ``action`` float32 [T, A], ``proprio`` float32 [T, P] and ``success``
    bool [T], whether the drawer is where the task wants it in that frame.
    """
    rng = np.random.default_rng((spec.seed, episode))
    drawer = Drawer(spec, episode, rng)
    noise = rng.uniform(0, spec.noise)
    bias = rng.normal(0, noise, 4)  # the hand ends beside where it wants to be: some episodes fail
    images, actions, proprio, success = [], [], [], [False]
    for _ in range(spec.length):
        wanted = drawer.expert.get_action(drawer.state)
        action = np.clip(wanted + bias + rng.normal(0, noise, 4), -1, 1).astype(np.float32)
        images.append(drawer.picture())
        actions.append(action)
        proprio.append(drawer.felt())
        drawer.act(action)
        success.append(drawer.won)
    drawer.close()
    return {
        "image": np.stack(images),
        "action": np.stack(actions),
        "proprio": np.array(proprio, np.float32),
        "success": np.array(success[: spec.length]),
    }


class Drawer:
    """The drawer of an episode, and the arm that moves it."""

    def __init__(self, spec: DrawerSpec, episode: int, rng: np.random.Generator) -> None:
        headless()
        from metaworld.env_dict import ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE
        from metaworld.policies import ENV_POLICY_MAP

        task = ("open", "close")[episode % 2] if spec.task == "both" else spec.task
        name = f"drawer-{task}-v3"
        self.env: Any = ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE[f"{name}-goal-observable"](seed=int(rng.integers(2**31)))
        self.expert, self._camera = ENV_POLICY_MAP[name](), _filmed(self.env, spec.size)
        self.state, _ = self.env.reset()
        self.reward, self.won = 0.0, False

    def picture(self) -> np.ndarray:
        return self._camera.picture()[::-1, ::-1]

    def felt(self) -> np.ndarray:
        return self.state[:4]

    def act(self, action: np.ndarray) -> None:
        self.state, _, _, _, info = self.env.step(action)
        self.won = bool(info["success"])
        self.reward = float(self.won)

    def close(self) -> None:
        self._camera.close()


def _filmed(env: Any, size: int) -> Filmed:
    """Meta-World's corner camera, nearer; it hangs upside down."""
    import mujoco

    quality = env.model.vis.quality
    quality.shadowsize = quality.offsamples = 0  # both are very slow without a GPU
    env.model.camera(_CAMERA).fovy = _VIEW
    filmed = Filmed(env.model, env.data, _CAMERA, size, fine=2)
    for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
        filmed.renderer.scene.flags[flag] = 0
    return filmed
