"""Reading a text-game answer: from whatever a model wrote to a state difference, or the reason why not.

    text -> the part that holds the answer -> size and nesting limits -> json, else json_repair -> checks -> StateDiff

The answer is ``{"modified": [whole objects], "removed": [uuids], "score": {}}``; an empty score means "as before".
Reasoning may come before it, fences and end-of-text marks around it, Python literals inside it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import json_repair  # from 0.58.7: older ones can loop for ever on broken quotes
import numpy as np

from rlvr_world.domains.text_game.rows import GameState
from rlvr_world.types import Malformed

MAX_ANSWER = 65_536
"""Longest answer that is read, in characters: after the marker, in the fence, or else the whole text."""
MAX_REPAIR = 8_192
"""Longest broken JSON that is repaired, in characters: the time that repairing takes can grow with the square."""
LOOKS = 4
"""How often repairing may look at a character, on average (beyond 10,000 looks): broken quotes or a missing end need
two or three, what a model wrote in a loop can need hundreds."""
MAX_DEPTH = 64
"""Deepest nesting of brackets. Right answers have about 6."""
REPAIR_ERRORS = (RecursionError, ValueError, AssertionError, TypeError, AttributeError, LookupError, ArithmeticError)
"""What json_repair may raise on text that it cannot read: the first two by design, the others where it has a bug."""

OBJECT_FIELDS = {"name": str, "uuid": int, "type": str, "properties": dict, "contains": list}

_MARKER = re.compile(r"the final (?:answer|(?:game )?state) is:", re.IGNORECASE)
_START = re.compile(r"""\{\s*["'“”]?(?:modified|removed)["'“”]?\s*:""")
# Unclosed strings run to the end, so that these patterns never backtrack.
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]+|\\.?)*(?:"|\Z)|[\[\]{}]', re.DOTALL)
_STRING_OR_WORD = re.compile(
    r""""(?:[^"\\]+|\\.?)*(?:"|\Z)|'(?:[^'\\]+|\\.?)*(?:'|\Z)|\b(?:True|False|None)\b""", re.DOTALL
)
_BRACKET = re.compile(r"[\[\]{}()]")
_BRACKETS = frozenset("[]{}")
_WORDS = {"True": "true", "False": "false", "None": "null"}
_DECODER = json.JSONDecoder()
_KINDS = {
    dict: "an object",
    list: "a list",
    str: "text",
    int: "an integer",
    bool: "true or false",
    float: "a decimal number",
    type(None): "null",
}


@dataclass(frozen=True)
class StateDiff:
    """What a step changes, as an answer states it.

    >>> StateDiff(modified=({"name": "sink (ID: 2)", "uuid": 2, "type": "Sink", "properties": {"isOn": True},
    ...                      "contains": []},), removed=(7,), score={})
    """

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
    """The state difference that ``text`` ends in, or Malformed with the reason. Never raises, whatever the text.

    The answer follows the last of the markers ("The final answer is:", "The final state is:", "The final game state
    is:", in any case); else it is in the last json fence; else it is the last object in the text that has the keys.
    Limits: ``MAX_ANSWER``, ``MAX_REPAIR``, ``MAX_DEPTH``.

    >>> parse_answer('The final answer is: {"modified": [], "removed": [3], "score": {}}')
    StateDiff(modified=(), removed=(3,), score={})
    """
    part, last = _answer_part(text)
    if len(part) > MAX_ANSWER:
        return Malformed(f"the answer is longer than {MAX_ANSWER} characters")
    starts = [match.start() for match in _START.finditer(part)]
    start = (starts[-1] if last else starts[0]) if starts else part.find("{")
    if start < 0:
        return Malformed("no JSON object in the answer")
    data = read_json(part[start:])
    if isinstance(data, Malformed):
        return data
    fault = _fault(data)
    if fault:
        return Malformed(fault)
    modified = tuple({key: item[key] for key in OBJECT_FIELDS} for item in data["modified"])
    return StateDiff(modified, tuple(data["removed"]), data.get("score"))


def apply_diff(state: GameState, diff: StateDiff) -> GameState:
    """The state after the difference: objects keep their order, created ones come last.

    A missing score keeps the score, and removing an object that is not there does nothing.
    """
    new = {obj["uuid"]: obj for obj in diff.modified}
    objects = [new.pop(obj["uuid"], obj) for obj in state.objects if obj["uuid"] not in diff.removed]
    objects += new.values()
    next_uuid = max([state.next_uuid, *(obj["uuid"] + 1 for obj in objects)])
    return GameState(tuple(objects), diff.score or state.score, next_uuid)


def too_deep(text: str) -> bool:
    """Whether brackets nest deeper than ``MAX_DEPTH``, counted with and without those inside quotes.

    Looked at before a recursive parser sees the text. Without those in quotes the count is exact for JSON; with them
    it also holds where broken quotes would hide brackets (json_repair reads parentheses as brackets too).
    """
    if sum(map(text.count, "[{(")) <= MAX_DEPTH:
        return False
    outside = "".join(token for token in _STRING_OR_BRACKET.findall(text) if token in _BRACKETS)
    return max(_depth(outside), _depth("".join(_BRACKET.findall(text)))) > MAX_DEPTH


def read_json(text: str) -> Any:
    """The JSON value at the start of ``text``, whatever follows it, repaired where it is broken; or Malformed."""
    if too_deep(text):
        return Malformed(f"brackets nest deeper than {MAX_DEPTH}")
    try:
        return _DECODER.raw_decode(text)[0]
    except json.JSONDecodeError:
        pass
    except ValueError:  # more digits than Python converts
        return Malformed("a number is too long")
    if len(text) > MAX_REPAIR:
        return Malformed(f"broken JSON, and longer than the {MAX_REPAIR} characters that are repaired")
    text = _STRING_OR_WORD.sub(lambda match: _WORDS.get(match.group(), match.group()), text)  # Python's literals
    try:
        data = repair(text)
    except REPAIR_ERRORS:
        return Malformed("broken JSON that cannot be repaired")
    if isinstance(data, list):  # one object and things after it
        return next((item for item in data if isinstance(item, dict)), data)
    return data


class _Metered(str):
    """A text that can be looked at so often: some broken quotes make json_repair read on to the end at every letter."""

    left = 10_000

    def __getitem__(self, place: Any) -> str:
        self.left -= 1
        if self.left < 0:
            raise ValueError("repairing takes too long")
        return super().__getitem__(place)


def repair(text: str) -> Any:
    """What json_repair makes of broken JSON. Raises one of ``REPAIR_ERRORS`` where it cannot, or takes too long."""
    metered = _Metered(text)
    metered.left += LOOKS * len(text)
    return json_repair.repair_json(metered, return_objects=True, skip_json_loads=True)


def _answer_part(text: str) -> tuple[str, bool]:
    """The text that holds the answer, and whether its last object is meant rather than its first."""
    ends = [marker.end() for marker in _MARKER.finditer(text)]
    if ends:
        return text[ends[-1] :], False
    fence = text.rfind("```json")
    if fence >= 0:
        body = text[fence + len("```json") :]
        return body.split("```", 1)[0], False
    return text, True


def _depth(brackets: str) -> int:
    """How deep brackets nest; one that closes nothing does not count."""
    opens = np.isin(np.frombuffer(brackets.encode(), np.uint8), np.frombuffer(b"[{(", np.uint8))
    depth = np.cumsum(np.where(opens, 1, -1))
    return int((depth - np.minimum(np.minimum.accumulate(depth), 0)).max(initial=0))


def _fault(data: Any) -> str:
    """What is wrong with an answer's value, or "". Names fields, not values, so that reasons can be counted."""
    if not isinstance(data, dict):
        return f"the answer must be an object, got {_kind(data)}"
    for key in ("modified", "removed"):
        if key not in data:
            return f"no key {key!r}"
        if not isinstance(data[key], list):
            return f"{key!r} must be a list, got {_kind(data[key])}"
    for item in data["modified"]:
        fault = _object_fault(item)
        if fault:
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
    if not isinstance(score, dict):
        return f"'score' must be an object, got {_kind(score)}"
    return "" if _finite(score) else "'score': a number is not finite"


def _object_fault(item: Any) -> str:
    if not isinstance(item, dict):
        return f"expected objects, got {_kind(item)}"
    for key, kind in OBJECT_FIELDS.items():
        if key not in item:
            return f"an object has no {key!r}"
        if type(item[key]) is not kind:
            return f"{key!r} must be {_KINDS[kind]}, got {_kind(item[key])}"
    if not all(isinstance(name, str) for name in item["contains"]):
        return "'contains' must be a list of names"
    return "" if _finite(item["properties"]) else "'properties': a number is not finite"


def _finite(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, Mapping):
        return all(_finite(v) for v in value.values())
    return all(_finite(v) for v in value) if isinstance(value, list) else True


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), type(value).__name__)
