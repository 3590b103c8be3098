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
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from importlib import metadata
from itertools import product
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from rlvr_world.domains.web_page.config import BrowserSpec, miniwob_tasks
from rlvr_world.domains.web_page.envs.explorer import choose_action
from rlvr_world.domains.web_page.envs.sites import PageFailure, Site, folder, infinity, miniwob, server
from rlvr_world.domains.web_page.envs.snapshot import NOTHING, Observation
from rlvr_world.errors import InputError
from rlvr_world.system.files import write_whole
from rlvr_world.system.progress import progress

if TYPE_CHECKING:
    from rlvr_world.domains.web_page.envs.session import Session

FORMAT = 1  # part of the cache key: raise it when the same spec gives other rows


def collect_rows(spec: BrowserSpec, cache: Path | str) -> Path:
    """The ``.jsonl.gz`` of the rows of ``spec`` under ``cache``: found there, or collected, going on where it stopped.

    A row has task, seed, step, url, goal, observation, action, next_observation, error (empty where all went well),
    reward and done. Raises InputError where there is no Chromium or no such page.
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
            with opened(spec) as site:
                asyncio.run(_collect(spec, site, out))
            out.seek(0)
            write_whole(path, gzip.compress(out.read(), mtime=0))
        part.unlink(missing_ok=True)
    return path


def opened(spec: BrowserSpec) -> AbstractContextManager[Site]:
    """The site of a spec, as long as it is needed."""
    pages = Path(spec.path).expanduser()
    if spec.site == "infinity":
        return infinity(pages)
    if spec.site == "url":
        return nullcontext(server(spec))
    return nullcontext(folder(pages) if spec.site == "folder" else miniwob())


def _content(spec: BrowserSpec) -> tuple[Any, ...]:
    """What the rows depend on."""
    fields = {name: value for name, value in asdict(spec).items() if name not in ("browser", "login")}
    if spec.site == "url":
        return fields, Path(spec.login).expanduser().read_text() if spec.login else ""
    if spec.site != "miniwob":
        path = Path(spec.path).expanduser()
        parts = (p for p in path.rglob("*") if p.suffix in (".html", ".css", ".js", ".json", ".py") and p.is_file())
        pages = {str(part.relative_to(path)): hashlib.sha256(part.read_bytes()).hexdigest() for part in parts}
        return fields, "with frames", str(path.resolve()), pages
    return fields, spec.tasks or miniwob_tasks("shown"), metadata.version("miniwob")


async def _collect(spec: BrowserSpec, site: Site, out: IO[bytes]) -> None:
    from rlvr_world.domains.web_page.envs.session import Session

    tasks = tasks_of(spec, site)
    rows = _resume(out)
    done = {(row["task"], row["seed"]) for row in rows}
    total = min(filter(None, (spec.transitions, len(tasks) * spec.episodes * spec.steps)))
    async with Session(spec.browser, spec.allow, site.login) as session:
        with progress(f"collecting {spec.site} pages", total, "rows") as update:
            update(_count(rows))
            for seed, task in product(range(spec.seed, spec.seed + spec.episodes), tasks):
                if spec.transitions and _count(rows) >= spec.transitions:
                    break
                if (task, seed) not in done:
                    episode = await play(session, site, task, seed, spec)
                    out.write(b"".join(json.dumps(row).encode() + b"\n" for row in episode))
                    out.flush()
                    rows += episode
                    update(_count(rows))
    lost = Counter(row["error"] for row in rows if row["error"] and row["next_observation"] == NOTHING.text)
    for reason, count in lost.most_common():
        print(f"{count} of the episodes failed: {reason}", file=sys.stderr)
    if not _count(rows):
        out.truncate(0)  # what is wrong with all of them can be mended, so that all are tried again
        raise InputError(f"web: no page of {site.root} could be opened and read; open one in a browser to see why")


def tasks_of(spec: BrowserSpec, site: Site) -> tuple[str, ...]:
    """The tasks that a spec names. Raises InputError for one that the site does not have."""
    chosen = miniwob_tasks("shown") if spec.site == "miniwob" else tuple(site.tasks)
    tasks = tuple(site.tasks) if spec.tasks == ("all",) else spec.tasks or chosen
    if unknown := [task for task in tasks if task not in site.tasks]:
        near = difflib.get_close_matches(unknown[0], site.tasks, 3, 0) or site.tasks
        raise InputError(f"tasks: {spec.site} has no {unknown[0]!r}; the nearest are {', '.join(near)}")
    return tasks


def _count(rows: Iterable[dict[str, Any]]) -> int:
    """Rows of pages that were read."""
    return sum(bool(row["observation"]) for row in rows)


def _resume(out: IO[bytes]) -> list[dict[str, Any]]:
    """The rows that are kept; the last episode can be half written and is taken away."""
    out.seek(0)
    lines = [line for line in out.read().splitlines(keepends=True) if line.endswith(b"\n")]
    rows = [json.loads(line) for line in lines]
    episodes = [(row["task"], row["seed"]) for row in rows]
    kept = episodes.index(episodes[-1]) if episodes else 0
    out.truncate(sum(map(len, lines[:kept])))
    return rows[:kept]


async def play(session: Session, site: Site, task: str, seed: int, spec: BrowserSpec) -> list[dict[str, Any]]:
    """The rows of one episode. What goes wrong stands in a row's error; an episode whose page is lost ends there."""
    rng = random.Random(f"{task}/{seed}")
    rows: list[dict[str, Any]] = []
    tried: dict[str, Any] = {"task": task, "seed": seed, "step": 0, "url": site.tasks[task].page, "goal": ""}
    tried |= {"observation": "", "action": ""}  # of a page that is lost before it is read
    try:
        goal, page = await begin(session, site, task, seed)
        while len(rows) < spec.steps and not (rows and rows[-1]["done"]):
            action = choose_action(page.page, goal, [row["action"] for row in rows], rng, spec.ends)
            url = session.page.url.removeprefix(site.root)
            tried |= {"step": len(rows), "url": url, "goal": goal, "observation": page.text, "action": action}
            await session.act(action)
            page = await session.observation()
            over, reward = await outcome(session, site, task)
            rows.append(tried | _came(page, session.notes(), reward, over))
    except PageFailure as error:
        notes = "; ".join(filter(None, (session.notes(), str(error))))
        rows.append(tried | _came(NOTHING, notes, 0.0, True))
        await session.restart()
    return rows


async def begin(session: Session, site: Site, task: str, seed: int) -> tuple[str, Observation]:
    """Start an episode: its goal and its first page."""
    site.reset()
    await session.open(site.root + site.tasks[task].page, fresh=not site.stateless)
    goal = await session.run(site.start, seed) or site.tasks[task].goal
    await session.settle()
    page = await session.observation()
    session.notes()
    return goal, page


async def outcome(session: Session, site: Site, task: str) -> tuple[bool, float]:
    """Whether the episode is over, and its reward. Where a program verifies, it is over when that says so."""
    over, reward = [site.verify(task)] * 2 if site.verify else await session.run(site.outcome)
    return bool(over), float(reward)


def _came(page: Observation, error: str, reward: float, done: bool) -> dict[str, Any]:
    return {"next_observation": page.text, "error": error, "reward": reward, "done": done}
