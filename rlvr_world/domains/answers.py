"""What a model wrote, for every domain over text: which part of it is the answer, the value that it says, and how that
is compared and shown."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from rlvr_world.types import Malformed

MAX_ANSWER = 65_536
"""Longest answer that is read, in characters: what comes after the last marker."""
MAX_LITERAL = 16_384
"""Longest Python literal that is read, in characters."""
MAX_DEPTH = 64
"""Deepest nesting of brackets. Right answers have about 6."""
TWICE = "a key stands twice in one object"

# Unclosed strings run to the end, so that this pattern never backtracks.
_STRING_OR_BRACKET = re.compile(r""""(?:[^"\\]+|\\.?)*(?:"|\Z)|'(?:[^'\\]+|\\.?)*(?:'|\Z)|[\[\]{}]""", re.DOTALL)
ABSENT = object()
"""The value of a field that is not there."""


def after_thinking(text: str) -> str:
    """What comes after the last ``</think>``, up to a thought that does not end: thoughts are no answer.

    >>> after_thinking("<think>Is it none? No.</think> It opens.")
    ' It opens.'
    """
    return text.rpartition("</think>")[2].partition("<think>")[0]


def printable(line: str) -> str:
    """One line that any terminal or file takes, whatever characters a page holds or a model put into a name.

    >>> printable("pot\\x1b[2J")
    'pot\\\\x1b[2J'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


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


def closing(text: str, start: int) -> int:
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


def finite(value: Any) -> bool:
    if isinstance(value, (dict, list)):
        return all(map(finite, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, float) or math.isfinite(value)


def same(a: Any, b: Any) -> bool:
    """Equality of JSON values: numbers by value (``1`` is ``1.0``), but ``true`` is not ``1``."""
    kind = type(a)
    if kind is dict:
        return type(b) is dict and a.keys() == b.keys() and all(same(value, b[key]) for key, value in a.items())
    if kind is list or kind is tuple:
        return isinstance(b, (list, tuple)) and len(a) == len(b) and all(map(same, a, b))
    return a == b and (kind is bool) == (type(b) is bool)


def compared(
    before: Mapping[str, Any], after: Mapping[str, Any], said: Mapping[str, Any]
) -> Iterator[tuple[str, str, Any, Any]]:
    """Of two states as fields and what a prediction says of the second: a mark, the field, its old and its new value.

    The mark is a space where the prediction is right, ``-`` for a truth that it missed, ``+`` for something wrong.
    """
    for field in {**before, **after, **said}:
        old, true, predicted = (values.get(field, ABSENT) for values in (before, after, said))
        if same(predicted, true):
            if not same(old, true):
                yield " ", field, old, true
            continue
        if not same(old, true):
            yield "-", field, old, true
        if not same(old, predicted):
            yield "+", field, old, predicted


def shown(value: Any) -> str:
    return "absent" if value is ABSENT else repr(value)
