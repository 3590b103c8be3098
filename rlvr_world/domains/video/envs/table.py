"""A table seen from above in MuJoCo, and pushes over it: what the rope and the grains have in common.

Conventions are those of DINO-WM's deformable sets: an action is (x_start, z_start, x_end, z_end), the pusher comes down
at the start, goes straight to the end and lifts; a frame before each push, with the pusher away. x is to the right
in the picture and z up (MuJoCo's y), in metres from the middle.

Shape legend: T frames, H height, W width, N bodies of the object.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlvr_world.errors import InputError

_FINE = 4  # rendered so many times larger, then averaged: smooth edges, and small moves show
_AWAY = np.array([0.0, 0.0, 99.0])  # behind the camera
_CAMERA = 20.0  # m above the table: near to an orthographic view, which is set in another way in each MuJoCo
_STEP = 0.004
_FALLING = 15  # steps before it is asked whether things lie still: what is dropped is slow at first
_SPEED = 0.6  # of the pusher, m/s


def headless() -> None:
    """Has MuJoCo render without a screen, by EGL or else by OSMesa; call before it is imported.

    The choice is left in the environment, where worker processes find it. Raises InputError where neither works.
    """
    if os.environ.get("MUJOCO_GL"):
        return
    errors = []
    for driver in ("egl", "osmesa"):
        # In another process: PyOpenGL cannot change its mind.
        code = "import mujoco; mujoco.GLContext(8, 8).make_current()"
        env = {**os.environ, "MUJOCO_GL": driver}
        tried = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
        if tried.returncode == 0:
            os.environ["MUJOCO_GL"] = driver
            return
        errors.append(f"{driver}: {(tried.stderr.strip().splitlines() or ['no message'])[-1]}")
    raise InputError(
        f"MuJoCo cannot render without a screen ({'; '.join(errors)}); expected EGL or OSMesa; "
        "install libegl1 or libosmesa6, or set MUJOCO_GL to a driver that works"
    )


def scene(bodies: str, pusher: Pusher, half: float, options: str, extra: str = "") -> str:
    """MJCF of a square table of half width ``half`` with hidden walls, a pusher out of sight, and these bodies."""
    walls = "".join(
        f'<geom type="plane" size="1 1 1" pos="{-half * x} {-half * y} 0" zaxis="{x} {y} 0" group="4"/>'
        for x, y in ((1, 0), (-1, 0), (0, 1), (0, -1))
    )
    # Shadows off and multisampling off: software rendering is many times faster, and _FINE smooths better.
    return f"""<mujoco><compiler angle="radian"/><size memory="64M"/>
<option timestep="{_STEP}" integrator="implicitfast" {options}/>
<visual><quality shadowsize="0" offsamples="0" numslices="12" numstacks="8"/><headlight active="0"/>
<map znear="1" zfar="50"/></visual>
<statistic center="0 0 0" extent="1"/>
<worldbody><light directional="true" pos="0 0 2" dir="0.2 0.3 -1" ambient=".45 .45 .45" diffuse=".55 .55 .55"/>
<camera name="top" pos="0 0 {_CAMERA}" fovy="{2 * np.arctan(half / _CAMERA) * 180 / np.pi}"/>
<geom name="table" type="plane" size="2 2 1" rgba=".86 .88 .9 1"/>{walls}
<body name="pusher" mocap="true" pos="0 0 {_AWAY[2]}">{pusher.geom}</body>{bodies}</worldbody>{extra}</mujoco>"""


@dataclass(frozen=True)
class Pusher:
    """What pushes: its MJCF geom, and the room that it needs. Lengths in metres."""

    geom: str
    half_width: float
    """Across the heading."""
    clearance: float
    """From its middle line to the middle of a body that it does not touch."""
    height: float
    """Of its frame above the table while it pushes."""


class Table:
    """A scene that is being pushed about. ``objects`` are the bodies that pushes aim at."""

    def __init__(self, xml: str, size: int) -> None:
        import mujoco

        self._mujoco = mujoco
        self.model: Any = mujoco.MjModel.from_xml_string(xml)
        self.data: Any = mujoco.MjData(self.model)
        pusher = self.model.body("pusher").id
        self.objects = np.array([b for b in range(1, self.model.nbody) if b != pusher])
        self.model.vis.global_.offwidth = self.model.vis.global_.offheight = size * _FINE
        self._renderer = mujoco.Renderer(self.model, size * _FINE, size * _FINE)
        self._size = size

    def close(self) -> None:
        self._renderer.close()

    def places(self) -> np.ndarray:
        """[N, 2]: x and z of the object's bodies."""
        return self.data.xpos[self.objects, :2].copy()

    def picture(self) -> np.ndarray:
        """uint8 [H, W, 3]."""
        self._renderer.update_scene(self.data, camera="top")
        fine = self._renderer.render().reshape(self._size, _FINE, self._size, _FINE, 3)
        return fine.mean((1, 3)).round().astype(np.uint8)

    def push(self, start: np.ndarray, end: np.ndarray, height: float) -> None:
        """Down at the start, straight to the end, up, and until everything lies still."""
        heading = np.arctan2(*(end - start)[::-1])
        self.data.mocap_quat[0] = [np.cos(heading / 2), 0, 0, np.sin(heading / 2)]
        low, high = height, height + 0.06
        down, along = 12, max(1, round(float(np.linalg.norm(end - start)) / _SPEED / _STEP))
        for k in range(down):
            self._step([*start, high + (low - high) * (k + 1) / down])
        for k in range(along):
            self._step([*(start + (end - start) * (k + 1) / along), low])
        self.rest()

    def rest(self, steps: int = 100, still: float = 0.005) -> None:
        """Until no body is faster than ``still`` (m/s), the pusher away; so many steps at most.

        What moves then is stopped: a frame and an action say all that there is to know of what follows.
        """
        for k in range(steps):
            before = self.data.xpos[self.objects]
            self._step(_AWAY)
            if k >= _FALLING and np.abs(self.data.xpos[self.objects] - before).max() < still * _STEP:
                break
        self.data.qvel[:] = 0

    def _step(self, pusher: Any) -> None:
        self.data.mocap_pos[0] = pusher
        self._mujoco.mj_step(self.model, self.data)


def choose_push(places: np.ndarray, rng: np.random.Generator, pusher: Pusher, reach: float) -> np.ndarray:
    """(x_start, z_start, x_end, z_end) through a random body, from a place free of the object if there is one.

    places: [N, 2]. The start is within ``reach`` of the middle on both axes; the end is nearer, so that things stay in
    the picture.
    """
    best, best_room = np.zeros(4), -np.inf
    for _ in range(40):
        through, angle = places[rng.integers(len(places))], rng.uniform(-np.pi, np.pi)
        heading = np.array([np.cos(angle), np.sin(angle)])
        start = through - heading * rng.uniform(0.15, 0.8) * reach
        end = through + heading * rng.uniform(0.1, 0.5) * reach
        if np.abs(start).max() > reach or np.linalg.norm(end) > 0.75 * reach:
            continue
        along, across = (places - start) @ heading, (places - start) @ np.array([-heading[1], heading[0]])
        room = np.hypot(along, np.maximum(np.abs(across) - pusher.half_width, 0)).min()
        if room > best_room:
            best, best_room = np.concatenate([start, end]), room
        if room > pusher.clearance:
            break
    return best.astype(np.float32)


def play_pushes(
    table: Table, rng: np.random.Generator, pushes: int, pusher: Pusher, reach: float, name: str
) -> dict[str, np.ndarray]:
    """``image`` uint8 [T, H, W, 3], ``action`` float32 [T, 4] and ``places`` float32 [T, N, 2], with T = pushes + 1;
    the last action is drawn and not done. Closes the table. Raises InputError that starts with ``name`` where the
    simulation becomes unstable.
    """
    try:
        episode = _play_pushes(table, rng, pushes, pusher, reach)
        if any(warning.number for warning in table.data.warning):
            # MuJoCo has started the scene anew after such a step, and gone on.
            raise InputError(f"{name}: the simulation became unstable; take another seed")
        return episode
    finally:
        table.close()


def _play_pushes(
    table: Table, rng: np.random.Generator, pushes: int, pusher: Pusher, reach: float
) -> dict[str, np.ndarray]:
    images, actions, places = [], [], []
    for k in range(pushes + 1):
        action = choose_push(table.places(), rng, pusher, reach)
        images.append(table.picture())
        actions.append(action)
        places.append(table.places())
        if k < pushes:
            table.push(action[:2].astype(float), action[2:].astype(float), pusher.height)
    return {"image": np.stack(images), "action": np.stack(actions), "places": np.array(places, np.float32)}
