"""The T of PushT and its home: a hand that brings it there, others that push it elsewhere, and random ones.

Every half second the hand tries pushes in a second simulator and begins the one that is most worth its way. Points are
(x, y) in pixels of 512, in the T's own frame or on the table. N contacts on the T's outline, K = 8 corners of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np

from rlvr_world.domains.video.envs.pusht import _MIDDLE, _TEE, SCALE, TABLE, Push, _at_most, _targets
from rlvr_world.domains.video.envs.specs import PushTSpec

ENOUGH = 0.7  # the share of its home that the T is to cover: more than who pushes by chance reaches
FAR, TURN = (20.0, 60.0), (0.1, 0.5)  # how far from home it begins, and how far turned (radians), either way
SLIP = 12.0  # largest deviation of a decision from what the hand means: so that it shows how mistakes are mended
DECIDES = 5  # steps from one decision to the next
TRIED, LENGTHS = 16, (12.0, 40.0)  # contacts, and how far a push goes on from each
GAIN = 0.7  # way of the T that is worth a decision: where less is to be had, the hand rests
_EDGES = np.roll(_TEE, -1, 0) - _TEE
_WIDE = np.linalg.norm(_EDGES, axis=1)
_EVERY = [(np.arange(n)[:, None] + 0.5) / n for n in _WIDE.astype(int) // 15]
_CONTACTS = np.concatenate([a + at * edge for a, at, edge in zip(_TEE, _EVERY, _EDGES, strict=True)])
_INWARD = np.repeat(_EDGES[:, ::-1] * [-1, 1] / _WIDE[:, None], [len(at) for at in _EVERY], 0)
_STARTS = _CONTACTS - 30 * _INWARD
_LEVERS = ((_CONTACTS - _MIDDLE)[:, ::-1] * [-1, 1] * _INWARD).sum(1)[:, None, None]
_MOVES = _INWARD[:, None] + _LEVERS / 1600 * ((_TEE - _MIDDLE)[:, ::-1] * [-1, 1])
_MOVES /= 1 + abs(_LEVERS) / 80  # [N, K, 2]: about where a short push at a contact leads the corners


def _turn(angle: float) -> np.ndarray:
    """[2, 2]: from a T that is turned so far to the table, for rows."""
    return np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


_PLACE, _ANGLE = np.array([256.0, 256.0]), np.pi / 4  # gym-pusht's goal, on the table
_HOME = _TEE @ _turn(_ANGLE) + _PLACE


class Home(Push):
    """The table of an episode that begins with the T off its home."""

    def __init__(self, spec: PushTSpec, rng: np.random.Generator) -> None:
        super().__init__(spec, rng)
        self.meant, self.coverage = np.zeros(2), 1.0
        while self.coverage >= ENOUGH:  # a task that is done at its start is none
            away = np.array([rng.uniform(*FAR), 0.0]) @ _turn(rng.uniform(0, 2 * np.pi))
            middle = finger = _PLACE + _MIDDLE @ _turn(_ANGLE) + away
            while np.linalg.norm(finger - middle) < 110:
                finger = rng.uniform(40, TABLE - 40, 2)
            angle = _ANGLE + rng.uniform(*TURN) * rng.choice([-1, 1])
            state = [*finger, *(middle - _MIDDLE), angle]  # the simulator turns it about its middle, after all
            _, self.info = self.env.reset(options={"reset_to_state": state})
            self.coverage = float(self.env._get_coverage())
        self._kind = str(rng.choice(["home", "home", "anywhere", "random", "switch"]))
        self.hand = map(self._towards, self._kinds(spec, rng))

    def _kinds(self, spec: PushTSpec, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Targets without end. In two of five episodes the T is brought home; in others it is pushed anywhere, moves
        are random, or the hand changes its mind: a model that saw no failure imagines success."""
        turn = {"home": spec.length, "switch": int(rng.integers(spec.length // 8, spec.length))}.get(self._kind, 0)
        wild, slip = rng.uniform(0, SLIP), np.zeros(2)
        for step, target in enumerate(islice(_homing(self), turn)):
            self.meant, slip = target, slip if step % DECIDES else rng.normal(0, wild, 2)
            yield self.meant + slip + rng.normal(0, spec.noise, 2)
        while self._kind == "random":
            drift = rng.uniform(-0.6, 0.6, 2)
            for _ in range(rng.integers(1, 15)):
                yield self.here() + SCALE * np.clip(drift + rng.normal(0, 0.4, 2), -1, 1)
        yield from _targets(self, rng, spec.noise)

    def act(self, action: np.ndarray) -> None:
        super().act(action)
        self.coverage = float(self.info["coverage"])
        self.won = self.coverage >= ENOUGH

    def told(self) -> dict[str, Any]:
        """Also ``measure``, how much of its home the T covers, and ``success``; ``expert`` [A], what the hand that
        brings it there means to do, and ``demo``, whether it is the one that acts."""
        measured = {**super().told(), "measure": self.coverage, "success": self.won}
        return {**measured, "expert": self._towards(self.meant), "demo": self._kind == "home"}


def _homing(push: Push) -> Iterator[np.ndarray]:
    """Targets on the table. What is tried leaves contacts behind, hence a simulator for it alone."""
    beside = type(push.env)()
    beside.reset(seed=0)
    while True:
        to, pushes = _decide(push, beside)
        for _ in range(DECIDES):
            yield to if pushes else push.here() + _at_most(_way_round(push, to) - push.here(), 50)


def _decide(push: Push, beside: Any) -> tuple[np.ndarray, bool]:
    """A place on the table to push to, or to rest at, and True; or where a push starts, at the T, and False."""
    turn, place = _turn(push.env.block.angle), np.array(push.env.block.position)
    finger, starts = push.here(), _STARTS @ turn + place
    away = np.linalg.norm(starts - finger, axis=1)
    ways = [
        0.0 if _free_way((finger - place) @ turn.T, start) else 0.4 * far + 30
        for start, far in zip(_STARTS, away, strict=True)
    ]
    cost = 1 + np.where(away < 20, 0.0, away + ways) / 100  # decisions
    left = (_HOME - place) @ turn.T - _TEE
    promise = (_MOVES * left / (np.linalg.norm(left, axis=1)[:, None] + 3)).sum(2).mean(1) / cost
    open_ = (starts.min(1) > 20) & (starts.max(1) < TABLE - 20) & (_gap(_STARTS) > 18)
    off, best, choice = np.linalg.norm(left, axis=1).mean(), GAIN, (finger, True)
    for n in [n for n in np.argsort(-promise) if open_[n]][:TRIED]:
        there = away[n] < 20
        for length in LENGTHS:
            end = (_CONTACTS[n] + (length - 15) * _INWARD[n]) @ turn + place
            worth = (off - _off_after(push, beside, finger if there else starts[n], end)) / cost[n]
            if worth > best:
                best, choice = worth, (end, True) if there else (_STARTS[n], False)
    return choice


def _off_after(push: Push, beside: Any, start: np.ndarray, end: np.ndarray) -> float:
    """How far the corners of the T are from home on average, half a second on, after the finger went from one place on
    the table towards another: at double steps, half the time."""
    finger, block, real, step = beside.agent, beside.block, push.env.block, 2 * beside.dt
    finger.position, finger.velocity = tuple(start), (0.0, 0.0)
    block.angle, block.velocity, block.angular_velocity = real.angle, (0.0, 0.0), 0.0
    block.position = real.position  # after the angle: to turn moves it
    for _ in range(25):
        finger.velocity += (beside.k_p * (end - finger.position) - beside.k_v * finger.velocity) * step
        beside.space.step(step)
    return float(np.linalg.norm(_TEE @ _turn(block.angle) + block.position - _HOME, axis=1).mean())


def _way_round(push: Push, start: np.ndarray) -> np.ndarray:
    """The next place on the table on the way to a start: straight if that is free of the T, else out, and round it."""
    turn, place = _turn(push.env.block.angle), np.array(push.env.block.position)
    here = (push.here() - place) @ turn.T
    if not _free_way(here, start):
        angle, wanted = (np.arctan2(*(one - _MIDDLE)[::-1]) for one in (here, start))
        left = (wanted - angle + np.pi) % (2 * np.pi) - np.pi
        angle += np.clip(left, -0.5, 0.5) * (np.linalg.norm(here - _MIDDLE) > 85)
        start = _MIDDLE + 105 * np.array([np.cos(angle), np.sin(angle)])
    return np.clip(start @ turn + place, 20, TABLE - 20)


def _free_way(here: np.ndarray, to: np.ndarray) -> bool:
    """But for its beginning: who has just pushed is near the T."""
    return bool((_gap(here + np.linspace(0.15, 1, 12)[:, None] * (to - here)) > 16).all())


def _gap(points: np.ndarray) -> np.ndarray:
    """How far [M, 2] are from the T, which is two boxes."""
    boxes = np.array([[[-60, 0], [60, 30]], [[-15, 30], [15, 120]]])
    return np.min([np.linalg.norm((low - points).clip(0) + (points - high).clip(0), axis=1) for low, high in boxes], 0)
