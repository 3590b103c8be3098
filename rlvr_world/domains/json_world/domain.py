"""A world whose states are any JSON: the state and an action in, what changes out, by path.

A path is a JSON Pointer (RFC 6901): ``/door/open``. A list of objects that each have a ``uuid``, ``id``, ``key`` or
``name`` of their own goes by it (``/items/lamp/lit``), another list of lists or objects by place; a list of plain
values is one value, and so is a text.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rlvr_world.domains import answers
from rlvr_world.domains.answers import same
from rlvr_world.domains.json_world.config import JsonWorldConfig
from rlvr_world.domains.row_files import OnFault, check_texts, need, parse_json, read_transitions, reasoning_of, take
from rlvr_world.domains.text_domain import TextDomain
from rlvr_world.errors import InputError
from rlvr_world.types import Malformed, Score, Transition

INSTRUCTIONS = """You simulate a world. Given its state and an action, say what changes, as one JSON object: "set" holds
each new value by its path, such as {"/door/open": true}, and "removed" the paths of what is gone. Items of a list go by
their id or name, a text is one value.

"""
NAMES = {"observation": "state", "obs": "state", "next_observation": "next_state", "next_obs": "next_state"}
NAMES |= {"terminated": "done", "game": "world", "task": "world"}
"""Our name of what others call otherwise."""
TOLD = {"score": 0, "reward": 0, "done": False}
"""What a row may tell beside the next state, where it becomes a part of that, and what holds before the step."""
_KEYS = ("uuid", "id", "key", "name")
_START = re.compile(r"""\{\s*["'](?:set|removed)["']\s*:""")


def read_rows(path: str | Path, reasoning_column: str = "", on_fault: OnFault = None) -> list[Transition]:
    """The rows of a file: ``state``, ``action``, ``next_state``, and where there are any ``score`` (so far), ``reward``
    (of the step), ``done`` and ``world``. A row that follows on the one before keeps its score. ``reasoning_column``
    holds a given chain of thought with its answer.

    Raises InputError, naming file, row and field, for what is no such row; ``on_fault``, if given, gets it instead.
    """
    last: tuple[Any, Any] = None, 0

    def parse(name: str, where: str, record: dict[str, Any]) -> Transition:
        nonlocal last
        row = {NAMES.get(key, key): value for key, value in record.items() if value is not None}
        need(row, ("state", "action", "next_state"), where, "key")
        states = [read_value(row[side], where, side) for side in ("state", "next_state")]
        told = {key: take(row, key, bool if key == "done" else float, where) for key in TOLD if key in row}
        start = {key: last[1] if key == "score" and same(last[0], states[0]) else TOLD[key] for key in told}
        last = states[1], told.get("score", 0)
        if told:
            held = [state if isinstance(state, dict) else {"state": state} for state in states]
            states = [start | held[0], told | held[1]]
        kind, world = "unchanged" if same(*states) else "changed", str(row.get("world", ""))
        action = written(read_value(row["action"], where, "action"))
        reasoning = reasoning_of(record, reasoning_column, where)
        return Transition(name, states[0], action, states[1], kind, world, reasoning)

    return read_transitions(path, "state, action, next_state", parse, on_fault)


def read_value(given: Any, where: str, field: str) -> Any:
    """JSON, or a text that holds some, or any other text."""
    if isinstance(given, str) and given.lstrip()[:1] in ("{", "["):
        with suppress(InputError):  # a text that begins with a bracket
            given = parse_json(given, where, field, object)
    check_texts(given, where, field)
    if answers.too_deep(json.dumps(given)):
        raise InputError(f"{where}, field {field}: expected brackets at most {answers.MAX_DEPTH} deep, got more")
    return given


def written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def children(value: Any) -> tuple[dict[str, Any], str] | None:
    """The parts of a value by name, and what they go by; None of one that has none."""
    if isinstance(value, dict):
        return value, "object"
    if not isinstance(value, list) or not any(isinstance(one, (dict, list)) for one in value):
        return None
    for key in _KEYS:
        names = [str(one[key]) for one in value if isinstance(one, dict) and isinstance(one.get(key), (str, int))]
        if len({*names}) == len(value):
            return dict(zip(names, value, strict=True)), key
    return {str(place): one for place, one in enumerate(value)}, "place"


def fields(value: Any, path: str = "") -> dict[str, Any]:
    """Every value by its path. Of a text of several lines each line is a field: how often it stands there."""
    if isinstance(value, str) and "\n" in value:
        return {f"{path}\n{line}": count for line, count in Counter(value.split("\n")).items()}
    if not (parts := children(value)) or not parts[0]:
        return {path: value}
    inner = (fields(part, _inside(path, name)) for name, part in parts[0].items())
    return {place: found for one in inner for place, found in one.items()}


def difference(before: Any, after: Any, path: str = "") -> tuple[dict[str, Any], list[str]]:
    """What is new or other, by path, and the paths of what is gone."""
    if same(before, after):
        return {}, []
    (old, by), (new, now) = (children(value) or ({}, "value") for value in (before, after))
    # In a list, what stays has to keep its order, and what is new to follow.
    ordered = by == "object" or [*new] == [n for n in old if n in new] + [n for n in new if n not in old]
    if "value" in (by, now) or by != now or not ordered:
        return {path: after}, []
    changed: dict[str, Any] = {}
    gone = [_inside(path, name) for name in old if name not in new]
    for name, value in new.items():
        place = _inside(path, name)
        inner = difference(old[name], value, place) if name in old else ({place: value}, [])
        changed |= inner[0]
        gone += inner[1]
    return changed, gone


def applied(state: Any, changed: Mapping[str, Any], gone: Sequence[str]) -> Any:
    """The state after a change; Malformed for one that names places that are not there, or one inside another."""
    left = {**{path: (value,) for path, value in changed.items()}, **dict.fromkeys(gone, ())}
    """What is still to be done, by path: a new value, or none."""
    twice = len(left) < len(changed) + len(gone)

    def grown(value: Any, path: str) -> Any:
        if left.get(path):
            return left.pop(path)[0]
        if not left or not (parts := children(value)):
            return value
        found, by = dict[str, Any](), parts[1]
        for name, part in parts[0].items():
            if left.get(place := _inside(path, name)) == ():
                del left[place]
            else:
                found[name] = grown(part, place)
        for place in [place for place in left if place.rpartition("/")[0] == path and left[place]]:
            name = place.rpartition("/")[2].replace("~1", "/").replace("~0", "~")
            if _inside(path, name) == place and (by != "place" or name == str(len(found))):
                found[name] = left.pop(place)[0]
        return found if by == "object" else [*found.values()]

    after = grown(state, "")
    return Malformed("a path to no place of the state, twice, or inside another") if left or twice else after


def _inside(path: str, name: str) -> str:
    return f"{path}/{name.replace('~', '~0').replace('/', '~1')}"


def _compared(said: Any, row: Transition) -> list[tuple[str, str, Any, Any]]:
    return [*answers.compared(fields(row.state), fields(row.next_state), fields(said))]


class JsonWorld(TextDomain):
    """Encode, decode and score transitions whose states are JSON values."""

    config: JsonWorldConfig

    def prompt(self, row: Transition) -> str:
        return f"State: {written(row.state)}\nAction: {row.action}\n"

    def taught(self, row: Transition) -> str:
        return INSTRUCTIONS + self.prompt(row)

    def answer(self, row: Transition) -> str:
        return written(dict(zip(("set", "removed"), difference(row.state, row.next_state), strict=True)))

    def read(self, text: str, row: Transition) -> Any:
        """The state that the last answer in ``text``, thoughts left out, leads to; Malformed where none reads."""
        said = answers.after_thinking(text)
        if len(said) > answers.MAX_ANSWER:
            return Malformed(f"the answer is longer than {answers.MAX_ANSWER} characters")
        if isinstance(found := answers.stated(said, _START), Malformed):
            return found
        changed, gone = found[-1].get("set", {}), found[-1].get("removed", [])
        paths = isinstance(gone, list) and all(isinstance(path, str) for path in gone)
        if not isinstance(changed, dict) or not paths:
            return Malformed("expected 'set' to be values by path, and 'removed' a list of paths")
        try:
            check_texts([changed, gone], "answer", "set")
        except InputError:
            return Malformed("a character that is no text")
        return applied(row.state, changed, gone)

    def score(self, prediction: Any, transition: Transition) -> Score:
        """``exact`` (0/1): the whole next state is right. ``changes``: the right ones among the paths that truly
        changed or that the answer changes (Jaccard); where there are none, 1."""
        if isinstance(prediction, Malformed):
            return Score(0.0, {"exact": 0.0, "changes": 0.0, "malformed": 1.0}, prediction.reason)
        marks = {path: mark for mark, path, *_ in _compared(prediction, transition)}
        exact = float(same(prediction, transition.next_state))
        changes = [*marks.values()].count(" ") / len(marks) if marks else exact
        value = exact if self.config.reward == "binary" else 0.8 * changes + 0.2 * exact
        return Score(value, {"exact": exact, "changes": changes, "malformed": 0.0})

    def advance(self, state: Any, action: str, prediction: Any) -> Any:
        return prediction

    def baselines(self, transition: Transition) -> Mapping[str, Any]:
        return {"no change": transition.state}

    def explain(self, prediction: Any, transition: Transition) -> str:
        """A line for the action, then one a path, marked as ``compared`` says."""
        lost = isinstance(prediction, Malformed)
        lines = [f"  action: {transition.action}", *([f"+ malformed: {prediction.reason}"] if lost else [])]
        for mark, path, old, new in _compared(transition.state if lost else prediction, transition):
            lines.append(f"{mark} {path}: {answers.shown(old)} -> {answers.shown(new)}")
        return "\n".join(map(answers.printable, lines if lines[1:] else [*lines, "  nothing changed"]))
