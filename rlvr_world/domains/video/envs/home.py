"""The T of PushT and its home: a hand that brings it there, worse ones and random ones.

Every half second the hand tries pushes in a second simulator, beside the real one, and begins the one that is most
worth its way. Shape legend: N contacts on the T's outline, K = 8 corners; vectors are (x, y), in the T's own frame
where nothing else is said; lengths are in pixels of 512.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np

from rlvr_world.domains.video.envs.pusht import _MIDDLE, _TEE, SCALE, TABLE, Push, _at_most, _targets
from rlvr_world.domains.video.envs.specs import PushTSpec

ENOUGH = 0.7
"""The coverage of its home at which the T is there."""
GOAL = (256.0, 256.0, np.pi / 4)  # gym-pusht's
FAR, TURN = (30.0, 80.0), (0.2, 0.8)  # how far from home the T begins, and turned how far (radians), either way
DECIDES = 5  # steps from one decision to the next
TRIED, LENGTHS = 16, (12.0, 40.0)  # contacts, and how far a push goes on from each
GAIN = 0.7  # mean way of a corner that is worth half a second: a smaller one is left, and the hand rests

_EDGES = np.roll(_TEE, -1, 0) - _TEE
_COUNTS = np.linalg.norm(_EDGES, axis=1).astype(int) // 15  # contacts on each
_ON = [a + (np.arange(n)[:, None] + 0.5) / n * edge for a, edge, n in zip(_TEE, _EDGES, _COUNTS, strict=True)]
_CONTACTS = np.concatenate(_ON)
_HEADINGS = np.repeat(_EDGES[:, ::-1] * [-1, 1] / np.linalg.norm(_EDGES, axis=1)[:, None], _COUNTS, 0)  # inwards
_STARTS = _CONTACTS - 30 * _HEADINGS
_SPINS = np.cross(_CONTACTS - _MIDDLE, _HEADINGS)[:, None, None] / 1600  # radians a pixel, about, of a push there
_MOVES = _HEADINGS[:, None] + _SPINS * ((_TEE - _MIDDLE)[:, ::-1] * [-1, 1])  # [N, K, 2]: of the corners
_MOVES /= 1 + 20 * np.abs(_SPINS)


def turned(points: np.ndarray, angle: float) -> np.ndarray:
    """Points [..., 2] about the origin."""
    return points @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


HOME = turned(_TEE, GOAL[2]) + GOAL[:2]  # [K, 2] on the table


class Home(Push):
    """The table of an episode that begins with the T off its home, and ends at any time."""

    def __init__(self, spec: PushTSpec, rng: np.random.Generator) -> None:
        super().__init__(spec, rng)
        self.coverage = 1.0
        while self.coverage >= ENOUGH:  # a task that is done at its start is none
            way, angle = turned(np.array([rng.uniform(*FAR), 0.0]), rng.uniform(0, 2 * np.pi)), rng.uniform(*TURN)
            middle = turned(_MIDDLE, GOAL[2]) + GOAL[:2] + way
            finger = middle
            while np.linalg.norm(finger - middle) < 110:
                finger = rng.uniform(40, TABLE - 40, 2)
            # The simulator turns what it has set about the centre of gravity.
            state = [*finger, *(middle - _MIDDLE), GOAL[2] + angle * rng.choice([-1, 1])]
            _, self.info = self.env.reset(options={"reset_to_state": state})
            self.coverage = float(self.env._get_coverage())
        self._kind, targets = _hand(self, spec, rng)
        self.hand = map(self._towards, targets)

    def act(self, action: np.ndarray) -> None:
        super().act(action)
        self.coverage = float(self.info["coverage"])
        self.won = self.coverage >= ENOUGH

    def told(self) -> dict[str, Any]:
        """Also ``measure``, the share of the home that the T covers, and ``success``; ``demo``, whether it is a hand
        that brings it there that acts."""
        return {**super().told(), "measure": self.coverage, "success": self.won, "demo": self._kind == "home"}


def _hand(push: Home, spec: PushTSpec, rng: np.random.Generator) -> tuple[str, Iterator[np.ndarray]]:
    """Whose it is, and its targets without end. It brings the T home in two of five episodes; in others it pushes the
    T anywhere, is random, or stops to care: a model that saw no failure imagines success."""
    kind = str(rng.choice(["home", "home", "anywhere", "random", "switch"]))
    stay = int(rng.integers(spec.length // 8, spec.length)) if kind == "switch" else spec.length * (kind == "home")

    def targets() -> Iterator[np.ndarray]:
        for target in islice(_homing(push), stay):
            yield target + rng.normal(0, spec.noise, 2)
        yield from _astray(push, rng) if kind == "random" else _targets(push, rng, spec.noise)

    return kind, targets()


def _astray(push: Push, rng: np.random.Generator) -> Iterator[np.ndarray]:
    while True:
        drift = rng.uniform(-0.6, 0.6, 2)
        for _ in range(rng.integers(1, 15)):
            yield push.here() + SCALE * np.clip(drift + rng.normal(0, 0.4, 2), -1, 1)


def _homing(push: Push) -> Iterator[np.ndarray]:
    """What is tried would leave its contacts behind, so that it is tried in a simulator of its own."""
    beside = type(push.env)()
    beside.reset(seed=0)
    while True:
        to, pushes = _decide(push, beside)
        for _ in range(DECIDES):
            yield to if pushes else push.here() + _at_most(_next(push, to) - push.here(), 50)


def _decide(push: Push, beside: Any) -> tuple[np.ndarray, bool]:
    """Where to go for half a second: a place on the table to push or to rest at; or where a push starts, in the T's
    frame, and False."""
    block, finger = push.env.block, push.here()
    here, home = (np.array([block.world_to_local(tuple(p)) for p in points]) for points in ([finger], HOME))
    starts, ends = np.array([block.local_to_world(tuple(p)) for p in _STARTS]), list[np.ndarray]()
    away = np.linalg.norm(_STARTS - here, axis=1)
    detour = np.array([0.0 if _free(_line(here[0], start), 16) else 1.0 for start in _STARTS])
    cost = 1 + np.where(away < 20, 0.0, away + detour * (0.4 * away + 30)) / 100  # in decisions
    still = home - _TEE
    promise = (_MOVES * still / (np.linalg.norm(still, axis=1)[:, None] + 3)).sum(2).mean(1) / cost
    open_ = (starts.min(1) > 20) & (starts.max(1) < TABLE - 20) & _free(_STARTS[:, None], 18)
    off, best, choice = _off(push.places()), GAIN, (finger, True)
    for n in np.argsort(-np.where(open_, promise, -np.inf))[: min(TRIED, open_.sum())]:
        for length in LENGTHS:
            end = np.array(block.local_to_world(tuple(_CONTACTS[n] + (length - 15) * _HEADINGS[n])))
            worth = (off - _off_after(push, beside, None if away[n] < 20 else starts[n], end)) / cost[n]
            if worth > best:
                best, choice = worth, (end, True) if away[n] < 20 else (_STARTS[n], False)
    return choice


def _off_after(push: Push, beside: Any, start: np.ndarray | None, end: np.ndarray) -> float:
    """How far off home the T is after half a second on the way from a start, or from where the finger is, to a place of
    the table: at double steps, which is half the time."""
    finger, block, real = beside.agent, beside.block, push.env
    finger.position = tuple(push.here() if start is None else start)
    finger.velocity = real.agent.velocity if start is None else (0.0, 0.0)
    block.angle, block.velocity, block.angular_velocity = real.block.angle, (0.0, 0.0), 0.0
    block.position = real.block.position  # after the angle: to turn moves it
    for _ in range(25):
        finger.velocity += (beside.k_p * (end - finger.position) - beside.k_v * finger.velocity) * (2 * beside.dt)
        beside.space.step(2 * beside.dt)
    return _off(np.array([block.local_to_world(tuple(corner)) for corner in _TEE]))


def _off(corners: np.ndarray) -> float:
    return float(np.linalg.norm(corners - HOME, axis=1).mean())


def _next(push: Push, start: np.ndarray) -> np.ndarray:
    """The next place on the table on the way to a start: straight if that is free of the T, else out, and round it."""
    block = push.env.block
    here = np.array(block.world_to_local(tuple(push.here())))
    if not _free(_line(here, start), 16):
        angle, wanted = (np.arctan2(*(place - _MIDDLE)[::-1]) for place in (here, start))
        left = (wanted - angle + np.pi) % (2 * np.pi) - np.pi
        angle += np.clip(left, -0.5, 0.5) * (np.linalg.norm(here - _MIDDLE) > 85)
        start = _MIDDLE + 105.0 * np.array([np.cos(angle), np.sin(angle)])
    return np.clip(block.local_to_world(tuple(start)), 20, TABLE - 20)


def _line(here: np.ndarray, to: np.ndarray) -> np.ndarray:
    """Places [12, 2] on the way, but the first of it: who has just pushed is near the T."""
    return here + np.linspace(0.15, 1, 12)[:, None] * (to - here)


def _free(points: np.ndarray, gap: float) -> Any:
    """bool [...] of points [..., M, 2]: whether all M are so far from both boxes of the T."""
    boxes = np.array([[[-60, 0], [60, 30]], [[-15, 30], [15, 120]]])
    out = [np.linalg.norm(np.maximum(0, np.maximum(low - points, points - high)), axis=-1) for low, high in boxes]
    return (np.minimum(*out) > gap).all(-1)
