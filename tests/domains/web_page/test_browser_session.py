"""A real Chromium on pages that behave badly: bounded, told in the row, and gone at the end."""

from __future__ import annotations

import asyncio
import gzip
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from rlvr_world.domains.web_page.config import BrowserSpec
from rlvr_world.domains.web_page.envs import collect, sites
from rlvr_world.domains.web_page.envs.chromium import find_chromium, is_outside, launch_arguments
from rlvr_world.domains.web_page.envs.collect import collect_rows, play
from rlvr_world.domains.web_page.rows import read_rows
from rlvr_world.errors import InputError

T = TypeVar("T")
pytest.importorskip("miniwob", reason="pip install 'rlvr-world[web]'")
session = pytest.importorskip(
    "rlvr_world.domains.web_page.envs.session", reason="pip install 'rlvr-world[web]'", exc_type=ModuleNotFoundError
)
Session = session.Session
try:
    CHROMIUM = find_chromium("", "")
except InputError as error:
    pytest.skip(str(error), allow_module_level=True)

PAGES = {
    "dialog": "<button onclick=\"alert('hello'); document.title = 'after'\">Go</button>",
    "spin": "<button>Go</button><script>onkeydown = () => { while (true) {} }</script>",
    "restless": "<button>Go</button><p id=p>0</p><script>setInterval(() => p.textContent++, 20)</script>",
    "huge": "<button onclick='for (let i = 0; i < 20000; i++) document.body.append(document.createElement(`p`), i)'>"
    "Go</button>",
    "vast": "<p><script>for (let i = 0; i < 20000; i++) document.body.append(document.createElement('p'))</script>",
    "stuck": "<script>while (true) {}</script>",
    "tab": "<button onclick=\"window.open('dialog.html')\">Go</button>",
    "leave": "<button onclick=\"location = 'http://example.com/'\">Go</button><img src='http://192.0.2.1/x.png'>",
    "late": "<button onclick=\"setTimeout(() => { this.textContent = 'Went' }, 700)\">Go</button>",
    "form": "<input><select><option>red<option>blue</select><a href='late.html'>next</a>",
}


def at_once(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(work, 60))


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


ONE, TWO = (BrowserSpec("folder", "pages", steps=steps) for steps in (1, 2))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> sites.Site:
    folder = tmp_path_factory.mktemp("pages")
    for name, body in PAGES.items():
        (folder / f"{name}.html").write_text(f"<!doctype html><title>{name}</title>{body}")
    return sites.folder(folder)


@pytest.fixture
def clicks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A visitor who clicks the first element, then one that is not there."""
    monkeypatch.setattr(collect, "choose_action", lambda page, goal, acted, *_: f"click [{99 if acted else 2}]")


def test_pages_that_misbehave_cost_a_row_and_not_the_collection(
    site: sites.Site, clicks: None, monkeypatch: pytest.MonkeyPatch
):
    async def visit() -> dict[str, list[dict[str, Any]]]:
        async with Session() as browser:
            names = ("dialog", "restless", "huge", "tab", "leave")
            rows = {name: await play(browser, site, f"{name}.html", 0, TWO) for name in names}
            with monkeypatch.context() as patch:
                patch.setattr(collect, "choose_action", lambda *_: "press [Enter]")
                patch.setattr(session, "LIMIT", 3.0)
                rows["spin"] = await play(browser, site, "spin.html", 0, TWO)
            await browser.open(site.root + "late.html")
            started = time.monotonic()
            with pytest.raises(session.PageFailure, match="its renderer crashed"):
                await browser._bounded(browser._cdp.send("Page.crash"))
            assert time.monotonic() - started < 5
            await browser.restart()
            return rows | {"late": await play(browser, site, "late.html", 0, TWO)}

    rows = at_once(visit())
    errors = {name: [row["error"] for row in of_page] for name, of_page in rows.items()}
    missing = "no element [99] on the page"
    assert errors["dialog"] == ["dismissed a dialog (alert): hello", missing]
    assert errors["restless"][0] == "the page was still changing after 3 s of its time"
    assert "more than 10000 are not read" in errors["huge"][0]
    assert errors["tab"] == ["closed a new tab", missing]
    assert errors["leave"] == ["stayed on the page: http://example.com/ is outside", missing]
    assert errors["spin"] == ["the page is lost: it did not answer within 3 s"]
    assert errors["late"] == ["", missing]
    assert "button 'Went'" in rows["late"][0]["next_observation"]
    assert "Tab 0 (current): after" in rows["dialog"][0]["next_observation"]
    assert rows["spin"][0]["done"]
    assert not rows["late"][1]["done"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells which process is the driver")
def test_a_driver_that_does_not_answer_is_ended(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(session, "LIMIT", 1.0)

    async def visit() -> set[int]:
        async with Session() as browser:
            assert browser._driver
            for process in browser._driver:
                os.kill(process, signal.SIGSTOP)
            return browser._driver

    for process in at_once(visit()):
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def test_pages_that_fail_before_an_action_are_told_and_not_tried_again(
    site: sites.Site, tmp_path: Path, clicks: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    refused = iter((True, False))

    def reset() -> None:
        if next(refused, False):
            sites._post("http://127.0.0.1:9/")

    async def collected(tasks: tuple[str, ...]) -> list[dict[str, Any]]:
        spec = BrowserSpec(site="folder", path="any", tasks=tasks, episodes=1, steps=1)
        with (tmp_path / "rows.jsonl").open("a+b") as out:
            await collect._collect(spec, replace(site, reset=reset), out)
        return [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]

    monkeypatch.setattr(session, "LIMIT", 8.0)
    rows = at_once(collected(("dialog.html", "stuck.html", "vast.html", "late.html")))
    reasons = ("the app could not be reset", "did not answer within 8 s", "more than 10000 are not read")
    assert [(row["observation"], row["action"], row["done"]) for row in rows[:3]] == [("", "", True)] * 3
    assert all(reason in row["error"] for row, reason in zip(rows, reasons, strict=False))
    told = capsys.readouterr().err
    assert all(f"1 of the episodes failed: {row['error']}" in told for row in rows[:3])
    assert [row.id for row in read_rows(tmp_path / "rows.jsonl")] == ["rows.jsonl:4 late.html/0/0"]
    played: list[str] = []

    async def note(*args: Any) -> list[dict[str, Any]]:
        played.append(args[2])
        return rows[3:] if len(played) == 1 else rows[:1]

    monkeypatch.setattr(collect, "play", note)
    tasks = ("dialog.html", "stuck.html", "vast.html", "late.html")
    at_once(collected(tasks))
    assert played == ["late.html"]
    with pytest.raises(InputError, match="no page of"):
        at_once(collected(tasks))
    assert (tmp_path / "rows.jsonl").read_bytes() == b""


def test_a_browser_that_is_gone_is_a_failure_of_the_page(site: sites.Site):
    async def visit() -> list[dict[str, Any]]:
        async with Session() as browser:
            await browser._browser.close()
            return await play(browser, site, "late.html", 0, ONE) + await play(browser, site, "late.html", 1, ONE)

    lost, good = at_once(visit())
    assert "the page failed: " in lost["error"]
    assert "late" in good["observation"]


def test_typing_choosing_and_following_a_link_show(site: sites.Site):
    steps = ("scroll [down]", "type [2] [Go Go] [0]", "click [5]", "click [6]", "go_back", "goto [nowhere]")

    async def visit() -> list[str]:
        texts = []
        async with Session() as browser:
            await browser.open(site.root + "form.html")
            for action in steps:
                texts.append((await browser.observation()).text)
                await browser.act(action)
            await browser.act("press [Nope]")
            return [*texts, browser.notes()]

    start, _, typed, chosen, followed, back, notes = at_once(visit())
    assert "[2] textbox ''" in start
    assert "[4] option 'red' selected: True" in start
    assert "\t[2] textbox '' focused: True required: False\n\t\t[7] StaticText 'Go Go'" in typed
    assert "[4] option 'red' selected: False" in chosen
    assert "[5] option 'blue' selected: True" in chosen
    assert "button 'Go'" in followed
    assert "option 'red'" in back
    assert "goto [nowhere] leads nowhere: " in notes
    assert "press [Nope] leads nowhere: " in notes


def test_the_clock_of_a_page_goes_as_far_as_it_is_wound(site: sites.Site):
    async def visit() -> list[int]:
        async with Session() as browser:
            gone = []
            for page in ("late.html", "form.html", "late.html", "form.html", "late.html"):
                await browser.open(site.root + page)
                before = await browser.run("() => Date.now()")
                await browser._wind(1000)
                gone.append(await browser.run("() => Date.now()") - before)
            return gone

    assert at_once(visit()) == [1000] * 5


def test_the_wall_has_two_layers(site: sites.Site):
    """Requests are stopped before they are made; and without that layer, no name and no address resolves."""
    from playwright.async_api import async_playwright

    urls = ("http://example.com/", "http://192.0.2.1/", "https://127.0.0.1.example.com/")
    assert all(is_outside(url, ()) for url in (*urls, "ws://example.com/", "http://127.0.0.1@example.com/"))
    assert not any(is_outside(url, ("example.com",)) for url in ("http://localhost:1/", "file:///x", urls[0]))

    async def reach() -> list[str]:
        ask = "url => fetch(url, {mode: 'no-cors'}).then(() => 'reached', () => 'stopped')"
        async with async_playwright() as playwright:
            bare = await playwright.chromium.launch(executable_path=CHROMIUM, args=launch_arguments(()))
            page = await bare.new_page()
            errors = []
            for url in urls[:2]:
                try:
                    await page.goto(url)
                except Exception as error:  # noqa: BLE001
                    errors.append(str(error))
            await bare.close()
        async with Session() as browser:
            await browser.open(site.root + "late.html")
            with served() as port:
                asked = [
                    await browser.run(ask, f"http://127.0.0.1:{port}/"),
                    *[await browser.run(ask, u) for u in urls],
                ]
        return [*errors, *asked]

    *bare, loopback, first, second, third = at_once(reach())
    assert len(bare) == 2
    assert all("ERR_NAME_NOT_RESOLVED" in error for error in bare)
    assert (loopback, first, second, third) == ("reached", "stopped", "stopped", "stopped")


class served:
    """A server on loopback, with its port."""

    def __enter__(self) -> int:
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self.server.server_address[1]

    def __exit__(self, *error: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def test_collecting_goes_on_where_it_stopped_and_the_same_spec_gives_the_same_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    spec = BrowserSpec(tasks=("click-option", "use-autocomplete"), episodes=2, steps=2)
    whole = collect_rows(spec, tmp_path / "whole")
    assert collect_rows(spec, tmp_path / "whole") == whole
    played = []

    async def stop(*args: Any) -> list[dict[str, Any]]:
        if len(played) == 2:
            raise KeyboardInterrupt
        played.append(await play(*args))
        return played[-1]

    with monkeypatch.context() as patch:
        patch.setattr(collect, "play", stop)
        with pytest.raises(KeyboardInterrupt):
            collect_rows(spec, tmp_path / "parts")
    (part,) = (tmp_path / "parts").iterdir()
    with part.open("ab") as out:
        out.write(b'{"task": "half a ro')
    resumed = collect_rows(spec, tmp_path / "parts")
    assert resumed.read_bytes() == whole.read_bytes()
    assert list((tmp_path / "parts").iterdir()) == [resumed]
    rows = read(whole)
    assert {row["task"] for row in rows} == set(spec.tasks)
    assert all(row["goal"] and row["url"] == f"{row['task']}.html" and not row["error"] for row in rows)
    assert len(read_rows(whole)) == len(rows)


def test_an_app_of_an_infinity_checkout_is_served_on_loopback(tmp_path: Path):
    (tmp_path / "index.html").write_text("<title>App</title><button>Star</button>")
    (tmp_path / "real-tasks.json").write_text('[{"id": "e1", "instruction": "Star it.", "verify": "e1.py"}]')
    (tmp_path / "e1.py").write_text("def verify(url):\n    return True, 'starred'\n")
    (tmp_path / "server.py").write_text(
        "import http.server\nclass AppHandler(http.server.SimpleHTTPRequestHandler):\n"
        "    def do_POST(self):\n        open('reset', 'a').write(self.path)\n"
        "        self.send_response(200)\n        self.end_headers()\n"
    )
    spec = BrowserSpec(site="infinity", path=str(tmp_path), episodes=2, steps=1)
    rows = read(collect_rows(spec, tmp_path / "rows"))
    assert [(row["goal"], row["seed"]) for row in rows] == [("Star it.", 0), ("Star it.", 1)]
    assert "button 'Star'" in rows[0]["observation"]
    assert [(row["reward"], row["done"]) for row in rows] == [(1.0, True)] * 2
    assert (tmp_path / "reset").read_text() == "/api/reset" * 2


def test_rows_of_pages_that_changed_are_collected_again(tmp_path: Path):
    page, style = tmp_path / "a.html", tmp_path / "a.css"
    page.write_text("<button>Star</button>")
    spec = BrowserSpec(site="folder", path=str(tmp_path))
    keys = [collect._content(spec)]
    for file in (page, style):
        file.write_text("<button>Stars</button>")
        assert collect._content(spec) not in keys
        keys.append(collect._content(spec))
    (tmp_path / "rows.part").touch()
    assert collect._content(spec) == keys[-1]


def test_tasks_all_plays_every_page_of_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    played = []

    async def note(session: Any, site: sites.Site, task: str, *args: Any) -> list[dict[str, Any]]:
        played.append(task)
        return [{"task": task, "seed": 0, "observation": "a", "next_observation": "a", "error": ""}]

    monkeypatch.setattr(collect, "play", note)
    collect_rows(BrowserSpec(tasks=("all",), episodes=1), tmp_path)
    assert played == list(sites.miniwob().tasks)
    assert len(played) > len(collect.miniwob_tasks("shown"))


STAY = """
import asyncio, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are born deaf to Ctrl-C
from rlvr_world.domains.web_page.envs.session import Session
async def stay():
    async with Session() as browser:
        await browser.open("about:blank")
        print("open", flush=True)
        if sys.argv[1] == "raise":
            raise SystemExit(3)
        await asyncio.sleep(60)
asyncio.run(stay())
"""


@pytest.mark.parametrize("how", ["raise", signal.SIGINT, signal.SIGTERM])
def test_no_browser_is_left_behind(how: str | signal.Signals):
    command = [sys.executable, "-c", STAY, str(how)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"open\n"
        family = set(descendants(process.pid))
        if isinstance(how, signal.Signals):
            os.kill(process.pid, how)
        process.wait(20)
    until = time.monotonic() + 10
    while (left := family & set(alive())) and time.monotonic() < until:
        time.sleep(0.2)
    assert how == "raise" or len(family) > 3
    assert not left


def alive() -> Iterator[int]:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "stat").read_text().rpartition(")")[2].split()[0] != "Z":
                yield int(folder.name)
        except OSError:  # it ended meanwhile
            continue


def descendants(root: int) -> set[int]:
    found = {root}
    for pid in sorted(alive()):
        try:
            parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent in found:
            found.add(pid)
    return found - {root}


def test_what_is_wrong_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    for path in (str(tmp_path / "chromium"), ""):
        with pytest.raises(InputError, match="apt-get install chromium"):
            find_chromium(path, "none")
    with pytest.raises(InputError, match=r"'click-buton'; the nearest are click-button"):
        collect_rows(BrowserSpec(tasks=("click-buton",)), tmp_path)
    with pytest.raises(InputError, match=r"no folder|\.html"):
        collect_rows(BrowserSpec(site="folder", path=str(tmp_path)), tmp_path)
    with pytest.raises(InputError, match="apps/gmail"):
        collect_rows(BrowserSpec(site="infinity", path=str(tmp_path)), tmp_path)
    with pytest.raises(InputError, match="steps: expected at least 1, got 0"):
        BrowserSpec(steps=0)
    with pytest.raises(InputError, match="path: expected a folder or address"):
        BrowserSpec(path="pages")
    fake = tmp_path / "not-a-browser"
    fake.write_text("#!/bin/sh\nexit 1\n")
    fake.chmod(0o755)
    with pytest.raises(InputError, match="does not start"):
        collect_rows(BrowserSpec(tasks=("enter-text",), browser=str(fake)), tmp_path)


def test_the_default_tasks_are_pages_of_the_package():
    assert set(collect.miniwob_tasks("shown")) <= set(sites.miniwob().tasks)
    assert len(set(collect.miniwob_tasks("shown"))) == len(collect.miniwob_tasks("shown")) >= 40


def test_frames_are_part_of_the_page(tmp_path: Path):
    """What is in them and in view, at its place; what happens in them is seen, and they can be acted in."""
    inner = "<button onclick='this.textContent = `stamped`'>stamp it</button><p style='margin-top:900px'>far below</p>"
    outside = "document.querySelector('iframe').contentDocument.querySelector('button').click()"
    (tmp_path / "desk.html").write_text(
        f'<title>desk</title><p>Desk</p><iframe srcdoc="{inner}"></iframe><button onclick="{outside}">press</button>'
    )

    async def visit() -> list[str]:
        async with Session() as browser:
            await browser.open((tmp_path / "desk.html").as_uri())
            await browser.settle()
            texts = [(await browser.observation()).text]
            for action in ("click [6]", "click [5]"):
                await browser.act(action)
                texts.append((await browser.observation()).text)
            return texts

    before, stamped, focused = at_once(visit())
    line = "\n\t[3] Iframe ''\n\t\t[4] RootWebArea ''\n\t\t\t[5] button 'stamp it'\n\t[6] button 'press'"
    assert before.endswith("[1] RootWebArea 'desk' focused: True\n\t[2] StaticText 'Desk'" + line)
    assert "\n\t\t\t[5] button 'stamped'\n\t[6] button 'press' focused: True" in stamped
    assert "[5] button 'stamped' focused: True" in focused


class Shop(http.server.BaseHTTPRequestHandler):
    """Greets who has logged in, and sends the others to the login."""

    def do_GET(self) -> None:
        name = self.headers.get("Cookie", "").partition("name=")[2]
        form = "<form method=post><input name=name><button>Log in</button></form>"
        self._answer(200, f"<title>{self.path}</title><p>Hello {name}</p><button>Buy</button>" if name else form)

    def do_POST(self) -> None:
        said = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self._answer(303, "", ("Location", "/"), ("Set-Cookie", f"{said}; Path=/"))

    def _answer(self, status: int, body: str, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for header in (*headers, ("Content-Type", "text/html"), ("Content-Length", str(len(body)))):
            self.send_header(*header)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def shop() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Shop)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


LOGIN = """
async def login(page):
    await page.goto("{shop}")
    await page.fill("input", "ann", timeout=3000)
    await page.click("{button}", timeout=1500)
    await page.wait_for_selector("text=Hello ann", timeout=3000)
"""


def test_a_server_is_a_site_and_its_login_a_script(shop: str, tmp_path: Path):
    script = tmp_path / "login.py"
    script.write_text(LOGIN.format(shop=shop, button="button"))
    spec = BrowserSpec(site="url", path=shop, tasks=("/", "/cart?page=2"), episodes=2, steps=1, login=str(script))
    rows = read(collect_rows(spec, tmp_path))
    assert [(row["task"], row["url"], row["seed"]) for row in rows] == [
        *(("/", "/", 0), ("/cart?page=2", "/cart?page=2", 0), ("/", "/", 1), ("/cart?page=2", "/cart?page=2", 1)),
    ]
    assert all("StaticText 'Hello ann'" in row["observation"] for row in rows)
    assert len(read_rows(collect_rows(spec, tmp_path))) == 4
    alone = read(collect_rows(replace(spec, login="", tasks=()), tmp_path))
    assert [row["task"] for row in alone] == ["/", "/"]
    assert all("button 'Log in'" in row["observation"] for row in alone)


def test_a_login_or_a_server_that_does_not_work_is_told(shop: str, tmp_path: Path):
    script = tmp_path / "login.py"
    script.touch()
    spec = BrowserSpec(site="url", path=shop, login=str(script))
    script.write_text(LOGIN.format(shop=shop, button="#absent"))
    with pytest.raises(InputError, match=r"login: Page\.click: Timeout 1500ms exceeded"):
        collect_rows(spec, tmp_path)
    script.write_text("def login(page): pass")
    with pytest.raises(InputError, match=r"login\.py: expected `async def login\(page\)` there, got <function login"):
        collect_rows(spec, tmp_path)
    script.write_text("async def login(page)")
    with pytest.raises(InputError, match=r"login\.py: it does not read as a Python file"):
        collect_rows(spec, tmp_path)
    with pytest.raises(InputError, match=r"path=http://shop\.test: expected an address such as http://localhost:3000"):
        collect_rows(BrowserSpec(site="url", path="http://shop.test"), tmp_path)
    with pytest.raises(
        InputError, match=r"login: expected the path of a Python file, with site=url alone, got 'login\.py'"
    ):
        BrowserSpec(login="login.py")
