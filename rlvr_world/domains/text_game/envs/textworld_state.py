"""TextWorld facts written as ByteSized32 states: objects with a uuid, a type, properties and what they contain.

Everything here reads ``textworld`` values (games, propositions) and imports nothing of the package.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

TYPES = {
    "P": "Agent",
    "r": "Room",
    "d": "Door",
    "c": "Container",
    "s": "Supporter",
    "k": "Key",
    "f": "Food",
    "o": "Item",
}
"""TextWorld's types by letter, in the order in which uuids are given."""


@dataclass(frozen=True)
class Entity:
    """One thing of a game. ``name`` ends in its uuid, as in ``key (ID: 4)``."""

    uuid: int
    name: str
    type: str


Cast = Mapping[str, Entity]
"""The entities of a game by TextWorld's own ids (``k_0``), in the order of their uuids."""


def cast_of(game: Any) -> dict[str, Entity]:
    """Names the entities of a TextWorld game and gives each a uuid; the agent is ``agent (ID: 0)``.

    Matching locks and keys are cut to their last word ("Henderson's style chest" is ``chest``): which key fits is
    a property of the key, and a name of one word is a name that a small model can copy.
    """
    infos = [info for info in game.infos.values() if info.type in TYPES]
    infos.sort(key=lambda info: (list(TYPES).index(info.type), info.id))
    return {info.id: Entity(uuid, f"{_plain(info)} (ID: {uuid})", TYPES[info.type]) for uuid, info in enumerate(infos)}


def _plain(info: Any) -> str:
    if info.type == "P":
        return "agent"
    return str(info.name).split()[-1] if info.type in {"c", "d", "k"} else str(info.name)


def objects_of(cast: Cast, facts: Iterable[Any], goal: str) -> list[dict[str, Any]]:
    """The objects of a state, by uuid, in ByteSized32's layout; food that was eaten is gone.

    Properties: ``state`` (open, closed, locked) of containers and doors; ``opens`` of a key; for a room the room in
    each direction and, behind ``north door`` and so on, the door in between. A last object of type ``Goal`` names
    the command that wins, so that the score follows from the state.
    """
    properties: dict[str, dict[str, str]] = {var: {} for var in cast}
    inside: dict[str, list[str]] = {var: [] for var in cast}
    gone: set[str] = set()
    ways = []
    doors: dict[tuple[str, str], str] = {}
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
    objects = [
        {
            "name": entity.name,
            "uuid": entity.uuid,
            "type": entity.type,
            "properties": dict(sorted(properties[var].items())),
            "contains": [cast[held].name for held in sorted(inside[var], key=lambda held: cast[held].uuid)],
        }
        for var, entity in cast.items()
        if var not in gone
    ]
    uuid = len(cast)
    name = f"goal (ID: {uuid})"
    return [*objects, {"name": name, "uuid": uuid, "type": "Goal", "properties": {"command": goal}, "contains": []}]


def state_of(
    objects: list[dict[str, Any]], goal: str, last_action: str, max_uuid: int, observation: str | None
) -> dict[str, Any]:
    """A whole ByteSized32 state around its objects; ``observation=None`` shows the view of the room."""
    look, inventory = _look(objects), _inventory(objects)
    if last_action == "inventory":
        observation = inventory
    elif last_action == "look" or observation is None:
        observation = look
    return {
        "observation": observation,
        "look": look,
        "inventory": inventory,
        "taskDesc": f"Your task is to {goal}.",
        "lastAction": last_action,
        "objects": objects,
        "max_UUID": max_uuid,
    }


def _look(objects: list[dict[str, Any]]) -> str:
    by_name = {o["name"]: o for o in objects}
    agent = next(o["name"] for o in objects if o["type"] == "Agent")
    room = next(o for o in objects if agent in o["contains"])
    lines = [f"You are in the {room['name']}."]
    lines += [f"To the {way}: {what}." for way, what in room["properties"].items()]
    lines += [_line(by_name[name]) for name in room["contains"] if name != agent]
    return "\n".join(lines)


def _line(thing: dict[str, Any]) -> str:
    state = thing["properties"].get("state", "")
    line = f"You see: {thing['name']}" + (f", {state}" if state else "")
    if thing["contains"] and state in {"", "open"}:
        line += f", with {', '.join(thing['contains'])}"
    return line + "."


def _inventory(objects: list[dict[str, Any]]) -> str:
    held = next(o["contains"] for o in objects if o["type"] == "Agent")
    return f"You are carrying: {', '.join(held)}." if held else "You are carrying nothing."
