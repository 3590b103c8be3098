"""Pages of a real browser in sessions: one browser, and one page in it that runs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from rlvr_world.domains.replayed import Begun, Past, Replayed
from rlvr_world.domains.scene import MAX_ACTION, AnyText, read_text
from rlvr_world.domains.web_page.config import BrowserSpec
from rlvr_world.domains.web_page.envs.collect import begin, opened, outcome, tasks_of
from rlvr_world.domains.web_page.envs.explorer import clicks
from rlvr_world.domains.web_page.envs.session import Session
from rlvr_world.domains.web_page.envs.sites import PageFailure, Site
from rlvr_world.domains.web_page.rows import PageState
from rlvr_world.domains.web_page.scene import as_text, observed, refused, space
from rlvr_world.errors import InputError
from rlvr_world.types import Asked, Outcome, Streams


class RealPages(Replayed):
    """A spec's pages as a ``World``: the seed says which task, unless ``options["task"]`` does, and, counted from
    ``first`` on, makes its page. ``remember``: what came of an action after others is kept, for planners that try the
    same (virtual time replays)."""

    options = ("state", "task")

    def __init__(self, spec: BrowserSpec, first: int = 0, remember: bool = False) -> None:
        super().__init__(self._opened, self._begin, read_text, (AnyText(MAX_ACTION), space()), as_text, live=1)
        self.spec, self.first, self._held = spec, first, ExitStack()
        self._browser: _Browser | None = None
        self._known: dict[tuple[Any, ...], Outcome] | None = {} if remember else None

    def advance(self, asked: Asked, streams: Streams) -> list[Outcome]:
        if self._known is None:
            return super().advance(asked, streams)
        keys = [(past.begun, past.done, action) for past, action in asked]
        for key, pair in zip(keys, asked, strict=True):
            if key not in self._known:
                [self._known[key]] = super().advance([pair], [()])
        return [self._known[key] for key in keys]

    def picture(self, state: Past) -> bytes:
        """PNG of the page in a state. Raises InputError where it is lost on the way back to that."""
        [there] = super().advance([(state, "")], [()])  # what is no action takes the page there, and no further
        try:
            if "lost" not in there.info:
                return bytes(self.browser.wait(self.browser.session.picture()))
        except PageFailure as error:
            there = Outcome(state, info={"lost": str(error)})
        raise InputError(f"picture: {there.info['lost']}")

    @property
    def browser(self) -> _Browser:
        """Started when the first session is."""
        self._browser = self._browser or self._held.enter_context(_browser(self.spec))
        return self._browser

    def episodes(self) -> list[tuple[str, int]]:
        """The spec's tasks with its seeds: each task once before one comes again."""
        seeds = range(self.spec.seed, self.spec.seed + self.spec.episodes)
        return [(task, seed) for seed in seeds for task in tasks_of(self.spec, self.browser.site)]

    def _begin(self, seed: int, options: Mapping[str, Any]) -> Begun:
        site = self.browser.site
        tasks = tasks_of(self.spec, site)
        task = options.get("task", tasks[seed % len(tasks)])
        if not isinstance(task, str) or task not in site.tasks:
            raise InputError(f"start, task: expected one such as {tasks[0]!r}, got {task!r:.80}")
        return task, self.first + seed

    def _opened(self, begun: Begun) -> _Episode:
        return _Episode(self.browser, *begun)

    def close(self) -> None:
        super().close()
        self._browser = None
        self._held.close()


class _Browser:
    """A browser whose event loop runs in a thread of its own."""

    def __init__(self, site: Site, session: Session, loop: asyncio.AbstractEventLoop) -> None:
        self.site, self.session, self.loop = site, session, loop

    def wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()


@contextmanager
def _browser(spec: BrowserSpec) -> Iterator[_Browser]:
    with opened(spec) as site:
        browser = _Browser(site, Session(spec.browser, spec.allow, site.login), asyncio.new_event_loop())
        thread = threading.Thread(target=browser.loop.run_forever, daemon=True)
        thread.start()
        try:
            browser.wait(browser.session.__aenter__())
            yield browser
            browser.wait(browser.session.__aexit__())
        finally:
            browser.loop.call_soon_threadsafe(browser.loop.stop)
            thread.join()
            browser.loop.close()


class _Episode:
    """A page that runs; see ``Running``. The next page takes its place."""

    def __init__(self, browser: _Browser, task: str, seed: int) -> None:
        self.browser, self.task = browser, task
        try:
            goal, page = browser.wait(begin(browser.session, browser.site, task, seed))
            if browser.site.verify and browser.site.verify(task):
                raise InputError(f"task {task!r}: its verifier is content before anything is done; leave it out")
        except PageFailure as error:
            browser.wait(browser.session.restart())
            raise InputError(f"task {task!r}, seed {seed}: its page does not open: {error}") from error
        self.told: Mapping[str, Any] = {"task": task, "goal": goal, "commands": clicks(page.page)}
        self.state = PageState(page.text, self._url(), goal)

    def _url(self) -> str:
        return self.browser.session.page.url.removeprefix(self.browser.site.root)

    def seen(self) -> dict[str, str]:
        return observed(self.state)

    def act(self, action: str) -> tuple[float, bool, Mapping[str, Any]]:
        if error := refused(self.state, action):
            return 0.0, False, {"action_error": error}
        if action.startswith("stop"):
            return 0.0, True, {}
        try:
            return self.browser.wait(self._act(action))
        except PageFailure as error:
            self.browser.wait(self.browser.session.restart())
            return 0.0, False, {"lost": str(error)}

    async def _act(self, action: str) -> tuple[float, bool, Mapping[str, Any]]:
        session, before = self.browser.session, self.state
        await session.act(action)
        page = await session.observation()
        over, reward = await outcome(session, self.browser.site, self.task)
        self.state = PageState(page.text, self._url(), before.goal, action)
        told = {"changed": page.text != before.text, "notes": session.notes(), "commands": clicks(page.page)}
        return reward, over, told

    def close(self) -> None: ...
