"""What a step of a text game changes, and the state that comes of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlvr_world.domains.text_game.rows import GameState

Objects = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class StateDiff:
    """What a step changes, as an answer states it."""

    modified: tuple[dict[str, Any], ...]
    """Whole objects, changed or created, with ``name``, ``uuid``, ``type``, ``properties``, ``contains``."""
    removed: tuple[int, ...]
    """uuids of the objects that are gone."""
    score: dict[str, Any] | None
    """The new score; ``{}`` for "as before"; None where the answer has no such key, which counts as wrong."""


def apply_diff(state: GameState, diff: StateDiff) -> GameState:
    """The state after the difference. A missing score keeps the score; removing what is not there does nothing.

    Objects that stand as a tree, as ByteSized32 lists them, do so afterwards; others keep their order, new ones last.
    """
    new = {obj["uuid"]: obj for obj in diff.modified}
    objects = [new.pop(obj["uuid"], obj) for obj in state.objects if obj["uuid"] not in diff.removed]
    objects += new.values()
    parts = _parts(state.objects)
    if _as_tree(state.objects, parts) == [*state.objects]:
        objects = _as_tree(objects, parts)
    next_uuid = max([state.next_uuid, *(obj["uuid"] + 1 for obj in objects)])
    return GameState(tuple(objects), diff.score or state.score, next_uuid)


def _as_tree(objects: Objects, parts: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """The objects with their parts, each followed by what it contains."""
    waiting = defaultdict(list)  # a name can stand for several objects: two pots hold "water"
    for obj in reversed(objects):
        waiting[obj["name"]].append(obj)
    held = {name for obj in objects for name in obj["contains"]}
    names = sorted((obj["name"] for obj in reversed(objects)), key=lambda name: name not in held)  # taken from its end
    ordered: list[dict[str, Any]] = []
    while names:
        name = names.pop()
        found = [waiting[n].pop() for n in (name, *parts.get(name, ())) if waiting[n]]
        ordered += found
        names += reversed([inner for obj in found for inner in obj["contains"]])
    return ordered


def _parts(objects: Objects) -> Mapping[str, Sequence[str]]:
    """By name, the parts of an object, such as the sides of a scale: nothing contains them, and yet they stand behind
    it where the tree of the first object goes on."""
    held = {name for obj in objects for name in obj["contains"]}
    inside = {obj["name"] for obj in objects[:1]}
    last = 0
    for place, obj in enumerate(objects):
        if obj["name"] in inside:
            inside.update(obj["contains"])
            last = place
    parts = defaultdict(list)
    whole = ""
    for obj in objects[:last]:
        if obj["name"] in held or not whole:
            whole = obj["name"]
        else:
            parts[whole].append(obj["name"])
    return parts
