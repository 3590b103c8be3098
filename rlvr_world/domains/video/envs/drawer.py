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
    headless()
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE
    from metaworld.policies import ENV_POLICY_MAP

    task = ("open", "close")[episode % 2] if spec.task == "both" else spec.task
    name = f"drawer-{task}-v3"
    rng = np.random.default_rng((spec.seed, episode))
    env: Any = ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE[f"{name}-goal-observable"](seed=int(rng.integers(2**31)))
    expert, noise = ENV_POLICY_MAP[name](), rng.uniform(0, spec.noise)
    bias = rng.normal(0, noise, 4)  # the hand ends beside where it wants to be: some episodes fail
    camera = _filmed(env, spec.size)
    felt, _ = env.reset()
    images, actions, proprio, success = [], [], [], [False]
    for _ in range(spec.length):
        action = np.clip(expert.get_action(felt) + bias + rng.normal(0, noise, 4), -1, 1).astype(np.float32)
        images.append(camera.picture()[::-1, ::-1])
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
