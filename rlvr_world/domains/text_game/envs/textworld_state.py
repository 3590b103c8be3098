"""TextWorld facts written as ByteSized32 states: objects with a uuid, a type, properties and what they contain."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

TYPES = dict(zip("Prdcskfo", ("Agent", "Room", "Door", "Container", "Supporter", "Key", "Food", "Item"), strict=True))
"""TextWorld's types by letter, in the order in which uuids are given."""


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
