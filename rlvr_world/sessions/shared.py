"""Sessions of many clients in the worlds of one server: opened, stepped in batches, forked, closed when left alone."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from rlvr_world.errors import InputError
from rlvr_world.sessions.session import STAYED, Session, Step, step_together
from rlvr_world.sessions.wire import Refused, plain, rows_file
from rlvr_world.types import World

T = TypeVar("T")
Worlds = Mapping[str, Callable[[], World]]
"""What opens each world, by its name."""


@dataclass(frozen=True)
class Limits:
    """What one server gives away at most."""

    sessions: int = 64
    idle: float = 600.0
    """Seconds after which a session that nobody asks is closed."""
    body: int = 4_000_000
    """Bytes of a request."""
    imagined: int = 4096
    """Steps of one ``imagine``: plans x samples x actions."""
    horizon: int = 10_000
    """Steps of an episode."""
    past: int = 1000
    """States of an episode that can be forked from or saved, the latest."""


class Left(NamedTuple):
    """A state that a session has left: in which world, by which action, and whether that was done or refused."""

    state: Any
    action: Any
    world: str
    done: bool


@dataclass
class Held:
    """A session that a client has, and when it was last asked."""

    session: Session
    world: str
    used: float = field(default_factory=time.monotonic)
    last: dict[str, Any] = field(default_factory=dict)
    """What its last step came to, for a client that did not get the answer."""
    episode: str = ""
    """What an OpenEnv client calls the episode."""
    past: list[Left] = field(default_factory=list)
    """The states that it has left, the latest ``Limits.past`` of them."""


@dataclass(frozen=True)
class _Asked:
    """A step that waits for the next batch."""

    held: Held
    action: Any
    step_id: int | None
    answer: asyncio.Future[dict[str, Any]]


class SharedSessions:
    """Sessions of some worlds, by name (``real``, ``rl/seed0``); a world is opened when it is first asked for.

    One thread works, so that worlds need not be safe to share, and makes JSON and pictures of what comes of it, so that
    nobody else waits for that; what came while it did is its next batch. All methods raise InputError where limits or
    names are not kept, and what ``Session`` raises. ``given`` are the fields of a request, see ``wire.read_fields``.
    """

    def __init__(self, worlds: Worlds, limits: Limits, horizon: int) -> None:
        """``horizon``: steps of an episode for which nobody asks for another."""
        self.worlds, self.limits, self.horizon = worlds, limits, horizon
        self.held: dict[str, Held] = {}
        self._opened: dict[str, World] = {}
        self._waiting: list[_Asked] = []
        self._lock = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1)  # always the same: a simulator draws where it drew before

    async def open(self, given: Mapping[str, Any]) -> tuple[str, Held]:
        """A new session, and its name."""
        self._check_room()
        name, horizon = given.get("world", next(iter(self.worlds))), given.get("horizon", self.horizon)
        if horizon > self.limits.horizon:
            raise InputError(f"horizon: expected at most {self.limits.horizon}, got {horizon}")
        held = Held(Session(await self.world(name), horizon), name)
        await self.reset(held, given)
        return self._hold(held), held

    def find(self, name: str) -> Held:
        if name not in self.held:
            raise Refused(404, "session_not_found", f"there is no session {name!r:.40}; it was closed, or never opened")
        self.held[name].used = time.monotonic()
        return self.held[name]

    def close(self, name: str) -> None:
        if held := self.held.pop(name, None):
            held.session.close()

    async def close_all(self) -> None:
        for world in self._opened.values():
            await self._away(world.close)

    async def close_idle(self) -> None:
        """Close what nobody asks, again and again."""
        while True:
            await asyncio.sleep(min(1.0, self.limits.idle))
            for name, held in list(self.held.items()):
                if time.monotonic() - held.used > self.limits.idle:
                    self.close(name)

    async def world(self, name: str) -> World:
        if name not in self.worlds:
            raise InputError(f"world: expected one of {', '.join(self.worlds)}, got {name!r:.40}")
        async with self._lock:
            if name not in self._opened:
                self._opened[name] = await self._away(self.worlds[name])
        return self._opened[name]

    async def reset(self, held: Held, given: Mapping[str, Any]) -> None:
        """Another episode."""

        def begin() -> dict[str, Any]:
            observation, info = held.session.reset(seed=given.get("seed"), options=given.get("options"))
            return _told(held.session.world, held.session.state, 0, observation=observation, info=info)

        held.last, held.past = await self._work(begin), []

    async def imagine(self, held: Held, given: Mapping[str, Any]) -> list[Any]:
        """The steps of each plan and sample, as JSON has them."""
        plans, n = given["plans"], given.get("n", 1)
        if not all(isinstance(plan, list) for plan in plans):
            raise InputError("plans: expected a list of lists of actions")
        if (steps := n * sum(map(len, plans))) > self.limits.imagined:
            raise InputError(f"plans: expected at most {self.limits.imagined} steps, got {steps}")

        def ahead() -> list[Any]:
            return [[[plain(_step(step)) for step in path] for path in plan] for plan in held.session.imagine(plans, n)]

        return await self._work(ahead)

    async def fork(self, held: Held, given: Mapping[str, Any]) -> tuple[str, Held]:
        """A session that stands where this one does, or did before ``step``; in another world where one is named."""
        self._check_room()
        async with self._lock:  # between two steps, so that the state and its past go together
            session, name = held.session.fork(given.get("seed")), given.get("world", held.world)
            other = Held(session, name, last=held.last, past=list(held.past))
        if back := session.steps - given.get("step", session.steps):
            if not 0 < back <= len(other.past):
                raise InputError(f"step: expected one of the latest {len(other.past)} of {session.steps} steps")
            session.state, other.past = other.past[-back].state, other.past[:-back]
            session.steps, session.over = session.steps - back, False
        if name != held.world:
            session = other.session = session.fork(world=await self.world(name))

        def begin() -> dict[str, Any]:
            session.state, info = session.world.start(session.seed, {"state": session.state})
            seen = session.world.observe(session.state)
            return _told(session.world, session.state, session.steps, observation=seen, info=info)

        if back or name != held.world:
            other.last = await self._work(begin)
        return self._hold(other), other

    async def saved(self, held: Held) -> tuple[bytes, str, str]:
        """Its episode as a file, see ``rows_file``: what was seen, as far as its past is kept, and what was done. An
        action that was refused, or whose answer did not read, says nothing of the world and is left out."""

        def write() -> tuple[bytes, str, str]:
            past = [left for left in held.past if left.done]
            seen = [self._opened[left.world].observe(left.state) for left in past]
            seen.append(held.session.world.observe(held.session.state))
            return rows_file(seen, [left.action for left in past])

        return await self._work(write)

    async def picture(self, held: Held) -> bytes:
        """PNG of where it stands, of a world that has more to show than it tells: real pages."""
        world, state = held.session.world, held.session.state
        if not hasattr(world, "picture"):
            raise Refused(404, "no_picture", f"the world {held.world} has no pictures but what it observes")
        return await self._work(lambda: bytes(world.picture(state)))

    async def step(self, held: Held, action: Any, step_id: int | None = None) -> dict[str, Any]:
        """What a step comes to, done with all others that wait; ``step_id`` makes it happen once."""
        held.session.world.read_action(action)
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Asked(held, action, step_id, answer))
        async with self._lock:
            while not answer.done():
                await self._step_some()
        return answer.result()

    async def _step_some(self) -> None:
        """One batch of the steps that wait: of one world, and of each session its first."""
        batch: dict[int, _Asked] = {}
        rest = []
        for asked in self._waiting:
            if id(asked.held) in batch or any(one.held.world != asked.held.world for one in batch.values()):
                rest.append(asked)
            elif refused := _out_of_order(asked):
                asked.answer.set_exception(refused)
            else:
                batch[id(asked.held)] = asked
        self._waiting = rest
        await self._carry_out(list(batch.values()))

    async def _carry_out(self, together: list[_Asked]) -> None:
        before = [asked.held.session.state for asked in together]
        try:
            told = await self._away(lambda: _steps(together))
        except Exception as error:  # noqa: BLE001 - whoever waits shall know
            if len(together) == 1:
                together[0].answer.set_exception(error)
            else:  # nobody fails for another's step: alone each comes to what it would have come to
                for asked in together:
                    await self._carry_out([asked])
            return
        for asked, state, last in zip(together, before, told, strict=True):
            left = Left(state, asked.action, asked.held.world, STAYED.isdisjoint(last["info"]))
            asked.held.past = [*asked.held.past, left][-self.limits.past :]
            asked.held.last = last
            asked.answer.set_result(last)

    def _check_room(self) -> None:
        if len(self.held) >= self.limits.sessions:
            raise Refused(503, "capacity_reached", f"{self.limits.sessions} sessions are open; close one, or wait")

    def _hold(self, held: Held) -> str:
        self._check_room()  # others may have come while this one began
        self.held[name := secrets.token_hex(8)] = held
        return name

    async def _work(self, run: Callable[[], T]) -> T:
        async with self._lock:
            return await self._away(run)

    async def _away(self, run: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, run)


def _step(step: Step) -> dict[str, Any]:
    return {name: getattr(step, name) for name in step._fields[:-1]} | {"done": step.over}


def _steps(together: list[_Asked]) -> list[dict[str, Any]]:
    sessions = [asked.held.session for asked in together]
    steps = step_together(sessions, [asked.action for asked in together])
    return [
        _told(session.world, step.state, session.steps, **_step(step))
        for session, step in zip(sessions, steps, strict=True)
    ]


def _told(world: World, state: Any, step_id: int, **parts: Any) -> dict[str, Any]:
    """Where a session stands, as JSON has it, and ``shown`` to a person; pictures show themselves."""
    text = world.render_mode == "ansi" and state is not None  # None: it was closed meanwhile
    shown = {"shown": world.render(state)} if text else {}
    return {**plain(parts), **shown, "step_id": step_id}


def _out_of_order(asked: _Asked) -> InputError | None:
    """Why this step is not the next one of its session."""
    steps, named = asked.held.session.steps, asked.step_id
    if named is not None and named != steps:
        code = "step_already_committed" if named < steps else "step_out_of_order"
        done = asked.held.last if named == steps - 1 else {}
        return Refused(409, code, f"step_id: expected {steps}, got {named}", done)
    try:
        asked.held.session.check_going()  # it may have ended, or been closed, since it was asked
    except InputError as error:
        return error
    return None
