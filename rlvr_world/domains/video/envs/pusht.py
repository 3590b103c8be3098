"""PushT: a round finger pushes a T over a table (gym-pusht, Apache-2.0), by a scripted and noisy hand.

Conventions are those of DINO-WM's PushT set: an action is the commanded target relative to the agent, divided by 100;
proprioception is the agent's place and velocity. One frame an environment step of 0.1 s: read it with a frame skip (5
there), or frames hardly differ. Lengths are in the simulator's pixels: the table is 512 x 512.
Shape legend: T frames, H height, W width, A = 2 action, P = 4 proprioception; vectors are (x, y), y down.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from rlvr_world.domains.video.envs.specs import PushTSpec

FORMAT = "1"  # part of the cache's key: raise it when the same spec gives other episodes
TABLE = 512
SCALE = 100.0  # of DINO-WM's actions
PACE = 0.4 * SCALE / TABLE  # how far an action of 1, held, takes the finger in a step: a share of the picture's width
_TEE = np.array([(-60, 0), (60, 0), (60, 30), (15, 30), (15, 120), (-15, 120), (-15, 30), (-60, 30)], float)
"""The outline of the T in its own frame."""
_MIDDLE = np.array([0.0, 45.0])  # its centre of gravity there
_ROUND = 110.0  # a circle about the T that is free of it
_ROOM = 45.0  # a T this far from a wall can still be pushed off it
ENOUGH = 0.7  # the share of its home that the T is to cover
_HOME, _ANGLE = np.array([256.0, 256.0]), np.pi / 4  # where the T is at home, and how far turned: gym-pusht's goal
_OFF, _ASIDE, _TURN = (40.0, 80.0), 0.25, 0.3  # how far from there it begins; how far aside and turned (radians)
_SLIP = 8.0  # largest deviation of what a hand does from what it means: so that it shows how mistakes are mended


class Push:
    """The table as it is pushed on. ``hand``: actions without end, float32 [A], each for where the finger is when it is
    asked for."""

    def __init__(self, spec: PushTSpec, rng: np.random.Generator) -> None:
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # no screen is needed
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
        from gym_pusht.envs.pusht import PushTEnv

        self.env = PushTEnv(obs_type="state", observation_width=TABLE, observation_height=TABLE)
        _, self.info = self.env.reset(seed=int(rng.integers(2**31)))
        self.size, self.reward, self.won = spec.size, 0.0, False
        self.hand = map(self._towards, _targets(self, rng, spec.noise))

    def picture(self) -> np.ndarray:
        """uint8 [H, W, 3]: means over whole blocks of pixels, so that edges are smooth and small moves show."""
        import cv2

        return cv2.resize(self.env._render(), (self.size, self.size), interpolation=cv2.INTER_AREA)

    def here(self) -> np.ndarray:
        """float [2]: the finger's place."""
        return np.array(self.info["pos_agent"])

    def middle(self) -> np.ndarray:
        """float [2]: where the T has its centre of gravity."""
        return np.array(self.env.block.local_to_world(tuple(_MIDDLE)))

    def places(self) -> np.ndarray:
        """float [8, 2]: the corners of the T."""
        return np.array([self.env.block.local_to_world(tuple(corner)) for corner in _TEE])

    def felt(self) -> np.ndarray:
        """float [P]."""
        return np.concatenate([self.info["pos_agent"], self.info["vel_agent"]])

    def told(self) -> dict[str, Any]:
        """``proprio`` [P], and ``block`` [3]: the T's x, y and angle (radians), for tests and planners."""
        return {"proprio": self.felt(), "block": self.info["block_pose"]}

    def act(self, action: np.ndarray) -> None:
        """Go for a target for one step of 0.1 s: float32 [A], relative to where the finger is."""
        target = self.here() + SCALE * action.astype(np.float64)
        _, self.reward, self.won, _, self.info = self.env.step(target)

    def close(self) -> None:
        self.env.close()

    def _towards(self, target: np.ndarray) -> np.ndarray:
        return ((np.clip(target, 0, TABLE) - self.here()) / SCALE).astype(np.float32)


class Home(Push):
    """With a task: to push the T home. It begins off it on the side of its bar, where pushes bring it there. In two of
    five episodes a hand does; in others it comes to push the T anywhere, or to move at random, many from the start: a
    model that saw no failure imagines success."""

    def __init__(self, spec: PushTSpec, rng: np.random.Generator) -> None:
        super().__init__(spec, rng)
        self._middle = finger = _HOME + _MIDDLE @ _turned(_ANGLE)  # of the T at home
        middle = self._middle - [0, rng.uniform(*_OFF)] @ _turned(_ANGLE + rng.uniform(-_ASIDE, _ASIDE))
        while np.linalg.norm(finger - middle) < _ROUND:
            finger = rng.uniform(40, TABLE - 40, 2)
        state = [*finger, *(middle - _MIDDLE), _ANGLE + rng.uniform(-_TURN, _TURN)]  # turned about its middle
        _, self.info = self.env.reset(options={"reset_to_state": state})
        self.coverage, self._demo = float(self.env._get_coverage()), rng.random() < 0.4
        self.hand = map(self._towards, self._moves(spec, rng))

    def _moves(self, spec: PushTSpec, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Targets without end."""
        slip, slipped = rng.uniform(0, _SLIP), np.zeros(2)
        for step in range(spec.length if self._demo else rng.integers(-spec.length, spec.length)):
            if step % 5 == 0:
                slipped = rng.normal(0, slip, 2)
            yield self.here() + SCALE * self.expert() + slipped + rng.normal(0, spec.noise, 2)
        if rng.random() < 0.5:
            yield from _targets(self, rng, spec.noise)
        while True:
            drift = rng.uniform(-60, 60, 2)
            for _ in range(rng.integers(1, 15)):
                yield self.here() + np.clip(rng.normal(drift, 40), -SCALE, SCALE)

    def act(self, action: np.ndarray) -> None:
        super().act(action)
        self.coverage = float(self.info["coverage"])
        self.won = self.coverage >= ENOUGH

    def expert(self) -> np.ndarray:
        """What brings the T home, float32 [A]: to push where its bar is touched to where that is at home, the farther
        from its middle the more the T is aside or turned. Before that, and once it is there, to keep off it."""
        block, here, turned = self.env.block, self.here(), _turned(self.env.block.angle)
        aside, left = turned @ (self._middle - self.middle())
        touched = np.clip(50 * (_ANGLE - block.angle) - _MIDDLE[1] * aside / max(left, 20), -50, 50)
        x, y = turned @ (here - block.position)
        if left > 0 and self.coverage < 0.8 and abs(x - touched) < 15 and -45 < y < -8:
            return self._towards(here + _at_most(_HOME + [touched, -15] @ _turned(_ANGLE) - here, 14))
        start = np.array(block.local_to_world((touched, -32)))
        return self._towards(here + _at_most(_way_round(here, start, self.middle()) - here, 40))

    def told(self) -> dict[str, Any]:
        """Also ``measure``, how much of its home the T covers, and ``success``; ``expert`` [A], what would bring it
        there, and ``demo``, whether that is what the hand does."""
        measured = {**super().told(), "measure": self.coverage, "success": self.won}
        return {**measured, "expert": self.expert(), "demo": self._demo}


def _targets(push: Push, rng: np.random.Generator, noise: float) -> Iterator[np.ndarray]:
    """Targets without end: go round to a side of the T, push through it, now and then rest or wander."""
    while True:
        aim = rng.uniform(130, TABLE - 130, 2)  # where the T is to go
        start, heading = _choose_push(push, rng, aim)
        if rng.random() < 0.1:
            moves = _wander(push, rng.uniform(40, TABLE - 40, 2), lead=rng.uniform(20, 50))
        else:
            moves = _go_and_push(push, rng, start, heading)
        for target in moves:
            yield target + rng.normal(0, noise, 2)
        for _ in range(rng.integers(2, 6) if rng.random() < 0.2 else 0):
            yield push.here() + rng.normal(0, noise, 2)


def _go_and_push(push: Push, rng: np.random.Generator, start: np.ndarray, heading: np.ndarray) -> Iterator[np.ndarray]:
    """To the start round the T, then straight on along the heading until far enough or the T is at a wall."""
    lead = rng.uniform(30, 50)
    for _ in range(40):
        here = push.here()
        if np.linalg.norm(start - here) < 15:
            break
        yield here + _at_most(_way_round(here, start, push.middle()) - here, lead)
    lead, length, origin = rng.uniform(12, 32), rng.uniform(50, 180), push.here()
    for _ in range(40):
        here, corners = push.here(), push.places()
        at_wall = (corners.min(0) < _ROOM) & (heading < 0) | (corners.max(0) > TABLE - _ROOM) & (heading > 0)
        if (here - origin) @ heading > length or at_wall.any():
            return
        yield here + lead * heading


def _wander(push: Push, goal: np.ndarray, lead: float) -> Iterator[np.ndarray]:
    """Straight to a place, through whatever is in the way."""
    for _ in range(30):
        here = push.here()
        if np.linalg.norm(goal - here) < 20:
            return
        yield here + _at_most(goal - here, lead)


def _choose_push(push: Push, rng: np.random.Generator, aim: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of some random pushes the one that is near and moves the T towards ``aim``: where to start, and the heading."""
    corners, here, wanted = push.places(), push.here(), aim - push.middle()
    wanted = wanted / (np.linalg.norm(wanted) + 1e-6)
    edges = np.roll(corners, -1, 0) - corners
    lengths = np.linalg.norm(edges, axis=1)
    best, best_value = (here, wanted), -np.inf
    for _ in range(12):
        side = rng.choice(len(edges), p=lengths / lengths.sum())
        contact = corners[side] + rng.uniform(0.1, 0.9) * edges[side]
        outward = np.array([edges[side][1], -edges[side][0]]) / lengths[side]
        turn = rng.uniform(-0.5, 0.5)
        heading = -outward @ _turned(turn)
        start = contact - 30 * heading
        value = heading @ wanted - np.linalg.norm(start - here) / 250
        if value > best_value and start.min() >= 20 and start.max() <= TABLE - 20:
            best, best_value = (start, heading), value
    return best


def _way_round(here: np.ndarray, goal: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """The next place on the way to the goal that keeps off the T: along a circle while the goal is on another side."""
    angle = np.arctan2(*(here - middle)[::-1])
    left = (np.arctan2(*(goal - middle)[::-1]) - angle + np.pi) % (2 * np.pi) - np.pi
    if abs(left) < 0.5:
        return goal
    angle += np.sign(left) * 0.5
    return np.clip(middle + _ROUND * np.array([np.cos(angle), np.sin(angle)]), 20, TABLE - 20)


def _turned(angle: float) -> np.ndarray:
    """[2, 2]: turns rows by an angle."""
    return np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def _at_most(vector: np.ndarray, length: float) -> np.ndarray:
    return vector * min(1.0, length / (np.linalg.norm(vector) + 1e-6))
