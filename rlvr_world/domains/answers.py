"""What a model wrote, for every domain over text: which part of it is the answer, the value that it says, and how that
is compared and shown."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import accumulate
from typing import Any

from rlvr_world.types import Malformed

MAX_ANSWER = 65_536
"""Longest answer that is read, in characters: what comes after the last marker."""
MAX_LITERAL = 16_384
"""Longest Python literal that is read, in characters."""
MAX_DEPTH = 64
"""Deepest nesting of brackets. Right answers have about 6."""
LONGEST_NUMBER = 10_000
"""Bits of the longest whole number: Python writes no number of more than 4,300 digits."""
TWICE = "a key stands twice in one object"

# Unclosed strings run to the end, so that this pattern never backtracks.
_STRING_OR_BRACKET = re.compile(r""""(?:[^"\\]+|\\.?)*(?:"|\Z)|'(?:[^'\\]+|\\.?)*(?:'|\Z)|[\[\]{}]""", re.DOTALL)
_MARKER = re.compile(r"""\\.|(?<!\w)["']|["'](?!\w)|\n|</?think>""")
ABSENT = object()
"""The value of a field that is not there."""


def after_thinking(text: str) -> str:
    """What comes after the last ``</think>``, up to a thought that does not end: thoughts are no answer. Words in
    quotes that close in their line are no markers: they are a page's.

    >>> after_thinking("<think>Is it none? No.</think> It says '<think>'.")
    " It says '<think>'."
    """
    markers: list[re.Match[str]] = []
    quote, outside = "", 0
    for found in _MARKER.finditer(text) if "think>" in text else ():
        if (token := found.group()).endswith("think>"):
            markers.append(found)
        elif token == "\n":
            quote = ""
        elif token == quote and not text[found.end() : found.end() + 1].isalnum():
            quote = ""
            del markers[outside:]
        elif token in "'\"" and not quote and not text[max(0, found.start() - 1) : found.start()].isalnum():
            quote, outside = token, len(markers)
    start = max((found.end() for found in markers if found.group() == "</think>"), default=0)
    return text[start : min((m.start() for m in markers if m.start() >= start), default=len(text))]


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


def stated(text: str, start: re.Pattern[str]) -> list[Any] | Malformed:
    """The values of all answers in ``text``, in order: of what begins as ``start`` says, but for what lies inside one
    before. Malformed with the reason where one does not read: it is not passed over for others."""
    found, end = [], 0
    while begun := start.search(text, end):
        end = closing(text, begun.start())
        if isinstance(value := read_literal(text[begun.start() : end]), Malformed):
            return value
        found.append(value)
    return found or Malformed("no JSON object in the answer")


def read_literal(text: str) -> Any:
    """The JSON value of a whole text, JSON or a Python literal (the published prompts show states so); or Malformed."""
    if too_deep(text):
        return Malformed(f"brackets nest deeper than {MAX_DEPTH}")
    try:
        value = _value(text)
    except ValueError as error:  # a key twice, or more digits than Python converts
        return Malformed(TWICE if str(error) == TWICE else "a number is too long")
    if value is ABSENT:
        within = "" if len(text) <= MAX_LITERAL else f" of at most {MAX_LITERAL} characters"
        return Malformed(f"neither JSON nor a Python literal{within}")
    fault = _fault(value)
    return Malformed(fault) if fault else value


def _value(text: str) -> Any:
    """What ``text`` says; ABSENT where it is neither, or too long to be tried as a literal."""
    with suppress(json.JSONDecodeError):
        return json.loads(text, object_pairs_hook=_once)
    try:
        tree = ast.parse(text if len(text) <= MAX_LITERAL else "", mode="eval")
        value = ast.literal_eval(tree)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return ABSENT
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            _once([(ast.literal_eval(key or node), None) for key in node.keys])
    return value


def _fault(value: Any) -> str:
    """What keeps a value from being JSON, and text from being tokens; empty for nothing."""
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        value = [*value, *value.values()]
    if isinstance(value, list):
        return next(filter(None, map(_fault, value)), "")
    if isinstance(value, str):
        return "half a character" if any("\ud800" <= letter <= "\udfff" for letter in value) else ""
    if isinstance(value, float):
        return "" if math.isfinite(value) else "a number is not finite"
    if isinstance(value, int):
        return "a number is too long" if value.bit_length() > LONGEST_NUMBER else ""
    return "" if value is None else "a value that is no JSON"


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
    steps = (1 if bracket in "[{(" else -1 for bracket in brackets)
    return max(accumulate(steps, lambda depth, step: max(0, depth + step), initial=0))


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
