"""What can be done in a state that was imagined: its objects written back as TextWorld's facts, under its rules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rlvr_world.domains.text_game.envs.textworld import Game
from rlvr_world.domains.text_game.rows import GameState

_TOLD = {"in", "on", "at", "open", "closed", "locked", "eaten"}
"""Facts that the objects of a state tell; the others of a game's first state hold throughout, but for doors."""
_HOLDS = {"Room": "at", "Supporter": "on", "Container": "in"}


def afforded(game: Game, seen: GameState) -> list[str]:
    """The commands that would change this state, sorted: the model's word is taken for the state, TextWorld's rules for
    what it admits. Nothing in a state that no game can be in, and nothing of objects that the game does not have."""
    from textworld.logic import State

    try:
        return sorted(game.moves(State(game.game.kb.logic, list(_facts(game, seen)))))
    except (KeyError, ValueError, AssertionError):  # such as an agent in two rooms
        return []


def _facts(game: Game, seen: GameState) -> Iterator[Any]:
    from textworld.logic import Proposition, Variable

    first = list(game.game.world.state.facts)
    variables = {one.name: one for fact in first for one in fact.arguments}
    by_name = {entity.name: var for var, entity in game.cast.items()}
    objects = [(by_name[one["name"]], one) for one in seen.objects if one["name"] in by_name]
    there, states = {var for var, _ in objects}, {var: one["properties"].get("state") for var, one in objects}
    doors = {(fact.names[0], fact.names[2]): fact.names[1] for fact in first if fact.name == "link"}
    for fact in first:
        names = fact.names
        holds = names not in doors if fact.name == "free" else fact.name not in _TOLD
        if holds and all(name in there or name in ("P", "I") for name in names):
            yield fact
    for (room, beyond), door in doors.items():
        if states.get(door) == "open":
            yield Proposition("free", [variables[room], variables[beyond]])
    hands = variables.get("I", Variable("I", "I"))
    for var, one in objects:
        if states[var] in ("open", "closed", "locked"):
            yield Proposition(states[var], [variables[var]])
        for inner in one["contains"]:
            if inner in by_name:
                agent = one["type"] == "Agent"
                where = [variables[by_name[inner]], hands if agent else variables[var]]
                yield Proposition("in" if agent else _HOLDS.get(one["type"], "in"), where)
