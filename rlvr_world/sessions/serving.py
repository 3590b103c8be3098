"""Which worlds a model's server offers, and the server run."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rlvr_world.errors import InputError
from rlvr_world.runs.folder import models_of, run_of
from rlvr_world.runs.world_model import load
from rlvr_world.sessions.imagined import Imagined
from rlvr_world.sessions.terminal import play
from rlvr_world.types import World

if TYPE_CHECKING:
    from rlvr_world.sessions.server import Server

LOOPBACK = ("127.0.0.1", "::1", "localhost")


def worlds_of(source: str) -> dict[str, Callable[[], World]]:
    """By name what opens each world: of a run its last model of each stage, the best first, else the one model; and
    ``real``; where there is no real world to step, stderr says why. The first model is opened at once, so that what is
    no model shows before anybody asks."""
    run = Path(source).expanduser()
    models = {name: str(model) for name, model in models_of(run).items()} if run_of(run) == run else {"model": source}
    worlds: dict[str, Callable[[], World]] = {name: partial(Imagined, model) for name, model in models.items()}
    first, model = next(iter(models.items()))
    worlds[first] = partial(Imagined, opened := load(model))
    try:
        real = opened.real()
    except InputError as error:
        print(f"no real world: {error}", file=sys.stderr)
        return worlds
    return {**worlds, "real": lambda: real}


def play_in_terminal(worlds: Mapping[str, Callable[[], World]], seed: int) -> None:
    """The first world, beside the real one where there is one."""
    play(next(iter(worlds.values()))(), worlds["real"]() if "real" in worlds else None, sys.stdin, seed)


def serve(server: Server, host: str, port: int) -> None:
    """Serve until SIGTERM or Ctrl-C. Raises InputError where nobody can, or may, listen there."""
    import uvicorn

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
