"""Rows of web pages, collected here: seeded episodes in a real browser, kept as they come, and gone on with later."""

from __future__ import annotations

import asyncio
import difflib
import fcntl
import gzip
import hashlib
import json
import random
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import metadata
from itertools import product
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from rich.progress import Progress

from rlvr_world.config import what
from rlvr_world.domains.web_page.browser.explorer import choose_action
from rlvr_world.domains.web_page.browser.sites import PageFailure, Site, folder, infinity, miniwob
from rlvr_world.domains.web_page.browser.snapshot import NOTHING, Observation
from rlvr_world.errors import InputError
from rlvr_world.files import write_whole

if TYPE_CHECKING:
    from rlvr_world.domains.web_page.browser.session import Session

FORMAT = 1  # part of the cache key: raise it when the same spec gives other rows
MINIWOB_TASKS = (
    *("button-delay", "buy-ticket", "choose-list", "click-button", "click-button-sequence", "click-checkboxes"),
    *("click-checkboxes-large", "click-checkboxes-soft", "click-checkboxes-transfer", "click-collapsible-nodelay"),
    *("click-option", "click-scroll-list", "click-widget", "copy-paste", "copy-paste-2", "email-inbox-forward-nl-turk"),
    *("email-inbox-nl-turk", "email-inbox-noscroll", "enter-password", "enter-text", "enter-text-2"),
    *("enter-text-dynamic", "find-word", "form-sequence", "form-sequence-2", "form-sequence-3", "generate-number"),
    *("guess-number", "login-user", "login-user-popup", "multi-layouts", "multi-orderings", "number-checkboxes"),
    *("odd-or-even", "order-food", "phone-book", "read-table", "read-table-2", "simple-algebra", "simple-arithmetic"),
    *("social-media-some", "text-transform", "unicode-test", "use-autocomplete-nodelay", "use-spinner"),
    "visual-addition",
)
"""Tasks whose tree shows what an action does. Left out: what is drawn, dragged or coloured (a tree has no shapes),
pages where the first click ends the episode or shows nothing, calendars of a hundred lines, and texts that stay
hidden until a click, which nobody can predict."""


@dataclass(frozen=True)
class WebSpec:
    """What to collect.

    >>> WebSpec()                                                    # MiniWoB, the tasks that suit
    >>> WebSpec(site="infinity", path="webarena-infinity/apps/gmail", steps=10)
    """

    site: Literal["miniwob", "folder", "infinity"] = what(
        "miniwob", "pages of the package miniwob, .html files of a folder, or one app of a WebArena-Infinity checkout"
    )
    path: str = what("", "folder: where the pages are; infinity: the app, such as CHECKOUT/apps/gmail")
    tasks: tuple[str, ...] = what(
        (), "tasks to play, or 'all'; empty takes all, of MiniWoB those whose trees show something"
    )
    episodes: int = what(30, "episodes a task, each on a page made from a seed of its own", "episodes")
    steps: int = what(4, "longest episode", "actions")
    transitions: int = what(0, "stop when there are so many; 0 plays every episode", "rows")
    seed: int = what(0, "seed of a task's first episode; the others follow on")
    browser: str = what("", "path of a Chromium; empty looks for one")
    allow: tuple[str, ...] = what((), "hosts that pages may reach, besides this machine")

    def __post_init__(self) -> None:
        for name, least in (("episodes", 1), ("steps", 1), ("transitions", 0)):
            if getattr(self, name) < least:
                raise InputError(f"web: {name} is {getattr(self, name)}; expected a whole number of at least {least}")
        if (self.site == "miniwob") == bool(self.path):
            raise InputError(
                f"web: site={self.site} with path={self.path!r}; name the folder for folder and infinity only"
            )


def collect_rows(spec: WebSpec, cache: Path | str, progress: bool = True) -> Path:
    """The ``.jsonl.gz`` of the rows of ``spec`` under ``cache``: found there, or collected, going on where it stopped.

    The same spec gives the same rows where the pages are deterministic. A row has task, seed, step, url, goal,
    observation, action, next_observation, error (empty where all went well), reward and done.
    Raises InputError where there is no Chromium or no such page; ModuleNotFoundError without the extra ``web``.
    """
    cache = Path(cache).expanduser()
    key = json.dumps([FORMAT, *_content(spec)], sort_keys=True)
    path = cache / f"web-{spec.site}-{hashlib.sha256(key.encode()).hexdigest()[:12]}.jsonl.gz"
    if path.exists():
        return path
    cache.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix("").with_suffix(".part")
    with part.open("a+b") as out:
        fcntl.flock(out, fcntl.LOCK_EX)  # processes that want the same rows take turns
        if not path.exists():
            with _site(spec) as site, Progress(disable=not progress) as bar:
                asyncio.run(_collect(spec, site, out, bar))
            out.seek(0)
            write_whole(path, gzip.compress(out.read(), mtime=0))
        part.unlink(missing_ok=True)
    return path


def _content(spec: WebSpec) -> tuple[Any, ...]:
    """What the rows depend on."""
    fields = {name: value for name, value in asdict(spec).items() if name != "browser"}
    if spec.site != "miniwob":
        path = Path(spec.path).expanduser()
        parts = (part for kind in ("html", "css", "js") for part in path.rglob(f"*.{kind}") if part.is_file())
        pages = {str(part.relative_to(path)): hashlib.sha256(part.read_bytes()).hexdigest() for part in parts}
        return fields, str(path.resolve()), pages
    return fields, spec.tasks or MINIWOB_TASKS, metadata.version("miniwob")


@contextmanager
def _site(spec: WebSpec) -> Iterator[Site]:
    path = Path(spec.path).expanduser()
    if spec.site == "infinity":
        with infinity(path) as site:
            yield site
    else:
        yield folder(path) if spec.site == "folder" else miniwob()


async def _collect(spec: WebSpec, site: Site, out: IO[bytes], bar: Progress) -> None:
    from rlvr_world.domains.web_page.browser.session import Session

    chosen = MINIWOB_TASKS if spec.site == "miniwob" else tuple(site.tasks)
    tasks = tuple(site.tasks) if spec.tasks == ("all",) else spec.tasks or chosen
    if unknown := [task for task in tasks if task not in site.tasks]:
        near = difflib.get_close_matches(unknown[0], site.tasks, 3, 0) or site.tasks
        raise InputError(f"tasks: {spec.site} has no {unknown[0]!r}; the nearest are {', '.join(near)}")
    kept = _resume(out)
    done, failed, rows = {(row["task"], row["seed"]) for row in kept}, _failures(kept), _count(kept)
    total = spec.transitions or len(tasks) * spec.episodes * spec.steps
    line = bar.add_task(f"collecting {spec.site} pages", total=total, completed=rows)
    async with Session(spec.browser, spec.allow) as session:
        for seed, task in product(range(spec.seed, spec.seed + spec.episodes), tasks):
            if spec.transitions and rows >= spec.transitions:
                break
            if (task, seed) not in done:
                episode = await play(session, site, task, seed, spec.steps)
                out.write(b"".join(json.dumps(row).encode() + b"\n" for row in episode))
                out.flush()
                failed, rows = failed + _failures(episode), rows + _count(episode)
                bar.update(line, completed=rows)
    for reason, count in failed.most_common():
        print(f"{count} of the episodes failed: {reason}", file=sys.stderr)
    if not rows:
        out.truncate(0)  # what is wrong with all of them can be mended, so that all are tried again
        raise InputError(f"web: no page of {site.root} could be opened and read; open one in a browser to see why")


def _count(rows: Iterable[dict[str, Any]]) -> int:
    """Rows of pages that were read."""
    return sum(bool(row["observation"]) for row in rows)


def _failures(rows: Iterable[dict[str, Any]]) -> Counter[str]:
    """How many of these rows' episodes lost their page, by reason."""
    return Counter(row["error"] for row in rows if row["error"] and row["next_observation"] == NOTHING.text)


def _resume(out: IO[bytes]) -> list[dict[str, Any]]:
    """The rows that are kept; the last episode can be half written and is taken away."""
    out.seek(0)
    lines = [line for line in out.read().splitlines(keepends=True) if line.endswith(b"\n")]
    rows = [json.loads(line) for line in lines]
    episodes = [(row["task"], row["seed"]) for row in rows]
    kept = episodes.index(episodes[-1]) if episodes else 0
    out.truncate(sum(map(len, lines[:kept])))
    return rows[:kept]


async def play(session: Session, site: Site, task: str, seed: int, steps: int) -> list[dict[str, Any]]:
    """The rows of one episode. What goes wrong stands in a row's error; an episode whose page is lost ends there."""
    rng = random.Random(f"{task}/{seed}")
    rows: list[dict[str, Any]] = []
    tried: dict[str, Any] = {"task": task, "seed": seed, "step": 0, "url": site.tasks[task].page, "goal": ""}
    tried |= {"observation": "", "action": ""}  # of a page that is lost before it is read
    try:
        site.reset()
        await session.open(site.root + site.tasks[task].page, fresh=not site.stateless)
        goal = await session.run(site.start, seed) or site.tasks[task].goal
        await session.settle()
        page = await session.observation()
        session.notes()
        while len(rows) < steps and not (rows and rows[-1]["done"]):
            action = choose_action(page.page, goal, [row["action"] for row in rows], rng)
            url = session.page.url.removeprefix(site.root)
            tried |= {"step": len(rows), "url": url, "goal": goal, "observation": page.text, "action": action}
            await session.act(action)
            page = await session.observation()
            over, reward = await session.run(site.outcome)
            rows.append(tried | _came(page, session.notes(), reward, over))
    except PageFailure as error:
        notes = "; ".join(filter(None, (session.notes(), str(error))))
        rows.append(tried | _came(NOTHING, notes, 0, True))
        await session.restart()
    return rows


def _came(page: Observation, error: str, reward: float, done: bool) -> dict[str, Any]:
    return {"next_observation": page.text, "error": error, "reward": float(reward), "done": done}
