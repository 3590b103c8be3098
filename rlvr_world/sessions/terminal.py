"""Play in a terminal: type actions, see what the model expects and, where there is one, what really happens."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from rlvr_world.errors import InputError
from rlvr_world.sessions.session import Session, Step
from rlvr_world.types import World

HELP = "an action, `back` (a step), `begin SEED`, `quit`"


def play(imagined: World, real: World | None, typed: Iterable[str], seed: int = 0) -> None:
    """Play what is typed, line by line, until it ends or says ``quit``. Raises InputError for a world of pictures."""
    if imagined.render_mode != "ansi":
        raise InputError("play: a terminal shows no frames; play without --text, in the browser")
    sides = _begin(imagined, real, seed)
    past: list[dict[str, Session]] = []
    for line in map(str.strip, typed):
        if line == "quit":
            return
        try:
            if line == "back" and past:
                sides = past.pop()
                print("a step back")
            elif begin := re.fullmatch(r"begin( [0-9]+)?", line):
                sides, past = _begin(imagined, real, int(begin[1] or seed)), []
            elif line in ("", "back", "help"):
                print(HELP)
            else:
                before = {name: session.fork() for name, session in sides.items()}
                for name, session in sides.items():
                    if not session.over or all(one.over for one in sides.values()):
                        _act(name, session, line)
                past.append(before)
        except InputError as error:
            print(error)


def _begin(imagined: World, real: World | None, seed: int) -> dict[str, Session]:
    """The real world begins, and the model starts where it stands."""
    sides: dict[str, Session] = {}
    info: Mapping[str, Any] = {}
    if real is not None:
        sides["real"] = Session(real)
        _, info = sides["real"].reset(seed=seed)
    options = {"state": sides["real"].state} if real is not None else {}
    sides["imagined"] = Session(imagined)
    _, told = sides["imagined"].reset(seed=seed, options=options)
    print(imagined.render(sides["imagined"].state))
    _tell({**told, **info})
    return sides


def _act(name: str, session: Session, action: str) -> None:
    before = str(session.world.render(session.state)).splitlines()
    step = Step(*session.step(action), session.state)
    after = str(session.world.render(step.state)).splitlines()
    changed = [line for line in difflib.unified_diff(before, after, lineterm="", n=0) if line[:3] not in ("---", "+++")]
    end = ", ended" if step.terminated else ", cut off" if step.truncated else ""
    print(f"{name}: reward {step.reward:g}{end}", *(line for line in changed if line[:2] != "@@"), sep="\n  ")
    _tell(step.info if name == "real" or "commands" not in step.info else {**step.info, "commands": ()})


def _tell(info: Mapping[str, Any]) -> None:
    for key in ("goal", "action_error", "malformed"):
        if info.get(key):
            print(f"{key.replace('_', ' ')}: {info[key]}")
    if info.get("commands"):
        print(f"possible: {', '.join(info['commands'])}")
