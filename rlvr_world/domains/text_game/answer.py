"""Reading a text-game answer: from whatever a model wrote to a state difference, or the reason why not.

    text -> after thinking -> after the last marker -> the last answer -> size and nesting limits -> checks -> StateDiff

The answer is ``{"modified": [whole objects], "removed": [uuids], "score": {}}``; an empty score means "as before".
"""

from __future__ import annotations

import ast
import json
import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlvr_world.domains.answers import after_thinking
from rlvr_world.domains.text_game.diff import StateDiff
from rlvr_world.domains.text_game.rows import OBJECT_FIELDS
from rlvr_world.types import Malformed

MAX_ANSWER = 65_536
"""Longest answer that is read, in characters: what comes after the last marker."""
MAX_LITERAL = 16_384
"""Longest Python literal that is read, in characters."""
MAX_DEPTH = 64
"""Deepest nesting of brackets. Right answers have about 6."""
TWICE = "a key stands twice in one object"

_MARKER = re.compile(r"the final (?:answer|(?:game )?state) is:|```", re.IGNORECASE)
_START = re.compile(r"""\{\s*["'](?:modified|removed|score)["']\s*:""")
# Unclosed strings run to the end, so that this pattern never backtracks.
_STRING_OR_BRACKET = re.compile(r""""(?:[^"\\]+|\\.?)*(?:"|\Z)|'(?:[^'\\]+|\\.?)*(?:'|\Z)|[\[\]{}]""", re.DOTALL)
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
    data: Any = {}
    end = 0
    while start := _START.search(part, end):
        end = _closing(part, start.start())
        if isinstance(value := read_literal(part[start.start() : end]), Malformed):
            return value
        data = value if "modified" in value or "removed" in value else data or value  # a score alone is no answer
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


def read_literal(text: str) -> Any:
    """The value of a whole text, JSON or a Python literal (the published prompts show states so); or Malformed."""
    if too_deep(text):
        return Malformed(f"brackets nest deeper than {MAX_DEPTH}")
    try:
        return json.loads(text, object_pairs_hook=_once)
    except json.JSONDecodeError:
        pass
    except ValueError as error:  # a key twice, or more digits than Python converts
        return Malformed(TWICE if str(error) == TWICE else "a number is too long")
    if len(text) > MAX_LITERAL:
        return Malformed(f"neither JSON nor a Python literal of at most {MAX_LITERAL} characters")
    try:
        tree = ast.parse(text, mode="eval")
        for node in ast.walk(tree):
            if isinstance(node, ast.Dict):
                _once([(ast.literal_eval(key or node), None) for key in node.keys])
        return ast.literal_eval(tree)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        return Malformed(TWICE if str(error) == TWICE else "neither JSON nor a Python literal")


def _once(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """The pairs as a dict; ValueError where a key stands twice: two statements about one thing."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(TWICE)
    return found


def _closing(text: str, start: int) -> int:
    """Behind the bracket that closes the one at ``start``; the end of the text where none does."""
    depth = 0
    for token in _STRING_OR_BRACKET.finditer(text, start):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(token.group(), 0)
        if not depth:
            return token.end()
    return len(text)


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
