"""Sessions over HTTP and WebSocket: the life cycle of vLLM-Omni's world-model sessions, and OpenEnv's ``/ws``.

    POST /v1/sessions -> step, imagine, fork, reset -> DELETE        GET /health /schema /openapi.json        WS /ws

What a client gets wrong is a 4xx with a code and a sentence.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from importlib import resources
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from rlvr_world.errors import InputError
from rlvr_world.sessions.session import SessionOver
from rlvr_world.sessions.shared import Held, Limits, SharedSessions, Worlds
from rlvr_world.sessions.wire import FIELDS, ROUTES, Refused, openapi, read_fields, schema

LOOPBACK = ("127.0.0.1", "::1", "localhost")
Given = Mapping[str, Any]


class Server:
    """HTTP and WebSocket in front of ``SharedSessions``."""

    def __init__(self, worlds: Worlds, limits: Limits | None = None, token: str = "", horizon: int = 32) -> None:
        """``token``: what every request has to bear, as ``Authorization: Bearer``; empty for none."""
        self.sessions, self.token = SharedSessions(worlds, limits or Limits(), horizon), token

    def app(self) -> Starlette:
        sessions = [
            Route(path, partial(self._endpoint, getattr(self, f"_{name}"), name, status), methods=[method])
            for name, (method, path, status, _) in ROUTES.items()
        ]
        return Starlette(
            routes=[
                *sessions,
                Route("/", self._page),
                Route("/health", self._health),
                Route("/schema", partial(self._endpoint, self._schema, "", 200)),
                Route("/openapi.json", self._openapi),
                WebSocketRoute("/ws", self._socket),
            ],
            lifespan=self._living,
        )

    @asynccontextmanager
    async def _living(self, app: Starlette) -> AsyncIterator[None]:
        keeper = asyncio.create_task(self.sessions.close_idle())
        yield
        keeper.cancel()
        with suppress(asyncio.CancelledError):
            await keeper
        await self.sessions.close_all()

    async def _endpoint(self, answer: Callable[..., Any], name: str, status: int, request: Request) -> Response:
        """``answer(request, the fields that its body has)`` with the token checked; what is refused, as 4xx."""
        try:
            self._check_token(request.headers.get("authorization", ""))
            given = read_fields(await self._body(request), name) if name in FIELDS else {}
            told = await answer(request, given)
            return told if isinstance(told, Response) else JSONResponse(told, status)
        except InputError as error:
            refused = _refusal(error)
            said = {"error": {"code": refused.code, "message": str(refused)}}
            return JSONResponse(said | ({"committed": refused.done} if refused.done else {}), refused.status)

    def _check_token(self, header: str) -> None:
        if self.token and not secrets.compare_digest(header.encode(), f"Bearer {self.token}".encode()):
            raise Refused(401, "unauthorized", "expected the header Authorization: Bearer TOKEN, as the server has it")

    async def _body(self, request: Request) -> bytes:
        body, most = b"", self.sessions.limits.body
        async for chunk in request.stream():
            body += chunk
            if len(body) > most:
                raise Refused(413, "too_large", f"expected a body of at most {most} bytes")
        return body

    def _held(self, request: Request) -> Held:
        return self.sessions.find(request.path_params["id"])

    async def _create(self, request: Request, given: Given) -> Any:
        name, held = await self.sessions.open(given)
        return {**held.last, "session_id": name, "world": held.world}

    async def _show(self, request: Request, given: Given) -> Any:
        held = self._held(request)
        return {**held.last, "world": held.world, "done": held.session.over, "seed": held.session.seed}

    async def _close(self, request: Request, given: Given) -> Any:
        self._held(request)
        self.sessions.close(request.path_params["id"])
        return Response(status_code=204)

    async def _reset(self, request: Request, given: Given) -> Any:
        held = self._held(request)
        await self.sessions.reset(held, given)
        return held.last

    async def _step(self, request: Request, given: Given) -> Any:
        return await self.sessions.step(self._held(request), given["action"], given.get("step_id"))

    async def _imagine(self, request: Request, given: Given) -> Any:
        return {"plans": await self.sessions.imagine(self._held(request), given)}

    async def _fork(self, request: Request, given: Given) -> Any:
        name, held = await self.sessions.fork(self._held(request), given)
        return {**held.last, "session_id": name, "world": held.world}

    async def _rows(self, request: Request, given: Given) -> Any:
        """What was done in this episode and what came of it, as a file that data of one's own are read from."""
        data, media, name = await self.sessions.saved(self._held(request))
        return Response(data, media_type=media, headers={"Content-Disposition": f'attachment; filename="{name}"'})

    async def _picture(self, request: Request, given: Given) -> Any:
        return Response(await self.sessions.picture(self._held(request)), media_type="image/png")

    # OpenEnv: a connection is a session

    async def _socket(self, client: WebSocket) -> None:
        await client.accept()
        name = ""
        try:
            self._check_token(client.headers.get("authorization", ""))
            while True:
                text = await client.receive_text()
                try:
                    kind, given = _message(text, self.sessions.limits.body)
                    if kind == "close":
                        break
                    if kind == "reset" and (name not in self.sessions.held or {"world", "horizon"} & given.keys()):
                        opened, held = await self.sessions.open(given)
                        self.sessions.close(name)
                        name, held.episode = opened, given.get("episode_id", "")
                        said = _observation(held)
                    else:
                        said = await self._answered(self.sessions.find(name), kind, given)
                except InputError as error:
                    refused = _refusal(error)
                    code = _CODES.get(refused.code, "EXECUTION_ERROR")
                    said = {"type": "error", "data": {"message": str(refused), "code": code}}
                await client.send_text(json.dumps(said))
            await client.close()
        except WebSocketDisconnect:
            pass
        except Refused as refused:
            await client.close(1008, str(refused))
        finally:
            self.sessions.close(name)

    async def _answered(self, held: Held, kind: str, given: Mapping[str, Any]) -> dict[str, Any]:
        if kind == "state":
            named = held.episode or str(held.session.seed)
            return {"type": "state", "data": {"episode_id": named, "step_count": held.session.steps}}
        if kind == "reset":
            await self.sessions.reset(held, given)
            held.episode = given.get("episode_id", "")
        else:
            await self.sessions.step(held, given["action"])
        return _observation(held)

    # what the server is

    async def _page(self, request: Request) -> Response:
        return HTMLResponse(resources.files("rlvr_world.sessions").joinpath("play.html").read_text(encoding="utf-8"))

    async def _health(self, request: Request) -> Response:
        held, worlds = self.sessions.held, self.sessions.worlds
        return JSONResponse({"status": "healthy", "sessions": len(held), "worlds": list(worlds)})

    async def _schema(self, request: Request, given: Given) -> Any:
        return schema(await self.sessions.world(request.query_params.get("world", next(iter(self.sessions.worlds)))))

    async def _openapi(self, request: Request) -> Response:
        return JSONResponse(openapi(list(self.sessions.worlds)))


_CODES = {"capacity_reached": "CAPACITY_REACHED", "session_not_found": "SESSION_ERROR"}
"""OpenEnv's names for what is refused."""


def _message(text: str, most: int) -> tuple[str, dict[str, Any]]:
    """A message of OpenEnv: its type, and its data, of which it is known what they are."""
    message: Any = None
    with suppress(ValueError, RecursionError):
        message = json.loads(text) if len(text) <= most else None
    kind = message.get("type") if isinstance(message, dict) else None
    if kind not in ("reset", "step", "state", "close"):
        raise InputError(f"message: expected JSON with the type reset, step, state or close, got {text:.60}")
    if kind not in ("reset", "step"):
        return kind, {}
    return kind, read_fields(json.dumps(message.get("data") or {}).encode(), f"openenv {kind}")


def _observation(held: Held) -> dict[str, Any]:
    last, seen = held.last, {name: held.last[name] for name in ("observation", "info")}
    data = {"observation": seen, "reward": last.get("reward"), "done": last.get("done", False)}
    return {"type": "observation", "data": data}


def _refusal(error: InputError) -> Refused:
    if isinstance(error, Refused):
        return error
    over = isinstance(error, SessionOver)
    return Refused(409 if over else 422, "episode_over" if over else "invalid_request", str(error))


def serve(server: Server, host: str, port: int) -> None:
    """Serve until SIGTERM or Ctrl-C. Raises InputError where nobody can, or may, listen there."""
    if host not in LOOPBACK and not server.token:
        raise InputError(f"serve: --host {host} can be reached from other machines; give a --token, or 127.0.0.1")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's delay off, 40 ms a request, only for sockets that say they are TCP
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
            listening.listen(128)
        except OSError as error:
            raise InputError(f"serve: cannot listen on {host}, port {port} ({error}); choose another --port") from error
        print(f"serving {', '.join(server.sessions.worlds)} on http://{host}:{listening.getsockname()[1]}/", flush=True)
        config = uvicorn.Config(server.app(), log_level="warning", timeout_graceful_shutdown=5)
        uvicorn.Server(config).run(sockets=[listening])
