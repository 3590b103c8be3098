"""Where pages come from: MiniWoB as its package ships it, a folder of static pages, or a WebArena-Infinity app."""

from __future__ import annotations

import inspect
import json
import runpy
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit
from urllib.request import Request, urlopen

from rlvr_world.domains.web_page.config import BrowserSpec
from rlvr_world.domains.web_page.envs.chromium import is_outside
from rlvr_world.errors import InputError

Login = Callable[[Any], Awaitable[None]]
MINIWOB_START = """seed => {
  const hidden = document.createElement('style');
  hidden.textContent = '#reward-display, #click-canvas, #sync-task-cover { display: none !important }';
  document.head.append(hidden);
  core.EPISODE_MAX_TIME = 1e9;
  core.countdownTimer = () => {};
  Math.seedrandom(String(seed));
  core.startEpisodeReal();
  const goal = core.getUtterance();
  return typeof goal === 'string' ? goal : goal.utterance;
}"""
"""Starts an episode: its clock and its scores are no part of the page, and its time does not run out."""
MINIWOB_OUTCOME = "() => [WOB_DONE_GLOBAL, WOB_RAW_REWARD_GLOBAL]"
_SERVE = """
import http.server, sys, threading
sys.path.insert(0, '.')
import server
web = http.server.ThreadingHTTPServer(('127.0.0.1', 0), server.AppHandler)
web.daemon_threads = True
threading.Thread(target=web.serve_forever, daemon=True).start()
print(web.server_address[1], flush=True)
sys.stdin.read()
"""  # ends with the process that started it, whose end closes its input


class PageFailure(Exception):
    """The page or its server did not answer, or its renderer is gone; the message says which."""


@dataclass(frozen=True)
class Task:
    page: str
    """The page on which it starts, relative to its site's root."""
    goal: str = ""
    """What is to be done; empty where nobody says, or where the page does when it starts."""


@dataclass(frozen=True)
class Site:
    """Pages, and how an episode on one of them starts."""

    root: str
    """What the address of every page begins with."""
    tasks: Mapping[str, Task]
    start: str = "() => ''"
    """JavaScript function of the seed that starts an episode on the loaded page; returns the goal, empty for none."""
    outcome: str = "() => [false, 0]"
    """JavaScript function that returns whether the episode is over, and its reward."""
    verify: Callable[[str], bool] | None = None
    """Instead of it, whether a task is done as the app's state says. Raises PageFailure."""
    reset: Callable[[], None] = lambda: None
    """Called before an episode. Raises PageFailure."""
    stateless: bool = False
    """Pages store nothing, so that one browser profile serves all episodes."""
    login: Login | None = None
    """Done once before all else."""


def miniwob() -> Site:
    """The pages of the package ``miniwob``, straight from its files."""
    spec = find_spec("miniwob")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("No module named 'miniwob'", name="miniwob")
    pages = Path(spec.submodule_search_locations[0]) / "html" / "miniwob"
    tasks = {page.stem: Task(page.name) for page in sorted(pages.glob("*.html"))}
    return Site(pages.as_uri() + "/", tasks, MINIWOB_START, MINIWOB_OUTCOME, stateless=True)


def folder(path: Path) -> Site:
    """Every ``.html`` file of a folder and of the folders in it."""
    pages = sorted(page.relative_to(path).as_posix() for page in path.rglob("*.html"))
    if not pages:
        raise InputError(f"path={path}: expected a folder with .html pages, got none; give one that has some")
    return Site(path.resolve().as_uri() + "/", {page: Task(quote(page)) for page in pages})


def server(spec: BrowserSpec) -> Site:
    """An app that runs already, begun on the pages that are the tasks, or on that of the address."""
    parts = urlsplit(spec.path)
    if parts.scheme not in ("http", "https") or is_outside(spec.path, spec.allow):
        wanted = "an address such as http://localhost:3000, or of a host that allow=HOST names"
        raise InputError(f"path={spec.path}: expected {wanted}; pages reach nothing else")
    pages = {page: Task(page) for page in spec.tasks or (parts.path or "/",)}
    login = _login(Path(spec.login).expanduser()) if spec.login else None
    return Site(f"{parts.scheme}://{parts.netloc}", pages, login=login)


def _login(file: Path) -> Login:
    """The function of this name in a user's own script, an async one that gets Playwright's page."""
    try:
        login: Login | None = runpy.run_path(str(file)).get("login")
    except SyntaxError as error:
        raise InputError(f"login={file}: it does not read as a Python file ({error}); write it anew") from None
    if not inspect.iscoroutinefunction(login):
        raise InputError(f"login={file}: expected `async def login(page)` there, got {login!r}; write it")
    return login


@contextmanager
def infinity(path: Path) -> Iterator[Site]:
    """One app of a WebArena-Infinity checkout, such as ``apps/gmail``, served on loopback by its own handler."""
    for name in ("server.py", "real-tasks.json"):
        if not (path / name).is_file():
            wanted = f"an app of a WebArena-Infinity checkout, such as CHECKOUT/apps/gmail, with its {name}"
            raise InputError(f"path={path}: expected {wanted}, got a folder without it; give the app's own folder")
    files = [file for kind in ("real", "function") if (file := path / f"{kind}-tasks.json").is_file()]
    try:
        known = {task["id"]: task for file in files for task in json.loads(file.read_text())}
        tasks = {name: Task("", task["instruction"]) for name, task in known.items()}
        programs = {name: path / task["verify"] for name, task in known.items()}
    except (ValueError, LookupError, TypeError) as error:
        wanted = "lists of tasks with id, instruction and verify"
        raise InputError(f"path={path}: expected {wanted}, got {error!r:.80}; check its *-tasks.json") from error
    command = [sys.executable, "-c", _SERVE]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=path, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout
            port = server.stdout.readline().strip()
            if not port:
                raise InputError(f"{path / 'server.py'}: does not start; expected a class AppHandler, as the apps have")
            url = f"http://127.0.0.1:{port}/"
            verify = partial(_verified, programs, url)
            yield Site(url, tasks, reset=lambda: _post(url + "api/reset"), verify=verify)
        finally:
            server.kill()


def _verified(programs: Mapping[str, Path], url: str, task: str) -> bool:
    """What the checkout's own program for a task says of the app's state, which it reads at ``/api/state``."""
    try:
        return bool(runpy.run_path(str(programs[task]))["verify"](url.rstrip("/"))[0])
    except Exception as error:
        raise PageFailure(f"the verifier of {task} failed: {type(error).__name__}: {error}") from error


def _post(url: str) -> None:
    try:
        with urlopen(Request(url, method="POST"), timeout=10) as answer:
            answer.read()
    except (OSError, HTTPException) as error:
        raise PageFailure(f"the app could not be reset: {error}") from error
