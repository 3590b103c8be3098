"""Pages of a real browser in sessions: one browser, and one page in it that runs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Mapping
from contextlib import ExitStack
from functools import lru_cache
from typing import Any, TypeVar

from rlvr_world.domains.replayed import Begun, Replayed
from rlvr_world.domains.scene import MAX_ACTION, AnyText, read_text
from rlvr_world.domains.web_page.config import BrowserSpec
from rlvr_world.domains.web_page.envs.collect import begin, opened, tasks_of
from rlvr_world.domains.web_page.envs.session import Session
from rlvr_world.domains.web_page.envs.sites import PageFailure
from rlvr_world.domains.web_page.rows import PageState
from rlvr_world.domains.web_page.scene import as_text, observed, refused, space
from rlvr_world.errors import InputError

T = TypeVar("T")


class RealPages(Replayed):
    """A spec's pages as a ``World``: the seed says which task, unless ``options["task"]`` does, and makes its page."""

    def __init__(self, spec: BrowserSpec) -> None:
        self._held = ExitStack()
        self._browser = lru_cache(maxsize=1)(lambda: self._held.enter_context(_Browser(spec)))
        super().__init__(self._open, self._begin, read_text, (AnyText(MAX_ACTION), space()), as_text, live=1)

    def _begin(self, seed: int, options: Mapping[str, Any]) -> Begun:
        tasks = self._browser().tasks
        task = options.get("task", tasks[seed % len(tasks)])
        if task not in self._browser().site.tasks:
            raise InputError(f"start, task: expected one such as {tasks[0]!r}, got {task!r}")
        return task, seed

    def _open(self, begun: Begun) -> _Episode:
        return _Episode(self._browser(), *begun)

    def close(self) -> None:
        super().close()
        self._browser.cache_clear()
        self._held.close()


class _Browser:
    """A browser in a thread of its own, where its event loop runs."""

    def __init__(self, spec: BrowserSpec) -> None:
        self._stack = ExitStack()
        self.site = self._stack.enter_context(opened(spec))
        self.tasks, self.session = tasks_of(spec, self.site), Session(spec.browser, spec.allow)
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    def __enter__(self) -> _Browser:
        self.wait(self.session.__aenter__())
        return self

    def __exit__(self, *error: object) -> None:
        self.wait(self.session.__aexit__())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._stack.close()

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


class _Episode:
    """A page that runs; see ``Running``."""

    def __init__(self, browser: _Browser, task: str, seed: int) -> None:
        self.browser, self.task = browser, task
        try:
            self.goal, page = browser.wait(begin(browser.session, browser.site, task, seed))
        except PageFailure as error:
            browser.wait(browser.session.restart())
            raise InputError(f"task {task!r}, seed {seed}: its page does not open: {error}") from error
        self._now = self._state(page.text, "")

    def _state(self, text: str, previous: str) -> PageState:
        url = self.browser.session.page.url.removeprefix(self.browser.site.root)
        return PageState(text, url, self.goal, previous)

    def told(self) -> Mapping[str, Any]:
        return {"task": self.task, "goal": self.goal}

    def seen(self) -> dict[str, str]:
        return observed(self._now)

    def act(self, action: str) -> tuple[float, bool, Mapping[str, Any]]:
        if error := refused(self._now, action):
            return 0.0, False, {"action_error": error}
        if action.startswith("stop"):
            return 0.0, True, {"changed": False}
        try:
            return self.browser.wait(self._act(action))
        except PageFailure as error:
            self.browser.wait(self.browser.session.restart())
            return 0.0, False, {"lost": str(error)}

    async def _act(self, action: str) -> tuple[float, bool, Mapping[str, Any]]:
        session, before = self.browser.session, self._now
        await session.act(action)
        page = await session.observation()
        over, reward = await session.run(self.browser.site.outcome)
        self._now = self._state(page.text, action)
        notes = session.notes()
        told = {"changed": self._now.text != before.text, **({"notes": notes} if notes else {})}
        return float(reward), bool(over), told

    def close(self) -> None:
        """The next page takes its place."""
