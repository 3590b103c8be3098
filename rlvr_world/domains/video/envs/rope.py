"""A rope on a table, pushed with a stick: a chain of capsules in MuJoCo, a stand-in for DINO-WM's Rope set.

The rope lives in the plane, and the table's friction is a drag on every link: it stops where the stick leaves it, and
an episode takes a fraction of a second. It does not cross itself. See ``table`` for the conventions.
"""

from __future__ import annotations

import numpy as np

from rlvr_world.domains.video.envs.specs import RopeSpec
from rlvr_world.domains.video.envs.table import Pusher, Table, scene

FORMAT = "1"  # part of the cache's key: raise it when the same spec gives other episodes
_HALF, REACH = 0.4, 0.34
_RADIUS = 0.014
_GEOM = '<geom type="capsule" fromto="0 0 -.05 0 0 .2" size=".018" condim="1" solref=".008 1"/>'
PUSHER = Pusher(_GEOM, half_width=0.0, clearance=_RADIUS + 0.018 + 0.006, height=0.0)
_ROOT = '<joint type="slide" axis="1 0 0"/><joint type="slide" axis="0 1 0"/><joint axis="0 0 1"/>'
_BEND = (  # friction keeps the shape that the stick leaves, the range forbids kinks
    '<joint axis="0 0 1" stiffness=".0004" damping=".0004" frictionloss=".0015" range="-.7 .7" armature="1e-5"/>'
)


def lay(spec: RopeSpec, rng: np.random.Generator) -> Table:
    """The table before the first push."""
    table = Table(_xml(spec), spec.size, PUSHER, REACH, rng)
    table.data.qpos[:] = _curve(spec, rng)
    table.rest(steps=20)
    return table


def _xml(spec: RopeSpec) -> str:
    link = spec.rope / spec.links
    chain = ""
    for k in range(spec.links):
        joint = _ROOT if k == 0 else _BEND
        chain += (
            f'<body name="l{k}" pos="{link if k else 0} 0 {0 if k else _RADIUS}">{joint}<geom type="capsule" '
            f'fromto="0 0 0 {link} 0 0" size="{_RADIUS}" mass=".008" rgba=".8 .3 .12 1" condim="1" solref=".008 1"/>'
        )
    chain += "</body>" * spec.links
    excludes = "".join(
        f'<exclude body1="l{a}" body2="l{b}"/>'
        for a in range(spec.links)
        for b in range(a + 1, min(spec.links, a + 1 + round(2.5 * _RADIUS / link + 1)))
    )
    # A chain is too ill-conditioned for the CG solver: one episode in twenty flew apart.
    options = 'gravity="0 0 0" viscosity=".4" solver="Newton"'
    return scene(chain, PUSHER, _HALF, options, f"<contact>{excludes}</contact>")


def _curve(spec: RopeSpec, rng: np.random.Generator) -> np.ndarray:
    """Joint positions of a smooth, random curve that lies on the table and does not cross itself."""
    link = spec.rope / spec.links
    best, best_room = np.zeros(spec.links + 2), -np.inf
    for _ in range(200):
        steps = np.arange(spec.links)
        waves, phase = rng.uniform(0.3, 1.5), rng.uniform(0, 2 * np.pi)
        bends = rng.uniform(0, 6.0) / spec.links * np.sin(2 * np.pi * waves * steps / spec.links + phase)
        bends[0] = rng.uniform(-np.pi, np.pi)
        angles = np.cumsum(bends)
        points = np.cumsum(link * np.stack([np.cos(angles), np.sin(angles)], 1), 0)
        origin = rng.uniform(-0.1, 0.1, 2) - points.mean(0)
        points = points + origin
        apart = np.linalg.norm(points[:, None] - points[None], axis=-1)
        near = apart[np.triu_indices(spec.links, max(3, round(5 * _RADIUS / link)))].min(initial=1.0)
        room = min(float(REACH - np.abs(points).max()), float(near - 3 * _RADIUS))
        if room > best_room:
            best, best_room = np.concatenate([origin, bends]), room
        if room > 0:
            break
    return best
