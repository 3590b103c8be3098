"""Tasks of recorded episodes whose real success is known already, as of real robots."""

from __future__ import annotations

import json
from collections.abc import Collection
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from rlvr_world.errors import InputError
from rlvr_world.recipes.tasks import Trial
from rlvr_world.sessions.imagined import Imagined


def read_known(file: Path, policies: Collection[str], most: int, world: Imagined) -> dict[str, list[Trial]]:
    """By task a trial for each instruction, from the first ``most`` held-out episodes that its globs mean, with the
    real success of ``policies``; docs/policies.md has the layout. Raises InputError for what is missing or wrong."""
    try:
        tasks = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        tasks = str(error)
    _check(isinstance(tasks, dict) and tasks and policies, file, "tasks in JSON, and a --policy NAME=SPEC", tasks)
    frames, kinds = world.model.recipe.first_frames(world.model.config), {"steps": int, "starts": dict, "real": dict}
    found: dict[str, list[Trial]] = {name: [] for name in tasks}
    wanted = "policies and a judge that need no simulator to learn from"
    none: Any = lambda _, wanted=wanted: _check(False, file, wanted, "clone:... or the judge learned")  # noqa: E731
    for name, task in tasks.items():
        where, whole = f"{file}, task {name}", isinstance(task, dict) and {k: type(v) for k, v in task.items()} == kinds
        wanted = "the keys steps, at least 1, starts, globs by instruction, and real, success by policy"
        _check(whole and task["steps"] > 0 and task["starts"], where, wanted, task)
        rates = {one: _rate(f"{where}, real, {one}", value) for one, value in task["real"].items()}
        _check(rates.keys() >= {*policies}, f"{where}, real", f"success of {', '.join(policies)}", task["real"])
        for told, globs in task["starts"].items():
            some = [str(glob) for glob in (globs if isinstance(globs, list) else [globs])]
            rows = [row for one, row in frames.items() if any(fnmatchcase(one, glob) for glob in some)][:most]
            wanted = f"{most} of {len(frames)} test episodes, such as {next(iter(frames))!r} (or a lower --starts)"
            _check(len(rows) == most, f"{where}, starts of {told!r}, {globs!r:.80}", wanted, len(rows))
            start = lambda number, rows=rows: {"state": rows[number]}  # noqa: E731
            known = {one: rates[one] for one in policies}
            found[name].append(Trial(world, start, task["steps"], told, none, none, {}, known=known))
    return found


def _check(sound: Any, where: Any, wanted: str, got: Any) -> None:
    if not sound:
        raise InputError(f"--real {where}: expected {wanted}, got {got!r:.200}; mend the file or the command")


def _rate(where: str, value: Any) -> tuple[float, int]:
    won, of = value if isinstance(value, list) and len(value) == 2 else (value, 1)
    sound = type(won) in ((int, float) if won is value else (int,)) and type(of) is int and 0 <= won <= of > 0
    _check(sound, where, "a rate from 0 to 1, or [successes, episodes]", value)
    return won / of, of * (won is not value)
