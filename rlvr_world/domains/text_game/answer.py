"""Reading a text-game answer: from whatever a model wrote to a state difference, or the reason why not.

    text -> the part that holds the answer -> size and nesting limits -> json, else json_repair -> checks -> StateDiff

The answer is ``{"modified": [whole objects], "removed": [uuids], "score": {}}``; an empty score means "as before".
Reasoning may come before it, fences and end-of-text marks around it, Python literals inside it."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any

import json_repair  # from 0.58.7: older ones can loop for ever on broken quotes
import numpy as np

from rlvr_world.domains.text_game.diff import StateDiff
from rlvr_world.domains.text_game.rows import OBJECT_FIELDS
from rlvr_world.types import Malformed

MAX_ANSWER = 65_536
"""Longest answer that is read, in characters: after the marker, in the fence, or else the whole text."""
MAX_REPAIR = 8_192
"""Longest broken JSON that is repaired, in characters: the time that repairing takes can grow with the square."""
LOOKS = 4
"""Looks that repairing may take at a character, on average: broken quotes need two or three, loops hundreds."""
MAX_DEPTH = 64
"""Deepest nesting of brackets. Right answers have about 6."""
REPAIR_ERRORS = (RecursionError, ValueError, AssertionError, TypeError, AttributeError, LookupError, ArithmeticError)
"""What json_repair may raise on text that it cannot read: the first two by design, the others where it has a bug."""

_MARKER = re.compile(r"the final (?:answer|(?:game )?state) is:", re.IGNORECASE)
_START = re.compile(r"""\{\s*["'“”]?(?:modified|removed)["'“”]?\s*:""")
# Unclosed strings run to the end, so that these patterns never backtrack.
_QUOTED = r'"(?:[^"\\]+|\\.?)*(?:"|\Z)'
_STRING_OR_BRACKET = re.compile(_QUOTED + r"|[\[\]{}]", re.DOTALL)
_STRING_OR_WORD = re.compile(f"{_QUOTED}|" + _QUOTED.replace('"', "'") + r"|\b(?:True|False|None)\b", re.DOTALL)
_WORDS = {"True": "true", "False": "false", "None": "null"}
_DECODER = json.JSONDecoder()
_KINDS = {dict: "an object", list: "a list", str: "text", int: "an integer", bool: "true or false"}
_KINDS |= {float: "a decimal number", type(None): "null"}


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

    >>> parse_answer('The final answer is: {"modified": [], "removed": [3], "score": {}}')
    StateDiff(modified=(), removed=(3,), score={})
    """
    ends = [marker.end() for marker in _MARKER.finditer(text)]
    _, fence, body = text.rpartition("```json")
    part = text[ends[-1] :] if ends else body.partition("```")[0] if fence else text
    if len(part) > MAX_ANSWER:
        return Malformed(f"the answer is longer than {MAX_ANSWER} characters")
    starts = [match.start() for match in _START.finditer(part)]
    start = starts[0 if ends or fence else -1] if starts else part.find("{")
    if start < 0:
        return Malformed("no JSON object in the answer")
    data = read_json(part[start:])
    if isinstance(data, Malformed):
        return data
    if fault := _fault(data):
        return Malformed(fault)
    modified = tuple({key: item[key] for key in OBJECT_FIELDS} for item in data["modified"])
    return StateDiff(modified, tuple(data["removed"]), data.get("score"))


def too_deep(text: str) -> bool:
    """Whether brackets nest too deep for a recursive parser: counted without those in quotes, which is exact for JSON,
    and with them, because broken quotes would hide brackets (json_repair reads parentheses as brackets too)."""
    if sum(map(text.count, "[{(")) <= MAX_DEPTH:
        return False
    outside = "".join(token for token in _STRING_OR_BRACKET.findall(text) if token in ("[", "]", "{", "}"))
    return max(_depth(outside), _depth("".join(re.findall(r"[\[\]{}()]", text)))) > MAX_DEPTH


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
    if isinstance(value, (dict, list)):
        return all(map(_finite, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, float) or math.isfinite(value)


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), type(value).__name__)
