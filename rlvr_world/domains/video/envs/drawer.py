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
from rlvr_world.domains.video.envs.table import headless

FORMAT = "1"
"""Part of the cache key: raise it when the same spec gives other episodes."""
_FINE = 2  # rendered so many times larger, then averaged
_CAMERA, _VIEW = "corner4", 46.0  # degrees: the drawer and the hand fill the picture


def play(spec: DrawerSpec, episode: int) -> dict[str, np.ndarray]:
    """One episode: ``image`` uint8 [T, H, W, 3], ``action`` float32 [T, A], ``proprio`` float32 [T, P] and ``success``
    bool [T], whether the drawer is where the task wants it in that frame.
    """
    headless()
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE
    from metaworld.policies import ENV_POLICY_MAP

    task = ("open", "close")[episode % 2] if spec.task == "both" else spec.task
    name = f"drawer-{task}-v3"
    rng = np.random.default_rng((spec.seed, episode))
    env: Any = ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE[f"{name}-goal-observable"](seed=int(rng.integers(2**31)))
    expert, noise = ENV_POLICY_MAP[name](), rng.uniform(0, spec.noise)
    bias = rng.normal(0, noise, 4)  # the hand ends beside where it wants to be: some episodes fail
    camera = _Camera(env, spec.size)
    felt, _ = env.reset()
    images, actions, proprio, success = [], [], [], [False]
    for _ in range(spec.length):
        action = np.clip(expert.get_action(felt) + bias + rng.normal(0, noise, 4), -1, 1).astype(np.float32)
        images.append(camera.picture())
        actions.append(action)
        proprio.append(felt[:4])
        felt, _, _, _, info = env.step(action)
        success.append(bool(info["success"]))
    camera.close()
    return {
        "image": np.stack(images),
        "action": np.stack(actions),
        "proprio": np.array(proprio, np.float32),
        "success": np.array(success[: spec.length]),
    }


class _Camera:
    """Meta-World's corner camera, nearer and right side up."""

    def __init__(self, env: Any, size: int) -> None:
        import mujoco

        visual = env.model.vis
        visual.quality.shadowsize = visual.quality.offsamples = 0  # both are very slow without a GPU
        visual.global_.offwidth = visual.global_.offheight = size * _FINE
        env.model.camera(_CAMERA).fovy = _VIEW
        self._renderer = mujoco.Renderer(env.model, size * _FINE, size * _FINE)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            self._renderer.scene.flags[flag] = 0
        self._data, self._size = env.data, size

    def picture(self) -> np.ndarray:
        """uint8 [H, W, 3]."""
        self._renderer.update_scene(self._data, camera=_CAMERA)
        upright = self._renderer.render()[::-1, ::-1]  # the camera hangs upside down
        return upright.reshape(self._size, _FINE, self._size, _FINE, 3).mean((1, 3)).round().astype(np.uint8)

    def close(self) -> None:
        self._renderer.close()
