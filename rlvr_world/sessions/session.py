"""One session in a world, real or imagined: a ``gymnasium.Env`` that can also look ahead and fork.

A world knows how states move; a session knows where it is. States are values, so that a fork is a reference, plans that
begin in one state are asked together, and nothing else is held between steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import gymnasium as gym

from rlvr_world.errors import InputError
from rlvr_world.types import Outcome, World

LOST = frozenset({"malformed", "lost"})
"""Reasons in a step's ``info`` for which there is no going on: the model's answer does not read, the page is gone."""
STAYED = LOST | {"action_error"}
"""Reasons for which the state stays."""


class SessionOver(InputError):
    """A step where the episode has not begun, or has ended."""


class SessionClosed(InputError):
    """A session that was closed."""


class Step(NamedTuple):
    """What a step of a plan comes to: what ``Session.step`` returns, and the state itself."""

    observation: Any
    reward: float
    terminated: bool
    truncated: bool
    info: Mapping[str, Any]
    state: Any

    @property
    def over(self) -> bool:
        return self.terminated or self.truncated


class Session(gym.Env):
    """An episode after another in a world.

    >>> session = Session(Imagined("runs/demo"))
    >>> observation, info = session.reset(seed=3)
    >>> observation, reward, terminated, truncated, info = session.step("open door")
    """

    def __init__(self, world: World, horizon: int = 32, render_mode: str | None = None):
        """``horizon``: steps after which an episode is truncated."""
        if horizon < 1:
            raise InputError(f"session: horizon: expected at least 1 step, got {horizon}")
        if render_mode not in (None, world.render_mode):
            raise InputError(f"session: render_mode: expected None or {world.render_mode}, got {render_mode!r}")
        self.world, self.horizon, self.render_mode = world, horizon, render_mode
        self.metadata = {"render_modes": [world.render_mode], "render_fps": 10}
        self.action_space, self.observation_space = world.action_space, world.observation_space
        self.state: Any = None
        self.steps, self.seed, self.over, self.closed = 0, 0, True, False

    def reset(self, *, seed: int | None = None, options: Mapping[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode; ``seed`` says where, and names all its draws. ``options``: see the world's ``start``."""
        self._usable()
        if not isinstance(options, Mapping | None):
            raise InputError(f"session: options: expected a mapping, got {options!r:.80}")
        known = getattr(self.world, "options", None) or options or ()  # a world that does not say takes any
        if unknown := [name for name in options or () if name not in known]:
            raise InputError(f"start: expected options out of {', '.join(known)}, got {unknown[0]!r:.80}")
        super().reset(seed=seed)
        self.seed = int(self.np_random.integers(2**31)) if seed is None else seed
        self.state, info = self.world.start(self.seed, options or {})
        self.steps, self.over = 0, False
        return self.world.observe(self.state), dict(info)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Do it. ``info["action_error"]``: it is no action here, and the state stays; ``info["malformed"]``: nobody
        can read what the model answered, the state stays and the episode is truncated.

        Raises SessionOver after the end, SessionClosed after ``close``, InputError for an action of another kind.
        """
        [step] = step_together([self], [action])
        return *step[:4], dict(step.info)

    def imagine(self, plans: Sequence[Sequence[Any]], n: int = 1) -> list[list[list[Step]]]:
        """What would come of each plan (actions in order), ``n`` times each: ``[plan][sample][step]``, shorter where an
        episode would end. Moves nothing.

        Draws are named (seed, step, plan, sample): whatever else is asked, each is the same, and sample 0 of plan 0 is
        what ``step`` would come to.
        """
        self.check_going()
        read = [[self.world.read_action(action) for action in plan] for plan in plans]
        paths: dict[tuple[int, int], list[Step]] = {(p, s): [] for p in range(len(read)) for s in range(n)}
        for depth in range(max(map(len, read), default=0)):
            live = [key for key, path in paths.items() if len(read[key[0]]) > depth and not (path and path[-1].over)]
            asked = [(paths[key][-1].state if depth else self.state, read[key[0]][depth]) for key in live]
            outcomes = self.world.advance(asked, [self.stream(depth, *key) for key in live])
            for key, step in zip(live, _shown([(self, self.steps + depth + 1)] * len(live), outcomes), strict=True):
                paths[key].append(step)
        return [[paths[p, s] for s in range(n)] for p in range(len(read))]

    def fork(self, seed: int | None = None, world: World | None = None) -> Session:
        """Another session that stands where this one does; ``seed`` names other draws from here on. In another
        ``world`` it has to be reset with this one's state."""
        self._usable()
        other = Session(world or self.world, self.horizon, self.render_mode)
        other.state, other.steps, other.over = self.state, self.steps, self.over
        other.seed = self.seed if seed is None else seed
        return other

    def render(self) -> Any:
        self._usable()
        return None if self.render_mode is None or self.state is None else self.world.render(self.state)

    def close(self) -> None:
        """The session is done; its world, which others may use, has a ``close`` of its own."""
        self.closed, self.over, self.state = True, True, None

    def stream(self, ahead: int = 0, plan: int = 0, sample: int = 0) -> tuple[int, ...]:
        """The name of the draws so many steps ahead."""
        return (self.seed, self.steps + ahead, plan, sample)

    def _usable(self) -> None:
        if self.closed:
            raise SessionClosed("session: it is closed; open another")

    def check_going(self) -> None:
        """Raises SessionClosed or SessionOver where no step can be taken."""
        self._usable()
        if self.over:
            raise SessionOver("session: its episode is over, or has not begun; reset it")


def step_together(sessions: Sequence[Session], actions: Sequence[Any]) -> list[Step]:
    """A step in each of some sessions of one world: what a model reads, it reads in one batch. Each comes to what it
    would come to alone. Raises what ``Session.step`` raises, and then none has moved."""
    for session in sessions:
        session.check_going()
    if len({id(session.world) for session in sessions}) > 1:
        raise ValueError("sessions step together that have one world")
    read = [session.world.read_action(action) for session, action in zip(sessions, actions, strict=True)]
    asked = [(session.state, action) for session, action in zip(sessions, read, strict=True)]
    outcomes = sessions[0].world.advance(asked, [session.stream() for session in sessions]) if sessions else []
    steps = _shown([(session, session.steps + 1) for session in sessions], outcomes)
    for session, step in zip(sessions, steps, strict=True):
        session.state, session.steps, session.over = step.state, session.steps + 1, step.over
    return steps


def _shown(of: Sequence[tuple[Session, int]], outcomes: Sequence[Outcome]) -> list[Step]:
    """The steps that outcomes make in their sessions, whose episodes are then so many steps old."""
    steps = []
    for (session, age), outcome in zip(of, outcomes, strict=True):
        cut = not outcome.terminated and (age >= session.horizon or not LOST.isdisjoint(outcome.info))
        seen = session.world.observe(outcome.state)
        steps.append(Step(seen, outcome.reward, outcome.terminated, cut, outcome.info, outcome.state))
    return steps
