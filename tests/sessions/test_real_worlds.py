"""Real pages and tables behind the calls of a session: the contract, forks that are run again, what is lost."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box
from gymnasium.utils.env_checker import check_env
from PIL import Image

from rlvr_world import InputError, Session, recipes
from rlvr_world.domains.replayed import Replayed
from rlvr_world.overrides import override
from rlvr_world.sessions.vector import VectorSession
from rlvr_world.types import World

PAGES = {
    "late": "<button onclick=\"setTimeout(() => { this.textContent = 'Went' }, 700)\">Go</button><input>",
    "spin": "<button>Go</button><script>onkeydown = () => { while (true) {} }</script>",
}
TABLES = {
    "pusht": ("gym_pusht", "data.frame_skip=4 data.action_pool=2"),
    "rope": ("mujoco", "data.env.links=8"),
    "granular": ("mujoco", "data.env.grains=8"),
    "drawer": ("metaworld", "data.env.hold=3"),
}


def check(world: World) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*alternative render modes.*")
        warnings.filterwarnings("ignore", message=".*Box observation space m..imum value is.*")  # proprioception's
        check_env(Session(world, render_mode=world.render_mode))


@pytest.fixture(params=TABLES)
def table(request: pytest.FixtureRequest) -> Iterator[Any]:
    package, settings = TABLES[request.param]
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    recipe = recipes.find(request.param)
    sizes = ["data.env.size=24", "data.height=16", "data.width=16"]
    world = recipe.real(override(recipe.config(), [*settings.split(), *sizes]))
    yield world
    world.close()


def test_a_table_is_stepped_and_forked(table: Any) -> None:
    check(table)
    session = Session(table)
    first, info = session.reset(seed=1)
    assert info["episode"] > 1
    table.action_space.seed(0)
    actions = [table.action_space.sample() for _ in range(3)]
    seen = [session.step(action)[0] for action in actions]
    fork = session.fork()
    other = Session(table)
    assert same(other.reset(seed=1)[0], first)
    for action, frame in zip(actions, seen, strict=True):
        assert same(other.step(list(map(float, action)))[0], frame)
    assert same(session.step(actions[0])[0], fork.step(actions[0])[0])
    envs = VectorSession(table, 2)
    both, _ = envs.reset(seed=1)
    one = {name: both[name][0] for name in first} if isinstance(first, dict) else both[0]
    assert same(one, first)
    assert envs.observation_space.contains(envs.step(np.stack(actions[:2]))[0]), "what is felt stands beside frames"
    with pytest.raises(InputError, match="finite numbers"):
        session.step([0.0])
    with pytest.raises(InputError, match="its own states"):
        session.reset(options={"state": first})
    for odd in ("1", None, -1, 2.0, True, [1]):
        with pytest.raises(InputError, match="start, episode: expected a number of at least 0, got "):
            session.reset(options={"episode": odd})


def same(one: Any, other: Any) -> bool:
    return (
        all(map(np.array_equal, one.values(), other.values())) if isinstance(one, dict) else np.array_equal(one, other)
    )


def test_more_tables_than_run_at_once() -> None:
    pytest.importorskip("gym_pusht")
    recipe = recipes.find("pusht")
    world = recipe.real(override(recipe.config(), ["data.frame_skip=1", "data.action_pool=1", "data.env.size=32"]))
    world.live = 2
    envs, actions = VectorSession(world, 4), np.full((4, 2), 0.3, np.float32)
    first, _ = envs.reset(seed=0)
    assert len({frame.tobytes() for frame in first}) == 4
    frames = [envs.step(actions)[0] for _ in range(2)][-1]
    assert len(world._running) == 2
    alone = Session(world)
    alone.reset(seed=2)
    alone.step(actions[2])
    assert np.array_equal(alone.step(actions[2])[0], frames[2])
    envs.close()
    world.close()
    assert not world._running


def test_what_is_lost_on_the_way_back_to_a_state_is_lost() -> None:
    opened = []

    class Frail:
        """Every episode but the first breaks at a push of 1."""

        told: Any = ()

        def __init__(self, begun: Any) -> None:
            self.number, self.done, self.closed = len(opened), 0, False
            opened.append(self)

        def seen(self) -> int:
            return self.done

        def act(self, action: int) -> tuple[float, bool, dict[str, str]]:
            self.done += action
            return (0.0, False, {"lost": "it broke"}) if self.number and self.done == 1 else (1.0, False, {})

        def close(self) -> None:
            self.closed = True

    world = Replayed(Frail, lambda seed, options: (seed,), int, (Box(0, 9), Box(0, 9)), str, live=1)
    session = Session(world)
    session.reset(seed=0)
    fork = session.fork()
    assert session.step(1)[0] == 1
    fork.step(2)  # of two only one runs: the session's has to be run again
    _, reward, _, truncated, info = session.step(3)
    assert (reward, truncated, info) == (0.0, True, {"lost": "it broke"})
    assert all(one.closed for one in opened if one.number == 2)


def test_a_hand_goes_where_its_pointer_is() -> None:
    """What the play page does: the action that ``pointer`` says leads to a place; on a table it starts a push there."""
    pytest.importorskip("gym_pusht")
    recipe = recipes.find("pusht")
    table = recipe.real(override(recipe.config(), ["data.frame_skip=5", "data.action_pool=1", "data.env.size=32"]))
    session = Session(table)
    _, info = session.reset(seed=3)  # the T is elsewhere
    goal = np.array([0.45, 0.2])
    for _ in range(6):
        here, reach = (np.array(info["pointer"][name]) for name in ("from", "reach"))
        info = session.step(np.tile(np.clip((goal - here) / reach, -0.45, 0.45), 5))[4]
    assert np.abs(np.array(info["pointer"]["from"]) - goal).max() < 0.02
    assert table.start(0, {"state": session.state})[1]["pointer"] == info["pointer"], "a fork is told it, too"
    table.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    session = pytest.importorskip(
        "rlvr_world.domains.web_page.envs.session", reason="pip install 'rlvr-world[web]'", exc_type=ModuleNotFoundError
    )
    folder = tmp_path_factory.mktemp("pages")
    for name, body in PAGES.items():
        (folder / f"{name}.html").write_text(f"<!doctype html><title>{name}</title>{body}")
    world = of_folder(folder)
    try:
        world.start(0, {})
    except InputError as error:
        pytest.skip(str(error))
    limit, session.LIMIT = session.LIMIT, 3.0
    yield world
    session.LIMIT = limit
    world.close()


def of_folder(folder: Path) -> World:
    recipe = recipes.find("miniwob")
    return recipe.real(override(recipe.config(), ["data.env.site=folder", f"data.env.path={folder}"]))


def test_a_page_is_acted_on_and_forked(pages: Any) -> None:
    session = Session(pages)
    first, info = session.reset(seed=0, options={"task": "late.html"})
    assert (info["task"], first["url"], first["previous"]) == ("late.html", "late.html", "")
    for action, words in (("fly", "expected one of click"), ("click [99]", "no element [99]")):
        after, *_, told = session.step(action)
        assert words in told["action_error"]
        assert after == first
    fork = session.fork()
    went, *_, told = session.step("click [2]")
    assert "button 'Went'" in went["observation"]
    assert (went["previous"], told["changed"]) == ("click [2]", True)
    typed, *_ = fork.step("type [3] [shoes] [0]")
    assert "button 'Go'" in typed["observation"]
    assert "shoes" in typed["observation"]
    assert session.step("type [3] [shoes] [0]")[0]["observation"].count("Went") == 1
    picture = Image.open(io.BytesIO(pages.picture(session.state)))
    assert (picture.format, picture.width <= 1280, picture.height < 720) == ("PNG", True, True)
    assert pages.picture(fork.state) != pages.picture(session.state), "each its own page, played again if need be"
    assert pages.start(0, {"state": session.state})[1]["commands"] == told["commands"], "a fork is told them, too"
    assert session.step("stop [done]")[2] is True
    with pytest.raises(InputError, match=r"start, task: expected one such as 'late\.html'"):
        fork.reset(options={"task": "nowhere"})
    with pytest.raises(InputError, match=r"start, task: expected one such as 'late\.html', got \[5\]"):
        fork.reset(options={"task": [5]})


def test_pages_keep_gymnasiums_contract(pages: Any) -> None:
    check(pages)


def test_a_page_that_is_lost_ends_the_episode(pages: Any) -> None:
    session = Session(pages)
    first, _ = session.reset(seed=0, options={"task": "spin.html"})
    after, _, terminated, truncated, info = session.step("press [Enter]")
    assert (after, terminated, truncated) == (first, False, True)
    assert "did not answer within 3 s" in info["lost"]
    assert session.reset(seed=0, options={"task": "late.html"})[0]["observation"]
