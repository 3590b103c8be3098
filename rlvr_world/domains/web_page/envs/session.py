"""A Chromium with one page, behind a wall: what a page can reach, how long it takes and how it fails are bounded.

Pages run in Chromium's virtual time: the clock stands still between steps and is wound on after an action, as fast as
the page can follow and not while a request is on its way. So a page's timers and animations have ended when it is
read, nothing happens between two steps, and the same actions give the same page.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import re
import signal
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, TypeVar

from playwright.async_api import BrowserContext, Dialog, Error, Page, Route, StorageState, async_playwright

from rlvr_world.domains.web_page.actions import Action, parse_action
from rlvr_world.domains.web_page.envs.chromium import PROFILE, VIEW, find_chromium, is_outside, launch_arguments
from rlvr_world.domains.web_page.envs.sites import Login, PageFailure
from rlvr_world.domains.web_page.envs.snapshot import MAX_LINES, Observation, observe
from rlvr_world.errors import InputError

MAX_ELEMENTS = 10_000
"""Elements of the largest page that is read: Chromium takes seconds to describe so many."""
LIMIT = 10.0
"""Seconds that one step of a page may take."""
_EPOCH = 1_718_452_800  # the first page's clock starts here: noon of a day in June 2024, UTC
_ROUND, _ROUNDS, _QUIET = 1000, 3, 100  # virtual ms of a round after an action; rounds; quiet ms at their end
_TICK = 50  # virtual ms wound on at a time while a page loads
_WATCH = """new MutationObserver(() => { window.__lastChange = performance.now() })
.observe(document, {subtree: true, childList: true, attributes: true, characterData: true})"""
_STATE = "() => [document.readyState, performance.now() - (window.__lastChange ?? -1e9)]"
_COUNT = """() => {
  const inner = frame => frame.contentDocument ? count(frame.contentDocument) : 0;
  const count = page => [...page.querySelectorAll('iframe, frame')].reduce(
    (sum, frame) => sum + inner(frame), page.getElementsByTagName('*').length);
  return count(document);
}"""
_EXTENT = """() => {
  const all = document.createRange(); all.selectNodeContents(document.body ?? document.documentElement);
  return ['right', 'bottom'].map(side => Math.max(1, all.getBoundingClientRect()[side]));
}"""
_CHOOSE = """function () {
  const list = this.closest('select');
  if (list && !this.disabled && !list.disabled) {
    this.selected = list.multiple ? !this.selected : true;
    list.focus();
    for (const kind of ['input', 'change']) list.dispatchEvent(new Event(kind, {bubbles: true}));
  }
  return Boolean(list);
}"""

T = TypeVar("T")


class Missing(Exception):
    """The action could not be done on this page; the message says why."""


def _children() -> set[int]:
    """The processes that this thread has started; none where the system does not tell."""
    told = Path("/proc/thread-self/children")
    return {int(child) for child in told.read_text().split()} if told.exists() else set()


class Session:
    """``async with Session() as session``: a browser that is gone when the block ends, however it ends.

    browser: path of a Chromium, empty to look for one; allow: hosts that may be reached besides loopback; login: done
    once, on a page whose clock runs, and what it stores is there in all that follows. Raises InputError where there is
    no Chromium, it does not start or the login fails, and PageFailure wherever a page does not answer.
    """

    def __init__(self, browser: str = "", allow: tuple[str, ...] = (), login: Login | None = None) -> None:
        self.browser, self.allow, self.login = browser, allow, login
        self._stored: StorageState | None = None
        self.page: Page
        self._context: BrowserContext | None = None
        self._notes: list[str] = []
        self._wound = asyncio.Event()
        self._crash: asyncio.Future[None]
        self._cdp: Any = None
        self._last: Observation | None = None

    async def __aenter__(self) -> Session:
        self._manager, others = async_playwright(), _children()
        self._playwright = await self._manager.__aenter__()
        self._driver = _children() - others
        try:
            await self._launch()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(self, *error: object) -> None:
        try:
            await self._close()
        finally:
            await self._stop()

    async def restart(self) -> None:
        """A new browser in place of one that does not answer."""
        await self._close()
        await self._launch()

    async def open(self, url: str, fresh: bool = False) -> None:
        """Load a page; ``fresh`` forgets what the pages before have stored."""
        if fresh or self._context is None:
            await self._bounded(self._new_page())
        self._last = None
        await self._bounded(self._navigate(self.page.goto(url, wait_until="load")))

    async def run(self, function: str, argument: Any = None) -> Any:
        """The result of a JavaScript function of the program's own; text of a page is only ever its argument."""
        return await self._bounded(self.page.evaluate(function, argument))

    async def settle(self) -> None:
        """Wind the page's clock on until nothing changes any more, at most three virtual seconds."""
        await self._bounded(self._settle())

    async def observation(self) -> Observation:
        """The page as it stands; numbers follow on those of the last observation of this page."""
        self._last = await self._bounded(self._observe())
        if self._last.cut:
            self._notes.append(f"the page has more than {MAX_LINES} lines; the rest is left out")
        return self._last

    async def picture(self) -> bytes:
        """What is seen of the page, as a PNG no larger than what stands on it."""
        right, bottom = await self.run(_EXTENT)
        clip = {"x": 0, "y": 0, "width": min(right, VIEW[0]), "height": min(bottom, VIEW[1]), "scale": 1}
        shot = await self._bounded(self._cdp.send("Page.captureScreenshot", {"clip": clip}))
        return base64.b64decode(shot["data"])

    def notes(self) -> str:
        """What was out of the ordinary since the last call: dialogs, closed tabs, a page that does not settle."""
        text, self._notes = "; ".join(self._notes), []
        return text

    async def act(self, action: str) -> None:
        """Do one action, in WebArena's words, on the page last observed, and let the page settle; one that cannot be
        done is noted. Raises InputError where it does not read as an action."""
        try:
            await self._bounded(self._act(parse_action(action)))
        except Missing as error:
            self._notes.append(str(error))
        await self.settle()

    async def _launch(self) -> None:
        chromium = self._playwright.chromium
        path, arguments = find_chromium(self.browser, chromium.executable_path), launch_arguments(self.allow)
        try:
            self._browser = await chromium.launch(
                executable_path=path, args=arguments, handle_sigint=False, handle_sigterm=False
            )
        except Error as error:
            raise InputError(f"browser: {path} does not start: {_first_line(error)}") from error
        self._context, self._crash = None, asyncio.get_running_loop().create_future()
        if self.login and self._stored is None:
            context = await self._walled()
            try:
                await self.login(await context.new_page())
            except Error as error:
                raise InputError(f"login: {_first_line(error)}; look at the script and at the page") from error
            self._stored = await context.storage_state()
            await context.close()

    async def _close(self) -> None:
        with contextlib.suppress(Error, asyncio.TimeoutError):
            await asyncio.wait_for(self._browser.close(), LIMIT)

    async def _stop(self) -> None:
        """End Playwright's driver, with force where it does not answer: Chromium ends with it."""
        try:
            await asyncio.wait_for(self._manager.__aexit__(), LIMIT)
        except asyncio.TimeoutError:
            for process in self._driver:
                os.kill(process, signal.SIGKILL)
            await asyncio.sleep(0.5)  # for the event loop to see it end

    async def _new_page(self) -> None:
        if self._context:
            await self._context.close()
        self._context = context = await self._walled()
        await context.add_init_script(_WATCH)
        self.page = await context.new_page()
        self.page.on("dialog", self._dismiss)
        self.page.on("crash", self._crashed)
        context.on("page", self._close_tab)
        self._cdp = await context.new_cdp_session(self.page)
        self._cdp.on("Emulation.virtualTimeBudgetExpired", lambda _: self._wound.set())
        await self._cdp.send("Accessibility.enable")
        await self._cdp.send("Emulation.setVirtualTimePolicy", {"policy": "pause", "initialVirtualTime": _EPOCH})

    async def _walled(self) -> BrowserContext:
        """A profile of its own that reaches what it may, and has what the login stored."""
        context = await self._browser.new_context(**PROFILE, storage_state=self._stored)
        await context.route(re.compile("^(?!file:|data:|blob:|about:)"), self._gate)
        await context.route_web_socket(lambda url: is_outside(url, self.allow), lambda socket: socket.close())
        return context

    async def _gate(self, route: Route) -> None:
        request = route.request
        if is_outside(request.url, self.allow):
            if request.is_navigation_request():
                self._notes.append(f"stayed on the page: {request.url[:200]} is outside")
            await route.abort("aborted")
        elif request.resource_type == "eventsource":  # never ends, and virtual time would wait for it
            await route.abort()
        else:
            await route.continue_()

    def _crashed(self, page: Page) -> None:
        if not self._crash.done():
            self._crash.set_result(None)

    async def _dismiss(self, dialog: Dialog) -> None:
        self._notes.append(f"dismissed a dialog ({dialog.type}): {dialog.message[:200]}")
        await dialog.dismiss()

    async def _close_tab(self, page: Page) -> None:
        self._notes.append("closed a new tab")
        await page.close()

    async def _bounded(self, work: Awaitable[T]) -> T:
        """``work``, unless it takes too long or the renderer dies meanwhile, which Playwright does not report."""
        task = asyncio.ensure_future(work)
        first: set[asyncio.Future[Any]] = {task, self._crash}
        try:
            await asyncio.wait(first, timeout=LIMIT, return_when="FIRST_COMPLETED")
            if task.done():
                return await task
        except Error as error:
            raise PageFailure(f"the page failed: {_first_line(error)}") from error
        finally:
            task.cancel()
        why = "its renderer crashed" if self._crash.done() else f"it did not answer within {LIMIT:g} s"
        raise PageFailure(f"the page is lost: {why}")

    async def _navigate(self, navigation: Awaitable[Any]) -> None:
        """Wait for a navigation while the clock, without which it cannot end, is wound on in small steps."""
        going = asyncio.ensure_future(navigation)
        try:
            while not going.done():
                await self._wind(_TICK)  # to its end: what is left of a step would cut the next one short
            await going
        finally:
            going.cancel()

    async def _wind(self, milliseconds: int) -> None:
        """Wind the page's clock on; it stands while a request is on its way."""
        self._wound.clear()
        policy = {"policy": "pauseIfNetworkFetchesPending", "budget": milliseconds}
        await self._cdp.send("Emulation.setVirtualTimePolicy", policy)
        await self._wound.wait()

    async def _settle(self) -> None:
        for _ in range(_ROUNDS):
            await self._wind(_ROUND)
            try:
                ready, quiet = await self.page.evaluate(_STATE)
            except Error:  # a navigation has just taken the page away
                continue
            if ready == "complete" and quiet >= _QUIET:
                return
        self._notes.append(f"the page was still changing after {_ROUND * _ROUNDS / 1000:g} s of its time")

    async def _observe(self) -> Observation:
        count = await self.page.evaluate(_COUNT)
        if count > MAX_ELEMENTS:
            raise PageFailure(f"the page has {count} elements; more than {MAX_ELEMENTS} are not read")
        snapshot = await self._cdp.send("DOMSnapshot.captureSnapshot", {"computedStyles": []})
        frames = [snapshot["strings"][page["frameId"]] for page in snapshot["documents"]]  # of other origins: none
        trees = [await self._cdp.send("Accessibility.getFullAXTree", {"frameId": frame}) for frame in frames]
        nodes = [node for tree in trees for node in tree["nodes"]]
        return observe(await self.page.title(), nodes, snapshot, VIEW, self._last)

    async def _act(self, action: Action) -> None:
        if action.id:
            await self._point(action)
        if action.verb == "type":
            await self.page.keyboard.type(action.text)
            if action.enter:
                await self.page.keyboard.press("Enter")
        elif action.verb == "clear":
            for keys in ("Control+A", "Backspace"):
                await self.page.keyboard.press(keys)
        elif action.verb == "scroll":
            # In braces, because newer Chromium returns a promise that only a frame of the running clock fulfils.
            way = 1 if action.text == "down" else -1
            await self.page.evaluate("by => { window.scrollBy(0, by * innerHeight) }", way)
        elif action.verb in ("press", "goto", "go_back", "go_forward"):
            await self._go(action)
        elif not action.id:
            raise Missing(f"{action.verb} is not for a browser of one tab")

    async def _go(self, action: Action) -> None:
        page = self.page
        try:
            if action.verb == "press":
                await page.keyboard.press(action.text)
            else:
                back_or_on = page.go_back if action.verb == "go_back" else page.go_forward
                await self._navigate(page.goto(action.text) if action.verb == "goto" else back_or_on())
        except Error as error:
            raise Missing(f"{action} leads nowhere: {_first_line(error)}") from error

    async def _point(self, action: Action) -> None:
        """Click the middle of a node, or go there; an option of a closed list, which has no place, is chosen."""
        key = self._last.key(action.id) if self._last else None
        if key is None or self._last is None:
            raise Missing(f"no element [{action.id}] on the page")
        target, cdp = {"backendNodeId": key}, self._cdp
        try:
            if action.verb == "click" and self._last.page.by_id[action.id].role == "option":
                found = await cdp.send("DOM.resolveNode", target)
                call = {"functionDeclaration": _CHOOSE, "objectId": found["object"]["objectId"]}
                if (await cdp.send("Runtime.callFunctionOn", call))["result"]["value"]:
                    return
            await cdp.send("DOM.scrollIntoViewIfNeeded", target)
            quad = (await cdp.send("DOM.getContentQuads", target))["quads"][0]
        except (Error, IndexError) as error:
            raise Missing(f"element [{action.id}] cannot be reached: {_first_line(error)}") from error
        x, y = sum(quad[0::2]) / 4, sum(quad[1::2]) / 4
        await (self.page.mouse.move(x, y) if action.verb == "hover" else self.page.mouse.click(x, y))


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200]
