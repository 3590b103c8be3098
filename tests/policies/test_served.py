"""A world with a task behind the server, as LeRobot's plug-in sees it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from importlib import util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from rlvr_world.sessions.judged import Judged
from rlvr_world.sessions.session import Session
from tests.policies.test_policies import Light, trial

PLUGIN = Path(__file__).parents[2] / "plugins" / "lerobot" / "lerobot_env_rlvr_world"


def says(frames: np.ndarray) -> np.ndarray:
    return frames[:, 0, 0, 0] > 0.6 * 255


def judged(world: Light) -> Judged:
    return Judged(world, says, trial(world).start, "brighten")


@pytest.mark.parametrize("tells", [False, True])
def test_a_task_begins_at_its_starts_and_ends_with_success(tells: bool) -> None:
    world = Light(tells)
    session = Session(judged(world), horizon=6)
    seen, info = session.reset(seed=9)
    assert info["task"] == "brighten"
    assert seen[0, 0, 0] == int(255 * (0.2 + 0.03 * 9))
    steps = [session.step(np.ones(1)) for _ in range(2)]
    assert [(reward, ended, info["is_success"]) for _, reward, ended, _, info in steps] == [(0, 0, 0), (1, 1, 1)]
    assert session.reset(options={"light": 0.9})[0][0, 0, 0] == int(255 * 0.9), "whoever names a start has it"


def plugin(name: str) -> ModuleType:
    spec = util.spec_from_file_location(f"plugin_{name}", PLUGIN / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Threaded(Light):
    """As a simulator that can be drawn in one thread alone."""

    def __init__(self, tells: bool) -> None:
        super().__init__(tells)
        self.threads: set[int] = set()

    def render(self, state: float) -> np.ndarray:
        self.threads.add(threading.get_ident())
        assert len(self.threads) == 1, "another thread draws"
        return super().render(state)

    observe = render


@pytest.fixture
def url() -> Iterator[str]:
    uvicorn = pytest.importorskip("uvicorn", reason="pip install 'rlvr-world[serve]'")
    from rlvr_world.sessions.server import Server

    worlds = {tells: judged(Threaded(tells == "real")) for tells in ("sft", "real")}
    app = Server({name: lambda world=world: world for name, world in worlds.items()}, token="secret", horizon=6).app()
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


def test_served_worlds_are_a_vector_environment(url: str) -> None:
    envs = plugin("worlds").ServedWorlds(url, 4, "sft", "secret", steps=6)
    assert envs.shapes() == {"pixels": (16, 16, 3), "action": (1,)}
    seen, _ = envs.reset(seed=[0, 5, 9, 12], options={"lerobots": "own"})
    assert envs.observation_space.contains(seen)
    assert seen["pixels"][:, 0, 0, 0].tolist() == [int(255 * (0.2 + 0.03 * seed)) for seed in (0, 5, 9, 12)]
    told = [envs.step(np.full((4, 1), 0.6)) for _ in range(6)]
    won = np.stack([info["is_success"] for *_, info in told])
    ended, cut = (np.stack([one[place] for one in told]) for place in (2, 3))
    np.testing.assert_array_equal(won.any(0), [False, True, True, True])
    np.testing.assert_array_equal(won.argmax(0), [0, 4, 2, 0])
    np.testing.assert_array_equal(ended, won)
    np.testing.assert_array_equal(cut[-1], [True, False, False, False])
    assert sum(reward.sum() for _, reward, *_ in told) == 3, "what is over is rewarded once"
    assert envs.call("task_description") == ("brighten",) * 4
    assert envs.call("_max_episode_steps")[0] == 6
    assert np.stack(envs.call("render")).shape == (4, 16, 16, 3)
    again, _ = envs.reset(seed=[0, 5, 9, 12])
    np.testing.assert_array_equal(again["pixels"], seen["pixels"])
    envs.close()
    other = plugin("worlds").ServedWorlds(url, 1, "real", "secret")
    assert other.reset(seed=3)[0]["pixels"].shape == (1, 16, 16, 3)
    other.close()


def test_who_is_not_let_in_or_finds_nobody_is_told(url: str) -> None:
    worlds = plugin("worlds").ServedWorlds
    with pytest.raises(RuntimeError, match="unauthorized"):
        worlds(url, 1, "sft", "wrong")
    with pytest.raises(RuntimeError, match=r"expected a server there, got .*; start it: rlvr-world serve"):
        worlds("http://127.0.0.1:1", 1)
