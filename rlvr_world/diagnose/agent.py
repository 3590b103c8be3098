"""The web agent tried on real pages: a trace of each task, which a later call goes on from, and what came of all."""

from __future__ import annotations

import html
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from rlvr_world.errors import InputError
from rlvr_world.evaluation.intervals import bootstrap
from rlvr_world.overrides import to_json
from rlvr_world.recipes.web_agent import Agent, AgentConfig, pages
from rlvr_world.sessions.imagined import Imagined
from rlvr_world.sessions.session import Session
from rlvr_world.system.files import read_object, write_whole
from rlvr_world.system.progress import track


def try_agent(out: Path, config: AgentConfig, most: Counter[str]) -> str:
    """Play the tasks that ``out`` does not hold to their end; what came of all of it. ``most``: see ``Agent``. A trace
    is written after each step, ``index.html`` at the end; a task that cannot begin is left out, until the next call.
    Raises InputError where ``out`` holds tasks that were played with other settings, Halted where the budget is spent
    or a server is lost."""
    world, real = Imagined(config.imagine) if config.imagine not in ("", "server") else None, pages(config)
    if world and world.observation_space != real.observation_space:
        raise InputError(f"imagine={config.imagine}: expected a model of web pages, got one of another world; name one")
    agent, settings, known = Agent(config, most, world.advance if world else None), out / "agent.json", to_json(config)
    if settings.exists() and read_object(settings) != known:
        raise InputError(f"{out}: holds tasks that were played with other settings; choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    write_whole(settings, json.dumps(known, indent=1))
    try:
        files = {one: out / f"task-{quote(one[0], safe='')}-{one[1]}.json" for one in real.episodes()}
        todo = [one for one, file in files.items() if not (file.exists() and read_object(file)["done"])]
        for one in track(todo, "acting", "tasks"):
            for trace in _episode(agent, Session(real, config.env.steps), *one):
                write_whole(files[one], json.dumps(trace, indent=1))
    finally:
        real.close()
        text, page = _told([read_object(file) for file in sorted(out.glob("task-*.json"))])
        write_whole(out / "index.html", page)
    return text


def _episode(agent: Agent, session: Session, task: str, seed: int) -> Iterator[dict[str, Any]]:
    """A task as far as it has come, after each step: what was seen, thought and done."""
    trace: dict[str, Any] = {"task": task, "seed": seed, "goal": "", "won": False, "done": False, "steps": []}
    try:
        seen, _ = session.reset(seed=seed, options={"task": task})
    except InputError as error:
        yield trace | {"left out": str(error)}
        return
    while not trace["done"]:
        broken, spent, number = len(agent.broken), len(agent.spent), len(trace["steps"])
        step: dict[str, Any] = {"page": seen["observation"], **agent.decide(seen, (seed, number))}
        trace["goal"] = seen["goal"]
        if step["action"]:
            seen, reward, *_, info = session.step(step["action"])
            trace["won"], step["notes"] = trace["won"] or reward > 0, info.get("lost") or info.get("notes", "")
            agent.broken += [f"page: {info['lost']}"] if "lost" in info else []
        trace["steps"].append(step | {"broken": agent.broken[broken:], "tokens": agent.spent[spent:]})
        trace["done"] = session.over or number + 1 == session.horizon
        yield trace


def _told(traces: Sequence[dict[str, Any]]) -> tuple[str, str]:
    """What came of tasks, with an interval over them; and their traces as a page, which loads nothing."""
    ended, out = ([trace for trace in traces if trace.get(key)] for key in ("done", "left out"))
    steps = [step for trace in traces for step in trace["steps"]]
    costs, broken = ([one for step in steps for one in step[key]] for key in ("tokens", "broken"))
    lines = [f"played {len(ended)} of {len(traces)}: {len(steps)} steps, {len(costs)} requests, {sum(costs)} tokens"]
    if ended:
        one = bootstrap([float(trace["won"]) for trace in ended], np.array([trace["task"] for trace in ended]))
        lines += [f"success: {one.mean:.1%}" + ("" if one.low is None else f" [{one.low:.1%}, {one.high:.1%}]")]
    lines += [f"left out: {len(out)}, the first: {out[0]['left out']}"] if out else []
    lines += [f"broken, {reason}: {count}" for reason, count in Counter(broken).most_common()]
    parts = ["<!doctype html><meta charset=utf-8><title>Web agent</title><style>pre{white-space:pre-wrap}</style>"]
    for trace in traces:
        end = trace.get("left out") or ("won" if trace["won"] else "not won" if trace["done"] else "not ended")
        head = html.escape(f"{trace['task']}, seed {trace['seed']}: {end}. {trace['goal']}")
        shown = html.escape(json.dumps(trace["steps"], indent=1, ensure_ascii=False).replace("\\n", "\n"))
        parts.append(f"<details><summary>{head}</summary><pre>{shown}</pre></details>")
    return "\n".join(lines), "\n".join(parts)
