"""The T of PushT and its home: a hand that brings it there, others that push it elsewhere, and random ones.

Every half second the hand tries pushes in a second simulator and begins the one that is most worth its way. Points are
(x, y) in pixels of 512; in the T's own frame, where nothing else is said.
Shape legend: N contacts on the T's outline, K = 8 corners of it, M points.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np

from rlvr_world.domains.video.envs.pusht import _MIDDLE, _TEE, SCALE, TABLE, Push, _at_most, _targets
from rlvr_world.domains.video.envs.specs import PushTSpec

ENOUGH = 0.7  # the share of its home that the T is to cover: more than who pushes by chance reaches
FAR, TURN = (30.0, 80.0), (0.2, 0.8)  # how far from home it begins, and how far turned (radians), either way
SLIP = 20.0
DECIDES = 5  # steps from one decision to the next
TRIED, LENGTHS = 16, (12.0, 40.0)  # contacts, and how far a push goes on from each
GAIN = 0.7  # way of the T that is worth a decision: where less is to be had, the hand rests


def turned(points: np.ndarray, angle: float) -> np.ndarray:
    """[..., 2], about the origin."""
    return points @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


PLACE, ANGLE = np.array([256.0, 256.0]), np.pi / 4  # gym-pusht's goal, on the table
HOME = turned(_TEE, ANGLE) + PLACE  # [K, 2], likewise
_EDGES = np.roll(_TEE, -1, 0) - _TEE
_WIDE = np.linalg.norm(_EDGES, axis=1)
_EVERY = [(np.arange(n)[:, None] + 0.5) / n for n in _WIDE.astype(int) // 15]
_CONTACTS = np.concatenate([a + at * edge for a, at, edge in zip(_TEE, _EVERY, _EDGES, strict=True)])
_INWARD = np.repeat(_EDGES[:, ::-1] * [-1, 1] / _WIDE[:, None], [len(at) for at in _EVERY], 0)
_STARTS = _CONTACTS - 30 * _INWARD
_SPINS = np.cross(_CONTACTS - _MIDDLE, _INWARD)[:, None, None] / 1600  # radians a pixel, about
_MOVES = (_INWARD[:, None] + _SPINS * ((_TEE - _MIDDLE)[:, ::-1] * [-1, 1])) / (1 + 20 * abs(_SPINS))
"""[N, K, 2]: where a short push at a contact leads the corners, about."""


class Home(Push):
    """The table of an episode that begins with the T off its home."""

    def __init__(self, spec: PushTSpec, rng: np.random.Generator) -> None:
        super().__init__(spec, rng)
        self.meant, self.coverage, self.tint = np.zeros(2), 1.0, [1.0, 1.0, 1.0]
        while self.coverage >= ENOUGH:  # a task that is done at its start is none
            away = turned(np.array([rng.uniform(*FAR), 0.0]), rng.uniform(0, 2 * np.pi))
            middle = finger = PLACE + turned(_MIDDLE, ANGLE) + away
            while np.linalg.norm(finger - middle) < 110:
                finger = rng.uniform(40, TABLE - 40, 2)
            angle = ANGLE + rng.uniform(*TURN) * rng.choice([-1, 1])
            state = [*finger, *(middle - _MIDDLE), angle]  # the simulator turns it about its middle, after all
            _, self.info = self.env.reset(options={"reset_to_state": state})
            self.coverage = float(self.env._get_coverage())
        self._kind, targets = _hand(self, spec, rng)
        self.hand = map(self._towards, targets)

    def picture(self) -> np.ndarray:
        return (super().picture() * self.tint).astype(np.uint8)

    def repaint(self) -> None:
        """From now on the light is another."""
        self.tint = [0.6, 0.76, 0.96]

    def act(self, action: np.ndarray) -> None:
        super().act(action)
        self.coverage = float(self.info["coverage"])
        self.won = self.coverage >= ENOUGH

    def told(self) -> dict[str, Any]:
        """Also ``measure``, how much of its home the T covers, and ``success``; ``demo``, whether a hand acts that
        brings it there."""
        return {**super().told(), "measure": self.coverage, "success": self.won, "expert": self._towards(self.meant), "demo": self._kind == "home"}


def _hand(push: Home, spec: PushTSpec, rng: np.random.Generator) -> tuple[str, Iterator[np.ndarray]]:
    """Whose it is, and its targets without end. In two of five episodes it brings the T home; in others it pushes it
    anywhere, is random, or changes its mind: a model that saw no failure imagines success."""
    kind = str(rng.choice(["home", "home", "anywhere", "random", "switch"]))
    turn = int(rng.integers(spec.length // 8, spec.length)) if kind == "switch" else spec.length * (kind == "home")

    def targets() -> Iterator[np.ndarray]:
        astray = rng.uniform(0, SLIP)
        for step, push.meant in enumerate(islice(_homing(push), turn)):
            slip = rng.normal(0, astray, 2) if step % DECIDES == 0 else slip
            yield push.meant + slip + rng.normal(0, spec.noise, 2)
        yield from _astray(push, rng) if kind == "random" else _targets(push, rng, spec.noise)

    return kind, targets()


def _astray(push: Push, rng: np.random.Generator) -> Iterator[np.ndarray]:
    while True:
        drift = rng.uniform(-0.6, 0.6, 2)
        for _ in range(rng.integers(1, 15)):
            yield push.here() + SCALE * np.clip(drift + rng.normal(0, 0.4, 2), -1, 1)


def _homing(push: Push) -> Iterator[np.ndarray]:
    """Targets on the table. What is tried leaves contacts behind, hence a simulator for it alone."""
    beside = type(push.env)()
    beside.reset(seed=0)
    while True:
        to, pushes = _decide(push, beside)
        for _ in range(DECIDES):
            yield to if pushes else push.here() + _at_most(_way_round(push, to) - push.here(), 50)


def _decide(push: Push, beside: Any) -> tuple[np.ndarray, bool]:
    """A place on the table to push to, or to rest at, and True; or where a push starts, and False."""
    block, finger, off = push.env.block, push.here(), _off(push.env)
    [here], home = _local(block, [finger]), _local(block, HOME)
    starts, away = _on_table(block, _STARTS), np.linalg.norm(_STARTS - here, axis=1)
    detour = [
        0.0 if _free(_line(here, start), 16) else 30 + 0.4 * far for start, far in zip(_STARTS, away, strict=True)
    ]
    cost = 1 + np.where(away < 20, 0.0, away + detour) / 100  # decisions
    left = (home - _TEE) / (np.linalg.norm(home - _TEE, axis=1)[:, None] + 3)
    promise = (_MOVES * left).sum(2).mean(1) / cost
    shut = (starts.min(1) <= 20) | (starts.max(1) >= TABLE - 20) | ~_free(_STARTS[:, None], 18)
    best, choice = GAIN, (finger, True)
    for n in np.argsort(np.where(shut, np.inf, -promise))[: min(TRIED, int((~shut).sum()))]:
        there = away[n] < 20
        for end in _on_table(block, [_CONTACTS[n] + (length - 15) * _INWARD[n] for length in LENGTHS]):
            worth = (off - _off_after(push, beside, finger if there else starts[n], end)) / cost[n]
            if worth > best:
                best, choice = worth, (end, True) if there else (_STARTS[n], False)
    return choice


def _off_after(push: Push, beside: Any, start: np.ndarray, end: np.ndarray) -> float:
    """``_off`` half a second on, on the way from one place on the table to another: at double steps, half the time."""
    finger, block, real, step = beside.agent, beside.block, push.env.block, 2 * beside.dt
    finger.position, finger.velocity = tuple(start), (0.0, 0.0)
    block.angle, block.velocity, block.angular_velocity = real.angle, (0.0, 0.0), 0.0
    block.position = real.position  # after the angle: to turn moves it
    for _ in range(25):
        finger.velocity += (beside.k_p * (end - finger.position) - beside.k_v * finger.velocity) * step
        beside.space.step(step)
    return _off(beside)


def _off(env: Any) -> float:
    """How far the corners of the T are on average from where they are at home."""
    return float(np.linalg.norm(_on_table(env.block, _TEE) - HOME, axis=1).mean())


def _way_round(push: Push, start: np.ndarray) -> np.ndarray:
    """The next place on the table on the way to a start: straight if that is free of the T, else out, and round it."""
    [here] = _local(push.env.block, [push.here()])
    if not _free(_line(here, start), 16):
        angle, wanted = (np.arctan2(*(place - _MIDDLE)[::-1]) for place in (here, start))
        left = (wanted - angle + np.pi) % (2 * np.pi) - np.pi
        angle += np.clip(left, -0.5, 0.5) * (np.linalg.norm(here - _MIDDLE) > 85)
        start = _MIDDLE + 105 * np.array([np.cos(angle), np.sin(angle)])
    return np.clip(_on_table(push.env.block, [start])[0], 20, TABLE - 20)


def _line(here: np.ndarray, to: np.ndarray) -> np.ndarray:
    """[M, 2] on the way, but for its beginning: who has just pushed is near the T."""
    return here + np.linspace(0.15, 1, 12)[:, None] * (to - here)


def _free(points: np.ndarray, gap: float) -> Any:
    """bool [...]: whether all M of [..., M, 2] are so far from the T, which is two boxes."""
    boxes = np.array([[[-60, 0], [60, 30]], [[-15, 30], [15, 120]]])
    out = [np.linalg.norm(np.maximum(0, np.maximum(low - points, points - high)), axis=-1) for low, high in boxes]
    return (np.minimum(*out) > gap).all(-1)


def _local(block: Any, points: Any) -> np.ndarray:
    return np.array([block.world_to_local(tuple(point)) for point in points])


def _on_table(block: Any, points: Any) -> np.ndarray:
    return np.array([block.local_to_world(tuple(point)) for point in points])
