"""Grains on a table, pushed with a board: spheres in MuJoCo, a stand-in for DINO-WM's Granular set.

Conventions are in ``table``. Grains may lie on top of one another.
"""

from __future__ import annotations

import numpy as np

from rlvr_world.domains.video.envs.specs import GranularSpec
from rlvr_world.domains.video.envs.table import Pusher, Table, scene

FORMAT = "1"  # part of the cache's key: raise it when the same spec gives other episodes
_HALF, REACH = 0.25, 0.21
_RADIUS = 0.012
_GEOM = '<geom type="box" size=".006 .05 .025" condim="1" solref=".008 1"/>'
PUSHER = Pusher(_GEOM, half_width=0.05, clearance=_RADIUS + 0.01, height=0.026)


def lay(spec: GranularSpec, rng: np.random.Generator) -> Table:
    """The table before the first push."""
    table = Table(_xml(spec, rng), spec.size, PUSHER, REACH, rng)
    table.rest(steps=300)
    return table


def _xml(spec: GranularSpec, rng: np.random.Generator) -> str:
    """Grains dropped on one or two heaps, each as low as those before it let it."""
    heaps = rng.uniform(-0.5 * REACH, 0.5 * REACH, (rng.integers(1, 3), 2))
    places = np.zeros((spec.grains, 3))
    grains = ""
    for k in range(spec.grains):
        x, y = np.clip(heaps[rng.integers(len(heaps))] + rng.normal(0, 0.035, 2), -REACH, REACH)
        square = ((places[:k, :2] - (x, y)) ** 2).sum(1)
        below = square < (2 * _RADIUS) ** 2
        z = np.max(places[:k, 2][below] + np.sqrt((2 * _RADIUS) ** 2 - square[below]), initial=_RADIUS)
        places[k] = x, y, z
        # Turning is damped away: grains slide and stop, they are not marbles.
        grains += (
            f'<body pos="{x:.5f} {y:.5f} {z + 0.0005:.5f}"><joint type="free" damping=".001"/><geom type="sphere" '
            f'size="{_RADIUS}" mass=".005" rgba=".85 .6 .15 1" condim="3" friction=".6" solref=".008 1"/></body>'
        )
    return scene(grains, PUSHER, _HALF, 'solver="CG" iterations="10" ls_iterations="4" tolerance="1e-4"')
