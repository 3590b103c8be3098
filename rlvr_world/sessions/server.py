"""Sessions over HTTP and WebSocket: the life cycle of vLLM-Omni's world-model sessions, and OpenEnv's ``/ws``.

    POST /v1/sessions -> step, imagine, fork, reset -> DELETE        GET /health /schema /openapi.json        WS /ws

Nothing but sessions is held. Requests that come together are one batch: a step is done once, and is the same whatever
it is batched with. What a client gets wrong is a 4xx with a code and a sentence.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from rlvr_world.errors import InputError
from rlvr_world.sessions.session import Session, SessionOver, Step, step_together
from rlvr_world.sessions.wire import Refused, openapi, plain, read_fields, rows_file, schema
from rlvr_world.types import World


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


@dataclass
class Held:
    """A session that a client has, and when it was last asked."""

    session: Session
    world: str
    used: float = field(default_factory=time.monotonic)
    last: dict[str, Any] = field(default_factory=dict)
    """What its last step came to, for a client that did not get the answer."""
    past: list[tuple[Any, Any]] = field(default_factory=list)
    """The states that it has left, the latest ``Limits.past`` of them, and the actions that were done there."""


@dataclass(frozen=True)
class _Asked:
    """A step that waits for the next batch."""

    held: Held
    action: Any
    step_id: int | None
    answer: asyncio.Future[dict[str, Any]]


class Server:
    """The sessions of some worlds, by name (``real``, ``rl/seed0``); each world is opened when it is first asked for.

    One thread works, so that worlds need not be safe to share; what came while it did is its next batch.
    """

    def __init__(
        self,
        worlds: Mapping[str, Callable[[], World]],
        limits: Limits | None = None,
        token: str = "",
        horizon: int = 32,
    ) -> None:
        """``token``: what every request has to bear, as ``Authorization: Bearer``; empty for none."""
        self.worlds, self.limits, self.token, self.horizon = worlds, limits or Limits(), token, horizon
        self.held: dict[str, Held] = {}
        self._opened: dict[str, World] = {}
        self._steps: list[_Asked] = []
        self._lock = asyncio.Lock()

    def app(self) -> Starlette:
        one = "/v1/sessions/{id}"
        routes = [
            Route("/", self._page),
            Route("/health", self._health),
            Route("/schema", self._schema),
            Route("/openapi.json", self._openapi),
            Route("/v1/sessions", self._endpoint("create", self._create), methods=["POST"]),
            Route(one, self._endpoint("", self._show), methods=["GET"]),
            Route(f"{one}/rows", self._endpoint("", self._rows), methods=["GET"]),
            Route(one, self._endpoint("", self._close), methods=["DELETE"]),
            *(
                Route(f"{one}/{name}", self._endpoint(name, run), methods=["POST"])
                for name, run in (("step", self._step), ("imagine", self._imagine), ("fork", self._fork))
            ),
            Route(f"{one}/reset", self._endpoint("reset", self._reset), methods=["POST"]),
            WebSocketRoute("/ws", self._socket),
        ]
        return Starlette(routes=routes, lifespan=self._living)

    @asynccontextmanager
    async def _living(self, app: Starlette) -> AsyncIterator[None]:
        keeper = asyncio.create_task(self._forget_idle())
        yield
        keeper.cancel()
        with suppress(asyncio.CancelledError):
            await keeper
        for world in self._opened.values():
            await asyncio.to_thread(world.close)

    async def _forget_idle(self) -> None:
        while True:
            await asyncio.sleep(min(1.0, self.limits.idle))
            for name, held in list(self.held.items()):
                if time.monotonic() - held.used > self.limits.idle:
                    self._drop(name)

    def _drop(self, name: str) -> None:
        if held := self.held.pop(name, None):
            held.session.close()

    # requests

    def _endpoint(self, name: str, run: Callable[..., Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        """A request checked and read: its token, its body's fields, its session; faults as 4xx."""

        async def endpoint(request: Request) -> Response:
            try:
                self._check_token(request.headers.get("authorization", ""))
                given = [read_fields(await self._body(request), name)] if name else []
                return await run(*([self._find(request.path_params["id"])] if request.path_params else []), *given)
            except Refused as refused:
                return _fault(refused)
            except InputError as error:
                return _fault(_refusal(error))

        return endpoint

    def _check_token(self, header: str) -> None:
        if self.token and not secrets.compare_digest(header.encode(), f"Bearer {self.token}".encode()):
            raise Refused(
                401, "unauthorized", "expected the header Authorization: Bearer TOKEN, as the server was told"
            )

    async def _body(self, request: Request) -> bytes:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > self.limits.body:
                raise Refused(413, "too_large", f"expected a body of at most {self.limits.body} bytes")
        return body

    def _find(self, name: str) -> Held:
        if name not in self.held:
            raise Refused(404, "session_not_found", f"there is no session {name!r:.40}; it was closed, or never opened")
        self.held[name].used = time.monotonic()
        return self.held[name]

    async def _create(self, given: Mapping[str, Any]) -> Response:
        held = await self._begin(given)
        observation, info = held.last["observation"], held.last["info"]
        told = {"session_id": self._hold(held), "world": held.world, "created_at": time.time(), "step_id": 0}
        return JSONResponse({**told, "observation": observation, "info": info}, 201)

    async def _begin(self, given: Mapping[str, Any]) -> Held:
        self._check_room()
        name = given.get("world", next(iter(self.worlds)))
        horizon = given.get("horizon", self.horizon)
        if horizon > self.limits.horizon:
            raise Refused(422, "invalid_request", f"horizon: expected at most {self.limits.horizon}, got {horizon}")
        held = Held(Session(await self._world(name), horizon), name)
        await self._begin_again(held, given)
        return held

    async def _begin_again(self, held: Held, given: Mapping[str, Any]) -> None:
        observation, info = await self._work(held.session.reset, seed=given.get("seed"), options=given.get("options"))
        held.past = []
        held.last = {"observation": plain(observation), "info": plain(info)}

    def _check_room(self) -> None:
        if len(self.held) >= self.limits.sessions:
            raise Refused(503, "capacity_reached", f"{self.limits.sessions} sessions are open; close one, or wait")

    def _hold(self, held: Held) -> str:
        self._check_room()  # others may have come while this one began
        self.held[name := secrets.token_hex(8)] = held
        return name

    async def _world(self, name: str) -> World:
        if name not in self.worlds:
            raise Refused(422, "invalid_request", f"world: expected one of {', '.join(self.worlds)}, got {name!r:.40}")
        async with self._lock:
            if name not in self._opened:
                self._opened[name] = await asyncio.to_thread(self.worlds[name])
        return self._opened[name]

    async def _work(self, run: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        async with self._lock:
            return await asyncio.to_thread(run, *args, **kwargs)

    async def _show(self, held: Held) -> Response:
        session = held.session
        told = {"world": held.world, "step_id": session.steps, "done": session.over, "seed": session.seed}
        return JSONResponse({**told, **held.last})

    async def _close(self, held: Held) -> Response:
        self._drop(next(name for name, one in self.held.items() if one is held))
        return Response(status_code=204)

    async def _reset(self, held: Held, given: Mapping[str, Any]) -> Response:
        await self._begin_again(held, given)
        return JSONResponse({"step_id": 0, **held.last})

    async def _step(self, held: Held, given: Mapping[str, Any]) -> Response:
        return JSONResponse(await self._stepped(held, given["action"], given.get("step_id")))

    async def _imagine(self, held: Held, given: Mapping[str, Any]) -> Response:
        plans, n = given["plans"], given.get("n", 1)
        if not all(isinstance(plan, list) for plan in plans):
            raise Refused(422, "invalid_request", "plans: expected a list of lists of actions")
        if (steps := n * sum(map(len, plans))) > self.limits.imagined:
            raise Refused(422, "invalid_request", f"plans: expected at most {self.limits.imagined} steps, got {steps}")
        found = await self._work(held.session.imagine, plans, n)
        return JSONResponse({"plans": [[[_told(step) for step in one] for one in plan] for plan in found]})

    async def _fork(self, held: Held, given: Mapping[str, Any]) -> Response:
        self._check_room()
        other = Held(held.session.fork(given.get("seed")), held.world, last=held.last, past=list(held.past))
        if (back := held.session.steps - given.get("step", held.session.steps)) != 0:
            self._go_back(other, back)
        if (name := given.get("world", held.world)) != held.world:
            world, session = await self._world(name), other.session
            other.session, other.world = Session(world, session.horizon), name
            start = {"seed": session.seed, "options": {"state": session.state}}
            await self._begin_again(other, start)
            other.session.steps, other.session.over = session.steps, session.over
        return JSONResponse({"session_id": self._hold(other), "step_id": other.session.steps, **other.last}, 201)

    def _go_back(self, held: Held, steps: int) -> None:
        """Where the session was so many steps ago."""
        session, known = held.session, len(held.past)
        if not 0 < steps <= known:
            raise Refused(422, "invalid_request", f"step: expected one of the latest {known} of {session.steps} steps")
        session.state, session.steps, session.over = held.past[-steps][0], session.steps - steps, False
        held.last = {"observation": plain(session.world.observe(session.state)), "info": {}}
        held.past = held.past[:-steps]

    async def _rows(self, held: Held) -> Response:
        """What was done in this episode and what came of it, as a file that data of one's own are read from."""
        session = held.session
        states = [session.world.observe(state) for state, _ in held.past] + [session.world.observe(session.state)]
        data, media, name = rows_file(states, [action for _, action in held.past])
        return Response(data, media_type=media, headers={"Content-Disposition": f'attachment; filename="{name}"'})

    # steps, in batches

    async def _stepped(self, held: Held, action: Any, step_id: int | None) -> dict[str, Any]:
        """What a step comes to, done with all others that wait."""
        held.session.world.read_action(action)
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._steps.append(_Asked(held, action, step_id, answer))
        async with self._lock:
            if not answer.done():
                await self._step_all()
        return answer.result()

    async def _step_all(self) -> None:
        """Every step that waits: those of one world in one batch, a second one of a session in a later batch."""
        while self._steps:
            batch: dict[int, _Asked] = {}
            rest = []
            for asked in self._steps:
                fits = id(asked.held) not in batch and all(one.held.world == asked.held.world for one in batch.values())
                if not fits:
                    rest.append(asked)
                elif (refused := _out_of_order(asked)) is not None:
                    asked.answer.set_exception(refused)
                else:
                    batch[id(asked.held)] = asked
            self._steps = rest
            together = list(batch.values())
            before = [one.held.session.state for one in together]
            try:
                steps = await asyncio.to_thread(
                    step_together, [one.held.session for one in together], [one.action for one in together]
                )
            except Exception as error:  # noqa: BLE001 - each that waits shall know
                for asked in together:
                    asked.answer.set_exception(error)
                continue
            for asked, state, step in zip(together, before, steps, strict=True):
                asked.held.past = [*asked.held.past, (state, asked.action)][-self.limits.past :]
                asked.held.last = {**_told(step), "step_id": asked.held.session.steps}
                asked.answer.set_result(asked.held.last)

    # OpenEnv: a connection is a session

    async def _socket(self, socket: WebSocket) -> None:
        await socket.accept()
        name = ""
        try:
            self._check_token(socket.headers.get("authorization", ""))
            while True:
                text = await socket.receive_text()
                try:
                    message = _message(text, self.limits.body)
                    if message["type"] == "close":
                        break
                    if message["type"] == "reset" and name not in self.held:
                        name = self._hold(await self._begin(message["data"]))
                        said = _openenv(self.held[name].last)
                    else:
                        said = await self._answered(self._find(name), message)
                except InputError as error:
                    refused = _refusal(error)
                    said = {
                        "type": "error",
                        "data": {"message": str(refused), "code": _OPENENV.get(refused.code, _FAILED)},
                    }
                await socket.send_text(json.dumps(said))
            await socket.close()
        except WebSocketDisconnect:
            pass
        except Refused as refused:
            await socket.close(1008, str(refused))
        finally:
            self._drop(name)

    async def _answered(self, held: Held, message: Mapping[str, Any]) -> dict[str, Any]:
        given = message["data"]
        if message["type"] == "reset":
            await self._begin_again(held, given)
        elif message["type"] == "step":
            await self._stepped(held, given["action"], None)
        else:
            return {"type": "state", "data": {"episode_id": str(held.session.seed), "step_count": held.session.steps}}
        return _openenv(held.last)

    # what the server is

    async def _page(self, request: Request) -> Response:
        return HTMLResponse(resources.files("rlvr_world.sessions").joinpath("play.html").read_text(encoding="utf-8"))

    async def _health(self, request: Request) -> Response:
        return JSONResponse({"status": "healthy", "sessions": len(self.held), "worlds": list(self.worlds)})

    async def _schema(self, request: Request) -> Response:
        try:
            world = await self._world(request.query_params.get("world", next(iter(self.worlds))))
        except InputError as error:
            return _fault(_refusal(error))
        return JSONResponse(schema(world))

    async def _openapi(self, request: Request) -> Response:
        return JSONResponse(openapi(list(self.worlds)))


_FAILED = "EXECUTION_ERROR"
_OPENENV = {"capacity_reached": "CAPACITY_REACHED", "session_not_found": "SESSION_ERROR"}


def _message(text: str, most: int) -> dict[str, Any]:
    """A message of OpenEnv: its type and data, checked as a request of that name is."""
    message: Any = None
    with suppress(ValueError, RecursionError):
        message = json.loads(text) if len(text) <= most else None
    kind = message.get("type") if isinstance(message, dict) else None
    if kind not in ("reset", "step", "state", "close"):
        raise InputError(f"message: expected JSON with the type reset, step, state or close, got {text:.60}")
    data = message.get("data") or {}
    name = {"reset": "create", "step": "step"}.get(kind)
    return {"type": kind, "data": read_fields(json.dumps(data).encode(), name) if name else {}}


def _openenv(last: Mapping[str, Any]) -> dict[str, Any]:
    done = bool(last.get("terminated") or last.get("truncated"))
    seen = {"observation": last["observation"], "info": last["info"]}
    return {"type": "observation", "data": {"observation": seen, "reward": last.get("reward"), "done": done}}


def _out_of_order(asked: _Asked) -> InputError | None:
    """Why this step is not the next one of its session."""
    steps, named = asked.held.session.steps, asked.step_id
    if named is not None and named != steps:
        code = "step_already_committed" if named < steps else "step_out_of_order"
        return Refused(
            409, code, f"step_id: expected {steps}, got {named}", asked.held.last if named == steps - 1 else {}
        )
    try:
        asked.held.session.check_going()  # it may have ended, or been closed, since it was asked
    except InputError as error:
        return error
    return None


def _refusal(error: InputError) -> Refused:
    if isinstance(error, Refused):
        return error
    over = isinstance(error, SessionOver)
    return Refused(409 if over else 422, "episode_over" if over else "invalid_request", str(error))


def _fault(refused: Refused) -> Response:
    told = {"error": {"code": refused.code, "message": str(refused)}}
    return JSONResponse(told | ({"committed": refused.done} if refused.done else {}), refused.status)


def _told(step: Step) -> dict[str, Any]:
    parts = {name: plain(getattr(step, name)) for name in ("observation", "reward", "terminated", "truncated", "info")}
    return {**parts, "done": step.over}
