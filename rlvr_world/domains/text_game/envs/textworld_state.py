"""TextWorld facts written as ByteSized32 states, objects with a uuid, a type, properties and what they contain; and
such objects, of a state that was imagined, back as facts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlvr_world.domains.text_game.rows import GameState

if TYPE_CHECKING:
    from rlvr_world.domains.text_game.envs.textworld import Game

TYPES = dict(zip("Prdcskfo", ("Agent", "Room", "Door", "Container", "Supporter", "Key", "Food", "Item"), strict=True))
"""TextWorld's types by letter, in the order in which uuids are given."""
_TOLD = {"in", "on", "at", "open", "closed", "locked", "eaten"}
"""Facts that the objects of a state tell; the others of a game's first state hold throughout, but for doors."""
_HOLDS = {"Room": "at", "Supporter": "on", "Container": "in"}


@dataclass(frozen=True)
class Entity:
    """One thing of a game. ``name`` ends in its uuid, as in ``key (ID: 4)``."""

    uuid: int
    name: str
    type: str


def cast_of(game: Any) -> dict[str, Entity]:
    """The entities of a TextWorld game by its own ids (``k_0``), in the order of the uuids that they get.

    Matching locks and keys are cut to their last word ("Henderson's style chest" is ``chest``): which key fits is
    a property of the key, and a name of one word is a name that a small model can copy.
    """

    def plain(info: Any) -> str:
        name = "agent" if info.type == "P" else str(info.name)
        return name.split()[-1] if info.type in {"c", "d", "k"} else name

    infos = [info for info in game.infos.values() if info.type in TYPES]
    infos.sort(key=lambda info: (list(TYPES).index(info.type), info.id))
    return {info.id: Entity(uuid, f"{plain(info)} (ID: {uuid})", TYPES[info.type]) for uuid, info in enumerate(infos)}


def objects_of(cast: Mapping[str, Entity], facts: Iterable[Any], goal: str) -> list[dict[str, Any]]:
    """The objects of a state, by uuid, in ByteSized32's layout; food that was eaten is gone.

    Properties: ``state`` (open, closed, locked) of containers and doors; ``opens`` of a key; for a room the room in
    each direction and, behind ``north door`` and so on, the door in between. A last object of type ``Goal`` names
    the command that wins, so that the score follows from the state.
    """
    properties: dict[str, dict[str, str]] = {var: {} for var in cast}
    inside: dict[str, list[str]] = {var: [] for var in cast}
    gone, ways, doors = set(), [], {}
    for fact in facts:
        first, *rest = fact.names
        if fact.name in {"in", "on", "at"}:
            inside["P" if rest[0] == "I" else rest[0]].append(first)
        elif fact.name in {"open", "closed", "locked"}:
            properties[first]["state"] = fact.name
        elif fact.name == "match":
            properties[first]["opens"] = cast[rest[0]].name
        elif fact.name.endswith("_of"):
            ways.append((rest[0], fact.name.removesuffix("_of"), first))
        elif fact.name == "link":
            doors[first, rest[1]] = rest[0]
        elif fact.name == "eaten":
            gone.add(first)
    for room, direction, beyond in ways:
        properties[room][direction] = cast[beyond].name
        if (room, beyond) in doors:
            properties[room][f"{direction} door"] = cast[doors[room, beyond]].name
    objects: list[dict[str, Any]] = []
    for var, entity in cast.items():
        if var not in gone:
            held = [thing.name for name, thing in cast.items() if name in inside[var]]
            told = {"properties": dict(sorted(properties[var].items())), "contains": held}
            objects.append({"name": entity.name, "uuid": entity.uuid, "type": entity.type, **told})
    names = {"name": f"goal (ID: {len(cast)})", "uuid": len(cast), "type": "Goal"}
    return [*objects, {**names, "properties": {"command": goal}, "contains": []}]


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
