"""Text games in sessions: what a session's state holds, what is seen of it, and the reward that lies in it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rlvr_world.domains.scene import Starts, TextScene
from rlvr_world.domains.text_game.rows import GameState, has_changed, read_question, write_state
from rlvr_world.errors import InputError
from rlvr_world.types import Domain, Outcome, Transition


@dataclass(frozen=True)
class Moment:
    """A game at one moment of a session."""

    seen: GameState
    game: str = ""
    """Its name, which its rules and its commands go by; empty where nobody says."""
    facts: Any = None
    """TextWorld's own state, where the game is real."""


def read_moment(given: Any) -> Moment:
    """A moment, a ``GameState``, or what is observed of one. Raises InputError that names the field for others."""
    if isinstance(given, Moment):
        return given
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except (ValueError, RecursionError) as error:
            raise InputError(f"start, state: expected a game's state in JSON, got {given:.60}") from error
    game = given.get("game", "") if isinstance(given, dict) else ""
    return Moment(read_question({"state": given, "action": ""}).state, str(game))


def observed(state: Moment) -> str:
    """The state as JSON, as ``read_moment`` reads it."""
    return json.dumps({"game": state.game} | json.loads(write_state(state.seen)))


def drawn(seen: str) -> str:
    """What is observed, for a person: a line an object with its properties, below what holds it; then the score."""
    state = json.loads(seen)
    by_name = {one["name"]: one for one in state["objects"]}
    held = {name for one in state["objects"] for name in one["contains"]}
    lines: list[str] = []
    told: set[str] = set()

    def tell(name: str, deep: int) -> None:
        one = by_name.get(name, {"properties": {}, "contains": ()})
        facts = ", ".join(f"{key}: {value}" for key, value in one["properties"].items())
        facts = facts if name in by_name else "no such object"
        lines.append("    " * deep + name + (f"  ({facts})" if facts else ""))
        inner = one["contains"] if name not in told else ()
        told.add(name)
        for one in inner:
            tell(one, deep + 1)

    for name in (*(name for name in by_name if name not in held), *by_name):  # then those that hold each other
        if name not in told:
            tell(name, 0)
    won, over = state["score"]["gameWon"], state["score"]["gameOver"]
    return "\n".join([*lines, f"score {state['score']['score']}{', won' if won else ', over' if over else ''}"])


def came(before: Moment, after: Moment, commands: Sequence[str]) -> Outcome:
    """Points won are the reward, and a game that is over has ended."""
    score, now = before.seen.score["score"], after.seen.score
    told = {"commands": commands, "changed": has_changed(before.seen, after.seen), "won": bool(now["gameWon"])}
    return Outcome(after, float(now["score"] - score), bool(now["gameOver"]), told)


def imagined_games(
    domain: Domain, starts: Starts, commands: Callable[[str], Sequence[str]], options: Sequence[str] = ("state", "row")
) -> TextScene:
    """``starts`` gives moments, and takes ``options``; ``commands`` what can be typed in the game of a name, nothing
    where nobody knows."""

    def start(seed: int, options: Mapping[str, Any]) -> tuple[Moment, Mapping[str, Any]]:
        found, told = (read_moment(options["state"]), {}) if "state" in options else starts(seed, options)
        moment = replace(found, facts=None)
        return moment, {**told, "game": moment.game, "commands": commands(moment.game)}

    def ask(moment: Moment, action: str) -> Transition | Outcome:
        known = commands(moment.game)
        if not action.strip() or "\n" in action or (known and action not in known):
            wanted = f"a command such as {known[0]!r}" if known else "one line"
            return Outcome(moment, info={"action_error": f"expected {wanted}, got {action!r:.60}"})
        return Transition("session", moment.seen, action, None, world=moment.game)

    def outcome(before: Moment, row: Transition, after: GameState) -> Outcome:
        return came(before, replace(before, seen=after), commands(before.game))

    return TextScene(domain, start, ask, observed, outcome, drawn, options=options)
