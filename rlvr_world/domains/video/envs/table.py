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
from itertools import count
from typing import Any

import numpy as np

from rlvr_world.errors import InputError

_AWAY = np.array([0.0, 0.0, 99.0])  # behind the camera
_CAMERA = 20.0  # m above the table: near to an orthographic view, which is set in another way in each MuJoCo
_STEP = 0.004
_FALLING = 15  # steps before it is asked whether things lie still: what is dropped is slow at first
_SPEED = 0.6  # of the pusher, m/s


def headless() -> None:
    """Has MuJoCo render without a screen, by EGL or else by OSMesa; call before it is imported. The choice is left in
    the environment, where worker processes find it. Raises InputError where neither works."""
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
    mend = "install libegl1 or libosmesa6, or set MUJOCO_GL to a driver that works"
    raise InputError(f"MuJoCo cannot render without a screen ({'; '.join(errors)}); expected EGL or OSMesa; {mend}")


def scene(bodies: str, pusher: Pusher, half: float, options: str, extra: str = "") -> str:
    """MJCF of a square table of half width ``half`` with hidden walls, a pusher out of sight, and these bodies."""
    walls = "".join(
        f'<geom type="plane" size="1 1 1" pos="{-half * x} {-half * y} 0" zaxis="{x} {y} 0" group="4"/>'
        for x, y in ((1, 0), (-1, 0), (0, 1), (0, -1))
    )
    # Shadows off and multisampling off: software rendering is many times faster, and averaging smooths better.
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


class Filmed:
    """A MuJoCo scene before one of its cameras; pictures are rendered ``fine`` times larger, then averaged: edges are
    smooth, and small moves show."""

    def __init__(self, model: Any, data: Any, camera: str, size: int, fine: int) -> None:
        import mujoco

        self.model, self.data, self._camera, self._blocks = model, data, camera, (size, fine, size, fine, 3)
        model.vis.global_.offwidth = model.vis.global_.offheight = size * fine
        self.renderer = mujoco.Renderer(model, size * fine, size * fine)

    def picture(self) -> np.ndarray:
        """uint8 [H, W, 3]."""
        self.renderer.update_scene(self.data, camera=self._camera)
        return self.renderer.render().reshape(self._blocks).mean((1, 3)).round().astype(np.uint8)

    def close(self) -> None:
        self.renderer.close()


class Table(Filmed):
    """A table on which things are pushed about; there is nothing to win. ``objects`` are the bodies that pushes aim at;
    ``hand``: pushes without end, float32 [4], each through where one of them is when it is asked for."""

    reward, won = 0.0, False

    def __init__(self, xml: str, size: int, pusher: Pusher, reach: float, rng: np.random.Generator) -> None:
        headless()
        import mujoco

        self._mujoco = mujoco
        model: Any = mujoco.MjModel.from_xml_string(xml)
        super().__init__(model, mujoco.MjData(model), "top", size, fine=4)
        self.objects = np.array([b for b in range(1, model.nbody) if b != model.body("pusher").id])
        self.height = pusher.height
        self.hand = (choose_push(self.places(), rng, pusher, reach) for _ in count())

    def places(self) -> np.ndarray:
        """[N, 2]: x and z of the object's bodies."""
        return self.data.xpos[self.objects, :2].copy()

    def told(self) -> dict[str, Any]:
        """``places`` [N, 2]."""
        return {"places": self.places()}

    def act(self, action: np.ndarray) -> None:
        self.push(*action.astype(float).reshape(2, 2))

    @property
    def broken(self) -> bool:
        """Whether the simulation became unstable: MuJoCo then starts the scene anew, and goes on."""
        return any(warning.number for warning in self.data.warning)

    def push(self, start: np.ndarray, end: np.ndarray) -> None:
        """Down at the start, straight to the end, up, and until everything lies still."""
        heading = np.arctan2(*(end - start)[::-1])
        self.data.mocap_quat[0] = [np.cos(heading / 2), 0, 0, np.sin(heading / 2)]
        low, high = self.height, self.height + 0.06
        down, along = 12, max(1, round(float(np.linalg.norm(end - start)) / _SPEED / _STEP))
        for k in range(down):
            self._step([*start, high + (low - high) * (k + 1) / down])
        for k in range(along):
            self._step([*(start + (end - start) * (k + 1) / along), low])
        self.rest()

    def rest(self, steps: int = 100) -> None:
        """Until no body is faster than 5 mm/s, the pusher away; so many steps at most. What moves then is stopped: a
        frame and an action say all that there is to know of what follows."""
        for k in range(steps):
            before = self.data.xpos[self.objects]
            self._step(_AWAY)
            if k >= _FALLING and np.abs(self.data.xpos[self.objects] - before).max() < 0.005 * _STEP:
                break
        self.data.qvel[:] = 0

    def _step(self, pusher: Any) -> None:
        self.data.mocap_pos[0] = pusher
        self._mujoco.mj_step(self.model, self.data)


def choose_push(places: np.ndarray, rng: np.random.Generator, pusher: Pusher, reach: float) -> np.ndarray:
    """(x_start, z_start, x_end, z_end) through a random one of ``places`` [N, 2], from a start that is free of them if
    there is one, within ``reach`` of the middle on both axes; the end is nearer, so that things stay in the picture."""
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
