"""Sessions over HTTP and WebSocket: a real server on a free port, asked by clients that behave, retry, lie and die."""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import random
import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

uvicorn = pytest.importorskip("uvicorn", reason="pip install 'rlvr-world[serve]'")
from websockets.sync.client import connect  # noqa: E402 - comes with the server

from rlvr_world.errors import InputError  # noqa: E402
from rlvr_world.sessions import shared  # noqa: E402
from rlvr_world.sessions.server import Server, serve  # noqa: E402
from rlvr_world.sessions.shared import Limits, SharedSessions  # noqa: E402
from rlvr_world.sessions.wire import plain  # noqa: E402
from rlvr_world.types import Asked, Outcome, Streams  # noqa: E402
from tests.sessions.server_load import noise  # noqa: E402


class Counter:
    """A number that grows by what is asked; what is drawn shows in ``info``. It notes how many came together."""

    action_space = gym.spaces.Box(0, 9, (1,), np.float32)
    observation_space = gym.spaces.Box(0, 255, (2, 2, 3), np.uint8)
    render_mode = "rgb_array"

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.closed = False

    def start(self, seed: int, options: Any) -> tuple[int, dict[str, Any]]:
        state = options.get("state", seed % 7)
        if not isinstance(state, int):
            raise InputError(f"start, state: expected a number, got {state!r:.40}")
        return state, {"seed": seed}

    def read_action(self, given: Any) -> int:
        if not isinstance(given, int) or isinstance(given, bool) or not 0 <= given <= 9:
            raise InputError(f"action: expected a number from 0 to 9, got {given!r:.40}")
        return given

    def advance(self, asked: Asked, streams: Streams) -> list[Outcome]:
        self.batches.append(len(asked))
        time.sleep(0.002)
        return [
            Outcome(state + action, float(action), state + action >= 1000, {"stream": list(stream)})
            for (state, action), stream in zip(asked, streams, strict=True)
        ]

    def observe(self, state: int) -> np.ndarray:
        return np.full((2, 2, 3), state % 256, np.uint8)

    render = observe

    def close(self) -> None:
        self.closed = True


class Client:
    """One connection to the server."""

    def __init__(self, port: int, token: str = "") -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}

    def __call__(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        sent = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        self.connection.request(method, path, sent, self.headers)
        answer = self.connection.getresponse()
        read = answer.read()
        return answer.status, json.loads(read) if read else None

    def open(self, **given: Any) -> str:
        status, told = self("POST", "/v1/sessions", given)
        assert status == 201, told
        return str(told["session_id"])

    def step(self, name: str, action: Any, step_id: int | None = None) -> tuple[int, Any]:
        return self("POST", f"/v1/sessions/{name}/step", {"action": action, "step_id": step_id})


class Running:
    """A server in a thread of its own."""

    def __init__(self, limits: Limits | None = None, token: str = "") -> None:
        self.worlds = {"one": Counter(), "two": Counter()}
        self.server = Server({name: lambda w=w: w for name, w in self.worlds.items()}, limits, token)
        self.running = uvicorn.Server(uvicorn.Config(self.server.app(), port=0, log_level="error"))
        self.thread = threading.Thread(target=self.running.run, daemon=True)
        self.thread.start()
        while not self.running.started:
            time.sleep(0.01)
        self.port = self.running.servers[0].sockets[0].getsockname()[1]

    def stop(self) -> None:
        self.running.should_exit = True
        self.thread.join(10)
        assert not self.thread.is_alive()


@pytest.fixture
def running() -> Iterator[Running]:
    one = Running(Limits(sessions=8, body=20_000, imagined=50, horizon=4000))
    yield one
    one.stop()
    assert one.worlds["one"].closed or not one.worlds["one"].batches, "an ended server closes its worlds"


@pytest.fixture
def client(running: Running) -> Client:
    return Client(running.port)


def test_the_life_of_a_session(client: Client) -> None:
    status, told = client("POST", "/v1/sessions", {"seed": 3, "horizon": 3})
    assert (status, told["step_id"], told["info"], told["world"]) == (201, 0, {"seed": 3}, "one")
    assert told["observation"].startswith("data:image/png;base64,")
    name = told["session_id"]
    status, step = client.step(name, 2, 0)
    assert (status, step["reward"], step["step_id"], step["done"]) == (200, 2.0, 1, False)
    assert step["info"]["stream"] == [3, 0, 0, 0]
    status, seen = client("GET", f"/v1/sessions/{name}")
    assert (status, seen["step_id"], seen["seed"], seen["done"]) == (200, 1, 3, False)
    status, plans = client("POST", f"/v1/sessions/{name}/imagine", {"plans": [[1, 1], [5]], "n": 2})
    assert [[len(one) for one in plan] for plan in plans["plans"]] == [[2, 2], [1, 1]]
    assert client("GET", f"/v1/sessions/{name}")[1]["step_id"] == 1, "imagining moves nothing"
    status, other = client("POST", f"/v1/sessions/{name}/fork", {"world": "two", "seed": 9})
    assert (status, other["step_id"]) == (201, 1)
    assert client.step(other["session_id"], 1)[1]["info"]["stream"] == [9, 1, 0, 0]
    assert client.step(name, 1)[0] == 200
    assert client.step(name, 1)[1]["truncated"]
    assert client("POST", f"/v1/sessions/{name}/reset", {"seed": 4})[1]["step_id"] == 0
    assert client("DELETE", f"/v1/sessions/{name}")[0] == 204
    assert client.step(name, 1)[0] == 404


def test_a_step_happens_once(client: Client) -> None:
    name = client.open(seed=0, horizon=2)
    first = client.step(name, 4, 0)[1]
    status, again = client.step(name, 4, 0)
    assert (status, again["error"]["code"]) == (409, "step_already_committed")
    assert again["committed"] == first, "a client that did not get the answer gets it now"
    status, early = client.step(name, 4, 5)
    assert (status, early["error"]["code"], early.get("committed")) == (409, "step_out_of_order", None)
    assert client.step(name, 4, 1)[1]["truncated"]
    assert client.step(name, 4, 1)[1]["error"]["code"] == "step_already_committed"
    assert client.step(name, 4, 2)[1]["error"]["code"] == "episode_over"


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("", b"{", "body: expected a JSON object"),
        ("", b"[" * 5000, "body: expected a JSON object"),
        ("", b'{"seed": 1' + b"0" * 5000 + b"}", "body: expected a JSON object"),
        ("", b"\xff\xfe", "body: expected a JSON object"),
        ("", {"seed": -1}, "seed: expected integer"),
        ("", {"seed": True}, "seed: expected integer"),
        ("", {"seed": 2**70}, "seed: expected integer"),
        ("", {"sede": 1}, "'sede': expected one of world, seed"),
        ("", {"world": "three"}, "world: expected one of one, two"),
        ("", {"horizon": 0}, "horizon: expected integer"),
        ("", {"horizon": 5000}, "horizon: expected at most 4000"),
        ("", {"options": {"state": "x"}}, "start, state: expected a number"),
        ("/step", {}, "action: expected it in the body"),
        ("/step", {"action": None}, "action: expected it in the body"),
        ("/step", {"action": "\ud800"}, "body: expected a JSON object"),
        ("/imagine", {"plans": None}, "plans: expected it in the body"),
        ("/step", {"action": [1]}, "action: expected a number from 0 to 9"),
        ("/imagine", {"plans": [1]}, "plans: expected a list of lists"),
        ("/imagine", {"plans": [[1]] * 30, "n": 2}, "plans: expected at most 50 steps, got 60"),
        ("/imagine", {"plans": [["x"]]}, "action: expected a number"),
    ],
)
def test_what_a_client_gets_wrong_is_said(client: Client, path: str, body: Any, said: str) -> None:
    name = client.open()
    status, told = client("POST", f"/v1/sessions/{name}{path}" if path else "/v1/sessions", body)
    assert (status, told["error"]["code"]) == (422, "invalid_request")
    assert said in told["error"]["message"]
    assert client.step(name, 1)[0] == 200, "the session is as it was"


def test_an_earlier_step_can_be_gone_back_to_and_the_episode_saved(client: Client) -> None:
    name = client.open(seed=0, options={"state": 0})
    for action in (1, 2, 3):
        client.step(name, action)
    status, other = client("POST", f"/v1/sessions/{name}/fork", {"step": 1})
    assert (status, other["step_id"]) == (201, 1)
    assert client.step(other["session_id"], 5)[1]["info"]["stream"] == [0, 1, 0, 0]
    assert client("POST", f"/v1/sessions/{name}/fork", {"step": 4})[0] == 422
    status, told = client("GET", f"/v1/sessions/{name}/picture")
    assert (status, told["error"]["code"]) == (404, "no_picture"), "frames are pictures themselves"
    client.connection.request("GET", f"/v1/sessions/{other['session_id']}/rows")
    answer = client.connection.getresponse()
    with np.load(io.BytesIO(answer.read())) as saved:
        assert saved["image"][:, 0, 0, 0].tolist() == [0, 1, 6]
        assert saved["action"].tolist() == [1, 5]


def test_what_is_asked_as_a_step_ends_sees_it_whole() -> None:
    """The step's thread is done, but its past is not written down yet."""

    async def ask(what: str) -> Any:
        shared = SharedSessions({"one": Counter}, Limits(), 32)
        _, held = await shared.open({"seed": 0})
        step = asyncio.create_task(shared.step(held, 3))
        await asyncio.sleep(0)
        while not held.session.steps:
            time.sleep(0.001)
        found = await (shared.saved(held) if what == "saved" else shared.fork(held, {"step": 0}))
        await step
        return found

    data, *_ = asyncio.run(ask("saved"))
    with np.load(io.BytesIO(data)) as saved:
        assert (saved["image"][:, 0, 0, 0].tolist(), saved["action"].tolist()) == ([0, 3], [3])
    _, back = asyncio.run(ask("fork"))
    assert (back.session.steps, back.session.state, back.past) == (0, 0, [])


def test_pictures_and_texts_are_made_while_others_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in the thread that answers, where 500 frames of an ``imagine`` would hold up everybody for seconds."""
    threads: set[int] = set()

    class Drawn(Counter):
        render_mode = "ansi"

        def render(self, state: int) -> str:  # type: ignore[override]
            threads.add(threading.get_ident())
            return str(state)

        def observe(self, state: int) -> Any:
            return super().observe(state)

    def noted(value: Any) -> Any:
        threads.add(threading.get_ident())
        return plain(value)

    async def ask() -> None:
        one = SharedSessions({"one": Drawn, "two": Drawn}, Limits(), 32)
        _, held = await one.open({"seed": 0})
        await one.step(held, 3)
        assert held.last["shown"] == "3"
        await one.imagine(held, {"plans": [[1, 1]]})
        await one.fork(held, {"world": "two"})
        await one.saved(held)

    monkeypatch.setattr(shared, "plain", noted)
    monkeypatch.setattr(shared, "rows_file", lambda *_: noted((b"", "", "")))
    asyncio.run(ask())
    assert threads
    assert threading.get_ident() not in threads


def test_what_was_refused_is_no_row_of_a_saved_episode() -> None:
    class Picky(Counter):
        """It refuses 9, and a model of it would not read at 8."""

        def advance(self, asked: Asked, streams: Streams) -> list[Outcome]:
            said = {9: {"action_error": "no"}, 8: {"malformed": "no"}}
            return [Outcome(s, info=said[a]) if a in said else Outcome(s + a) for s, a in asked]

    async def play() -> Any:
        shared = SharedSessions({"one": Picky}, Limits(), 32)
        _, held = await shared.open({"seed": 0})
        for action in (1, 9, 2, 9, 8):
            await shared.step(held, action)
        _, back = await shared.fork(held, {"step": 2})
        return await shared.saved(held), back.session.state

    (data, *_), back = asyncio.run(play())
    with np.load(io.BytesIO(data)) as saved:
        assert (saved["image"][:, 0, 0, 0].tolist(), saved["action"].tolist()) == ([0, 1, 3], [1, 2])
    assert back == 1, "steps are counted all the same"


def test_a_number_that_is_not_finite_is_null() -> None:
    assert plain({"reward": float("nan"), "felt": np.array([1.0, np.inf])}) == {"reward": None, "felt": [1.0, None]}


def test_a_step_that_fails_does_not_fail_those_beside_it() -> None:
    class Fragile(Counter):
        def advance(self, asked: Asked, streams: Streams) -> list[Outcome]:
            if any(action == 9 for _, action in asked):
                raise InputError("too long")
            return super().advance(asked, streams)

    async def together() -> list[Any]:
        shared = SharedSessions({"one": Fragile}, Limits(), 32)
        held = [(await shared.open({"seed": seed}))[1] for seed in range(4)]
        steps = (shared.step(one, action) for one, action in zip(held, (1, 9, 2, 3), strict=True))
        return await asyncio.gather(*steps, return_exceptions=True)

    first, failed, *rest = asyncio.run(together())
    assert str(failed) == "too long"
    assert [one["reward"] for one in (first, *rest)] == [1.0, 2.0, 3.0]


def test_room_is_bounded_and_given_back(client: Client) -> None:
    names = [client.open() for _ in range(8)]
    status, told = client("POST", "/v1/sessions", {})
    assert (status, told["error"]["code"]) == (503, "capacity_reached")
    assert client("POST", f"/v1/sessions/{names[0]}/fork", {})[0] == 503
    client("DELETE", f"/v1/sessions/{names[0]}")
    assert client("POST", f"/v1/sessions/{names[1]}/fork", {})[0] == 201
    status, told = client("POST", "/v1/sessions", b" " * 20_001)
    assert (status, told["error"]["code"]) == (413, "too_large")


def test_a_session_that_nobody_asks_is_closed() -> None:
    running = Running(Limits(sessions=1, idle=0.2))
    client = Client(running.port)
    name = client.open()
    deadline = time.monotonic() + 10
    while client("GET", "/health")[1]["sessions"] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert client.step(name, 1)[1]["error"]["code"] == "session_not_found"
    client.open()
    running.stop()


def test_a_token_is_asked_for() -> None:
    running = Running(token="key")
    for client, status in (
        (Client(running.port), 401),
        (Client(running.port, "kez"), 401),
        (Client(running.port, "key"), 201),
    ):
        assert client("POST", "/v1/sessions", {})[0] == status
    with pytest.raises(Exception, match=r"1008|403"), connect(f"ws://127.0.0.1:{running.port}/ws") as socket:
        socket.recv(timeout=10)
    running.stop()
    with pytest.raises(InputError, match="can be reached from other machines"):
        serve(Server({}), "0.0.0.0", 0)


def test_openenv_speaks_with_it(running: Running) -> None:
    address = f"ws://127.0.0.1:{running.port}/ws"
    with connect(address) as socket:

        def ask(kind: str, **data: Any) -> Any:
            socket.send(json.dumps({"type": kind, "data": data}))
            return json.loads(socket.recv(timeout=10))

        assert ask("step", action=1)["data"]["code"] == "SESSION_ERROR"
        begun = ask("reset", seed=3)
        assert (begun["type"], begun["data"]["done"], begun["data"]["reward"]) == ("observation", False, None)
        assert ask("step", action=3)["data"]["reward"] == 3.0
        assert ask("state") == {"type": "state", "data": {"episode_id": "3", "step_count": 1}}
        assert ask("reset", seed=4, episode_id="mine")["data"]["observation"]["info"] == {"seed": 4}
        assert ask("state")["data"] == {"episode_id": "mine", "step_count": 0}
        assert ask("step", action=1, metadata={"by": "an agent"})["data"]["done"] is False
        assert ask("reset", seed=5, horizon=1)["type"] == "observation", "a reset may ask for another session"
        assert ask("step", action=1)["data"]["done"] is True
        assert ask("reset", world="none")["data"]["code"] == "EXECUTION_ERROR"
        assert ask("step", action="x")["data"]["code"] == "EXECUTION_ERROR"
        assert ask("dance")["type"] == "error"
        assert Client(running.port)("GET", "/health")[1]["sessions"] == 1
    deadline = time.monotonic() + 10
    while running.server.sessions.held and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not running.server.sessions.held, "a connection that ends frees its session"


def test_openenvs_own_client_drives_it(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    found = find_spec("openenv")
    if found is None or not found.submodule_search_locations:
        pytest.skip("OpenEnv's client is not installed: pip install --no-deps openenv-core")
    folder = Path(found.submodule_search_locations[0])
    for name in ("openenv.core", "openenv.core.env_server"):  # whose code is a server's, and needs gradio and fastmcp
        monkeypatch.setitem(sys.modules, name, package := ModuleType(name))
        package.__path__ = [str(folder.joinpath(*name.split(".")[1:]))]
    client = import_module("openenv.core.generic_client").GenericEnvClient
    with client(base_url=f"http://127.0.0.1:{running.port}").sync() as env:
        begun = env.reset(seed=3)
        assert (begun.done, begun.reward, begun.observation["info"]) == (False, None, {"seed": 3})
        assert env.step({"action": 3}).reward == 3.0
        with pytest.raises(Exception, match="expected a number from 0 to 9"):
            env.step({"action": "x"})
        stepped = env.step({"action": 1})
        assert (stepped.reward, stepped.done, stepped.observation["info"]["stream"]) == (1.0, False, [3, 1, 0, 0])
        assert env.state() == {"episode_id": "3", "step_count": 2}


def test_many_clients_that_retry_and_die_lose_and_double_nothing(running: Running) -> None:
    """Eight clients, each step sent twice or cut off at random: what each session came to is the sum of its actions."""
    each = 60

    def play(number: int) -> tuple[int, int, list[list[int]]]:
        rng, client = random.Random(number), Client(running.port)
        name, total, streams = client.open(seed=number, horizon=1000, options={"state": 0}), 0, []
        for step_id in range(each):
            action = rng.randrange(4)
            total += action
            if rng.random() < 0.3:  # send and go away: it may or may not have happened
                client.connection.request(
                    "POST", f"/v1/sessions/{name}/step", json.dumps({"action": action, "step_id": step_id})
                )
                client.connection.close()
            status, told = client.step(name, action, step_id)
            step = told if status == 200 else told["committed"]
            assert status in (200, 409), told
            streams.append(step["info"]["stream"])
        return running.server.sessions.held[name].session.state, total, streams

    with ThreadPoolExecutor(8) as pool:
        for number, (state, total, streams) in enumerate(pool.map(play, range(8))):
            assert state == total
            assert streams == [[number, step, 0, 0] for step in range(each)]
    assert max(running.worlds["one"].batches) > 1, "what comes together is one batch"


def test_noise_gets_a_4xx(running: Running) -> None:
    """Requests made of what JSON can hold, and bytes that are none, to every path: no 5xx, and the server goes on."""
    assert noise(running.port, 7, 600) == 0
    assert Client(running.port)("GET", "/health")[0] == 200


def test_answers_are_not_held_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """asyncio turns Nagle's delay off where the listening socket says that it is TCP."""
    seen: list[int] = []
    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: seen.append(sockets[0].proto))
    serve(Server({"one": Counter}), "127.0.0.1", 0)
    assert seen == [socket.IPPROTO_TCP]


def test_it_says_what_it_is(client: Client) -> None:
    schema = client("GET", "/schema?world=two")[1]
    assert client("GET", "/schema?world=three")[0] == 422
    number = {"type": "number", "minimum": 0.0, "maximum": 9.0, "title": "action-1"}
    assert schema["action"] == {"type": "array", "prefixItems": [number], "minItems": 1, "maxItems": 1}
    assert schema["observation"]["contentMediaType"] == "image/png"
    told = client("GET", "/openapi.json")[1]
    served = {
        "/v1/sessions",
        "/v1/sessions/{id}",
        *(f"/v1/sessions/{{id}}/{n}" for n in ("step", "imagine", "fork", "reset", "rows", "picture")),
    }
    assert set(told["paths"]) == served
    assert told["paths"]["/v1/sessions"]["post"]["requestBody"]["content"]["application/json"]["schema"]["properties"][
        "world"
    ]["enum"] == ["one", "two"]
