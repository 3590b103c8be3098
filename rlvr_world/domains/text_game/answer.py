"""Reading a text-game answer: from whatever a model wrote to a state difference, or the reason why not; and the state
that comes of one.

    text -> after thinking -> after the last marker -> the last answer -> size and nesting limits -> checks -> StateDiff

The answer is ``{"modified": [whole objects], "removed": [uuids], "score": {}}``; an empty score means "as before".
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlvr_world.domains.answers import MAX_ANSWER, after_thinking, stated
from rlvr_world.domains.text_game.rows import OBJECT_FIELDS, GameState
from rlvr_world.types import Malformed

_MARKER = re.compile(r"the final (?:answer|(?:game )?state) is:|```", re.IGNORECASE)
_START = re.compile(r"""\{\s*["'](?:modified|removed|score)["']\s*:""")
_KINDS = {dict: "an object", list: "a list", str: "text", int: "an integer", bool: "true or false"}
_KINDS |= {float: "a decimal number", type(None): "null"}
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


@dataclass(frozen=True)
class Prediction:
    """A model's text and what it says. The published scoring reads the text in its own way, so both are kept."""

    text: str
    diff: StateDiff | Malformed


def read_prediction(text: str) -> Prediction:
    """``parse_answer`` with the text beside it. Never raises."""
    return Prediction(text, parse_answer(text))


def parse_answer(text: str) -> StateDiff | Malformed:
    """The state difference that ``text`` states at last, or Malformed with the reason. Never raises, whatever the text.

    Read is what comes after thinking; in it, what comes after the last marker ("The final answer is:", "The final state
    is:", "The final game state is:" in any case, or a code fence) that has an answer behind it; in that, the last
    answer. An answer is an object that begins with one of its keys, well-formed as JSON or as a Python literal: nothing
    is repaired, and one that is broken is not passed over for an earlier one.

    >>> parse_answer('The final answer is: {"modified": [], "removed": [3], "score": {}}')
    StateDiff(modified=(), removed=(3,), score={})
    """
    said = after_thinking(text)
    starts = [match.start() for match in _START.finditer(said)]
    if not starts:
        return Malformed("no JSON object in the answer")
    part = said[max((match.end() for match in _MARKER.finditer(said, 0, starts[-1])), default=0) :]
    if len(part) > MAX_ANSWER:
        return Malformed(f"the answer is longer than {MAX_ANSWER} characters")
    if isinstance(answers := stated(part, _START), Malformed):
        return answers
    data = next((one for one in reversed(answers) if "modified" in one or "removed" in one), answers[0])
    if fault := _fault(data):
        return Malformed(fault)
    modified = tuple({key: item[key] for key in OBJECT_FIELDS} for item in data["modified"])
    return StateDiff(modified, tuple(data["removed"]), data.get("score"))


def _fault(data: dict[str, Any]) -> str:
    """What is wrong with an answer's value, or "". Names fields, not values, so that reasons can be counted."""
    for key in ("modified", "removed"):
        if key not in data:
            return f"no key {key!r}"
        if not isinstance(data[key], list):
            return f"{key!r} must be a list, got {_kind(data[key])}"
    for item in data["modified"]:
        if fault := _object_fault(item):
            return f"'modified': {fault}"
    for uuid in data["removed"]:
        if type(uuid) is not int:
            return f"'removed': a uuid must be an integer, got {_kind(uuid)}"
    uuids = [item["uuid"] for item in data["modified"]]
    if len(set(uuids)) < len(uuids):
        return "'modified': the same uuid twice"
    if not set(uuids).isdisjoint(data["removed"]):
        return "the same uuid in 'modified' and 'removed'"
    score = data.get("score", {})
    return "" if isinstance(score, dict) else f"'score' must be an object, got {_kind(score)}"


def _object_fault(item: Any) -> str:
    if not isinstance(item, dict):
        return f"expected objects, got {_kind(item)}"
    for key, kind in OBJECT_FIELDS.items():
        if key not in item:
            return f"an object has no {key!r}"
        if type(item[key]) is not kind:
            return f"{key!r} must be {_KINDS[kind]}, got {_kind(item[key])}"
    return "" if all(isinstance(name, str) for name in item["contains"]) else "'contains' must be a list of names"


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), type(value).__name__)


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
