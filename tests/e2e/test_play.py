"""The play page in a real Chromium, wide and as a phone, over a game, a page and a film; what is saved is read again.
The same game in a terminal."""

from __future__ import annotations

import json
import re
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlvr_world import Imagined, InputError, recipes

uvicorn = pytest.importorskip("uvicorn", reason="pip install 'rlvr-world[serve]'")
playwright = pytest.importorskip("playwright.sync_api", reason="pip install 'rlvr-world[web]'")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")

from rlvr_world.domains.text_game.envs.played import RealGames  # noqa: E402
from rlvr_world.domains.text_game.rows import read_rows  # noqa: E402
from rlvr_world.overrides import override  # noqa: E402
from rlvr_world.sessions.server import Server  # noqa: E402
from rlvr_world.sessions.terminal import play  # noqa: E402
from rlvr_world.types import Outcome  # noqa: E402


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM)
        yield browser
        browser.close()


def games() -> Any:
    pytest.importorskip("textworld", reason="its games come from TextWorld: pip install 'rlvr-world[textgame]'")
    recipe = recipes.find("demo")
    return recipe.real(override(recipe.config(), ["data.split.worlds=0"]))  # those that are trained on


class Served:
    """A server in a thread, and a page of it."""

    def __init__(self, chromium: Any, worlds: dict[str, Any], width: int, **how: Any) -> None:
        app = Server({name: lambda world=world: world for name, world in worlds.items()}).app()
        self.server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        port = self.server.servers[0].sockets[0].getsockname()[1]
        self.page = chromium.new_page(viewport={"width": width, "height": 800}, accept_downloads=True, **how)
        self.faults: list[str] = []
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.goto(f"http://127.0.0.1:{port}/")
        self.page.wait_for_function("document.querySelector('#steps button') !== null")

    def steps(self) -> int:
        return int(self.page.locator("#steps button").count()) - 1

    def wait(self, steps: int) -> None:
        self.page.wait_for_function(f"document.querySelectorAll('#steps button').length > {steps}")

    def saved(self, folder: Path) -> Path:
        with self.page.expect_download() as download:
            self.page.click("#save")
        download.value.save_as(file := folder / download.value.suggested_filename)
        return file

    def stop(self) -> None:
        assert self.page.evaluate("document.documentElement.scrollWidth") <= self.page.viewport_size["width"]
        self.page.close()
        self.server.should_exit = True
        self.thread.join(10)
        assert not self.faults


@pytest.mark.parametrize("width", [1200, 390])
def test_a_game_is_played_beside_the_real_one(chromium: Any, width: int, tmp_path: Path) -> None:
    served = Served(chromium, {"one": games(), "two": games(), "real": games()}, width)
    page = served.page
    page.fill("#seed", "1")
    page.press("#seed", "Tab")
    page.keyboard.press("Enter")  # Begin, by the keyboard alone
    goal = games().start(1, {})[1]["goal"]
    page.wait_for_function("goal => document.querySelector('#said').textContent === `goal: ${goal}`", arg=goal)
    command = page.locator("#commands button", has_text="go ").first.inner_text()
    page.fill("#wish", command)
    page.press("#wish", "Enter")
    served.wait(1)
    assert page.locator("#imagined .in").all_inner_texts() == page.locator("#real .in").all_inner_texts() != []
    assert page.locator("#real .out").count() == 1
    page.fill("#wish", "dance")
    page.press("#wish", "Enter")
    served.wait(2)
    assert "action error" in page.inner_text("#told-real")
    assert page.locator("#commands button", has_text="go ").count(), "what can be done is still there to click"
    page.select_option("#model", "two")
    page.wait_for_function("document.querySelector('#told-imagined').textContent.includes('two')")
    page.evaluate("sides.real.totals = [0, 1, 2]")
    page.locator("#steps button").first.click()
    page.wait_for_function("document.querySelectorAll('#steps button').length === 1")
    assert page.evaluate("sides.real.totals") == [0], "what was won after a step is not kept by who goes back to it"
    page.locator("#commands button", has_text="go ").first.click()
    served.wait(1)
    [row] = read_rows(served.saved(tmp_path))
    assert (row.action, row.kind, row.world) == (command, "changed", "house-0001")
    served.stop()


@pytest.mark.parametrize("width", [1200, 390])
def test_a_page_is_played_as_a_model_imagines_it(chromium: Any, web: Any, width: int, tmp_path: Path) -> None:
    served = Served(chromium, {"model": Imagined(web.world), "real": _none()}, width)
    page = served.page
    assert not page.is_visible("#truth"), "these rows have no real world"
    page.locator("#imagined .pick").first.click()
    assert page.input_value("#wish").startswith("click [")
    page.keyboard.press("Enter")
    served.wait(1)
    assert page.locator("#imagined div").count() > 0
    file = served.saved(tmp_path)
    recipe = web.world.recipe
    [row] = recipe.read(web.world.config, str(file))
    assert row.action.startswith("click [")
    assert row.state.text == json.loads(file.read_text())["state"]["observation"]
    served.stop()


@pytest.mark.parametrize("width", [1200, 390])
def test_a_film_is_played_with_keys_and_pointer(chromium: Any, video: Any, width: int, tmp_path: Path) -> None:
    served = Served(chromium, {"model": Imagined(video.world), "real": _none()}, width)
    page = served.page
    first = page.locator("#imagined img").get_attribute("src")
    page.locator("h1").click()
    page.keyboard.press("ArrowRight")
    served.wait(1)
    highest, now = (
        float(page.evaluate(f"document.querySelector('#numbers input').{name}")) for name in ("max", "value")
    )
    assert now == pytest.approx(highest)
    box = page.locator("#imagined img").bounding_box()
    page.mouse.move(box["x"] + 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    served.wait(3)
    page.mouse.up()
    count = served.steps()
    assert float(page.evaluate("document.querySelector('#numbers input').value")) < highest
    assert page.locator("#imagined img").get_attribute("src").startswith("data:image/png")
    assert first.startswith("data:image/png")
    with np.load(served.saved(tmp_path)) as saved:
        assert len(saved["image"]) == len(saved["action"]) + 1 >= count
    served.stop()


@pytest.mark.parametrize("width", [1200, 390])
def test_a_real_page_is_seen_beside_its_tree(chromium: Any, web: Any, width: int, tmp_path: Path) -> None:
    """In the dark, by the keyboard alone."""
    (tmp_path / "one.html").write_text("<!doctype html><title>one</title><button onclick='this.remove()'>Go</button>")
    recipe = recipes.find("miniwob")
    real = recipe.real(override(recipe.config(), ["data.env.site=folder", f"data.env.path={tmp_path}"]))
    served = Served(chromium, {"model": Imagined(web.world), "real": real}, width, color_scheme="dark")
    page = served.page
    page.wait_for_function("$('page').naturalWidth > 0")
    before = page.get_attribute("#page", "src")
    page.focus("#commands button")
    page.keyboard.press("Enter")
    served.wait(1)
    page.wait_for_function("before => $('page').src !== before", arg=before)
    assert "button 'Go'" in page.inner_text("#real .out")
    page.focus("#steps button")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelectorAll('#steps button').length === 1")
    assert page.locator("#commands button").count() == 1, "what can be clicked is offered there, too"
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(map(int, re.findall(r"\d+", back)[:3])) < 50
    served.stop()


@pytest.mark.parametrize("width", [1200, 390])
def test_the_pusher_goes_to_the_pointer(chromium: Any, width: int, tmp_path: Path) -> None:
    pytest.importorskip("gym_pusht")
    recipe = recipes.find("pusht")
    settings = ["data.frame_skip=5", "data.action_pool=1", "data.env.size=32"]
    one, real = (recipe.real(override(recipe.config(), settings)) for _ in range(2))
    served = Served(chromium, {"one": one, "real": real}, width)
    page = served.page
    assert page.locator("#numbers label").all_inner_texts() == ["x", "y"], "the five actions between frames are one"
    page.fill("#seed", "3")
    page.click("#begin")
    page.wait_for_function("!busy && sides.real")
    left, right = (page.locator(f"#{name} img").bounding_box() for name in ("imagined", "real"))
    assert abs(left["y"] - right["y"]) < 2, "frames stand side by side, on a phone too"
    assert right["x"] > left["x"] + left["width"]
    page.mouse.move(right["x"] + 0.45 * right["width"], right["y"] + 0.2 * right["height"])
    page.mouse.down()
    served.wait(6)
    page.mouse.up()
    page.wait_for_function("!busy")
    assert page.evaluate("sides.real.info.pointer.from") == pytest.approx([0.45, 0.2], abs=0.03)
    assert page.get_attribute("#imagined img", "src") == page.get_attribute("#real img", "src")
    with np.load(served.saved(tmp_path)) as saved:
        assert saved["action"].shape == (len(saved["image"]) - 1, 10)
    served.stop()


def _none() -> Any:
    class Missing:
        action_space = observation_space = None
        render_mode = "ansi"

        def start(self, seed: int, options: Any) -> Any:
            raise InputError("these rows come from files, not from a world that can be stepped")

        def close(self) -> None: ...

    return Missing()


def test_a_game_in_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    real = games()
    told = real.start(1, {})[1]
    command = next(one for one in told["commands"] if one.startswith("go "))
    typed = [command, "dance", "back", "back", command, "begin 2", "help", "quit", "never read"]
    play(games(), real, typed, seed=1)
    said = capsys.readouterr().out
    assert said.count("real: reward 0") == 3
    assert said.count("imagined: reward 0") == 3
    assert "action error: expected a command such as" in said
    assert said.count("a step back") == 2
    assert "    agent (ID: 0)" in said
    assert "house-0002" not in said
    assert said.count(f"goal: {told['goal']}") == 1, "the second game has a goal of its own"


def test_the_real_game_goes_on_in_a_terminal_where_the_imagined_one_is_cut_off(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Unreadable(RealGames):
        def advance(self, asked: Any, streams: Any) -> list[Outcome]:
            return [Outcome(moment, info={"malformed": "no answer"}) for moment, _ in asked]

    real = games()
    command = next(one for one in real.start(1, {})[1]["commands"] if one.startswith("go "))
    play(Unreadable(real.spec), real, [command, "look", "back", "back"], seed=1)
    said = capsys.readouterr().out
    assert said.count("real: reward 0") == 2
    assert said.count("imagined: reward 0, cut off") == 1
    assert said.count("a step back") == 2, "each step was one"
