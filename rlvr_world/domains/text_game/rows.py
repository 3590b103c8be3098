"""Text-game data in: ByteSized32-State-Prediction rows, and the published parquet layout of RLVR-World.

Two layouts, one result:

* ``.jsonl`` / ``.jsonl.gz``: one row a line with ``current_state``, ``action_state``, ``tick_state``,
  ``current_score_state``, ``next_score_state``, ``game``, ``state_id`` (Wang et al., ACL 2024, arXiv 2406.06485).
* ``.parquet``: ``prompt``, ``reward_model.ground_truth``, ``extra_info.{data_state, data_action}``, as in
  ``bytesized32-world-model-cot`` (RLVR-World, NeurIPS 2025, arXiv 2505.13934).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlvr_world.domains.row_files import (
    OnFault,
    need,
    parse_json,
    read_records,
    take,
    telling,
)
from rlvr_world.errors import InputError
from rlvr_world.types import Transition

JSONL_KEYS = (
    "current_state",
    "action_state",
    "tick_state",
    "current_score_state",
    "next_score_state",
    "game",
    "state_id",
)
PARQUET_COLUMNS = ("prompt", "reward_model", "extra_info")
NEW_GAME = {"score": 0, "gameOver": False, "gameWon": False}
SCORE_KEYS = {"score": float, "gameOver": bool, "gameWon": bool}

_UUID_BASE = re.compile(r"UUID base is:?\s*(\d+)")
_TASK = re.compile(r"Task Description:\s*(\S[^\n]*)")


@dataclass(frozen=True)
class GameState:
    """A game at one moment, as the row gives it.

    >>> GameState(({"name": "sink (ID: 2)", "uuid": 2, "type": "Sink", "properties": {"isOn": False},
    ...             "contains": []},), {"score": 0, "gameOver": False, "gameWon": False}, next_uuid=3)
    """

    objects: tuple[dict[str, Any], ...]
    """Object dicts with ``name``, ``uuid``, ``type``, ``properties``, ``contains``; ``contains`` holds names.

    Rows share equal dicts, so copy one before changing it."""
    score: dict[str, Any]
    """``score`` (points), ``gameOver``, ``gameWon``."""
    next_uuid: int
    """The uuid that the next object to be created gets ("UUID base")."""


def read_rows(path: str | Path, reasoning_column: str = "", on_fault: OnFault = None) -> list[Transition]:
    """Read a ``.jsonl``, ``.jsonl.gz`` or ``.parquet`` file, or a folder of parquet shards of one split.

    ``reasoning_column`` names a column (a top-level key) that holds a given chain of thought with its answer;
    it goes to ``Transition.reasoning``. ``kind`` is ``changed`` or ``unchanged``, see ``has_changed``; ``world`` is
    the game, or for parquet, which has no game column, the task sentence of the prompt.

    Raises InputError, naming file, row and field, for anything that cannot be read as such rows; ``on_fault`` gets
    them instead, if given, and such rows are left out.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder of text-game rows; check the path")
    transitions: list[Transition] = []
    pool: dict[str, dict[str, Any]] = {}
    for name, where, record in read_records(path, on_fault):
        with telling(on_fault):
            parse = _parquet_transition if ".parquet:" in name else _jsonl_transition
            reasoning = _reasoning(record, reasoning_column, where)
            transitions.append(_share_objects(parse(record, name, where, reasoning), pool))
    if not transitions and on_fault is None:
        raise InputError(f"{path}: expected at least one text-game row, got an empty file; give a file with rows")
    return transitions


def has_changed(before: GameState, after: GameState) -> bool:
    """Whether a step changed anything that is scored: an object came, went, or differs, or the score differs.

    Objects are compared by ``differs``. On the published test rows this gives the official labels
    (changed by the action, by the tick, or in the score): 1,210 changed and 1,744 unchanged.
    """
    old, new = by_uuid(before), by_uuid(after)
    if old.keys() != new.keys() or before.score != after.score:
        return True
    return any(differs(old[uuid], new[uuid]) for uuid in old)


def differs(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Whether two versions of an object differ; the order of ``contains`` does not count, as in the official labels."""
    return {**a, "contains": sorted(a["contains"])} != {**b, "contains": sorted(b["contains"])}


def by_uuid(state: GameState) -> dict[int, dict[str, Any]]:
    """The objects of a state by uuid, in the state's order."""
    return {obj["uuid"]: obj for obj in state.objects}


def read_question(given: Any) -> Transition:
    """``{"state": ..., "action": ...}`` with a ``GameState`` or what ``write_state`` writes; ``game`` names its rules.

    Raises InputError that names the field for anything else.
    """
    record = {"score": NEW_GAME, **given["state"]} if isinstance(given.get("state"), Mapping) else {}
    state = given.get("state")
    if not isinstance(state, GameState):
        objects = take(record, "objects", list, "question", "state.")
        score = take(record, "score", dict, "question", "state.")
        state = _game_state(objects, score, record.get("next_uuid"), "question", "state.objects", "state.score")
    action = take(given, "action", str, "question")
    return Transition(str(given.get("id", "question")), state, action, None, world=str(given.get("game", "")))


def write_state(state: GameState) -> str:
    """A state as JSON: ``objects``, ``score`` and ``next_uuid``."""
    return json.dumps({"objects": state.objects, "score": state.score, "next_uuid": state.next_uuid})


# One row


def _jsonl_transition(record: dict[str, Any], name: str, where: str, reasoning: str) -> Transition:
    need(record, JSONL_KEYS, where, "key")
    before = _state_record(record, "current_state", "current_score_state", where)
    after = _state_record(record, "tick_state", "next_score_state", where)
    action = take(take(record, "action_state", dict, where), "lastAction", str, where, "action_state.")
    game = take(record, "game", str, where)
    return Transition(
        id=f"{name} {game}/{record['state_id']}",
        state=before,
        action=action,
        next_state=after,
        kind="changed" if has_changed(before, after) else "unchanged",
        world=game,
        reasoning=reasoning,
    )


def _state_record(record: dict[str, Any], key: str, score_key: str, where: str) -> GameState:
    state = take(record, key, dict, where)
    objects = take(state, "objects", list, where, f"{key}.")
    score = take(record, score_key, dict, where)
    next_uuid = take(state, "max_UUID", int, where, f"{key}.")
    return _game_state(objects, score, next_uuid, where, f"{key}.objects", score_key)


def _share_objects(transition: Transition, pool: dict[str, dict[str, Any]]) -> Transition:
    """Let equal objects of all rows be one dict: the full training set repeats each object some hundred times."""

    def shared(state: GameState) -> GameState:
        return replace(state, objects=tuple(pool.setdefault(json.dumps(obj), obj) for obj in state.objects))

    return replace(transition, state=shared(transition.state), next_state=shared(transition.next_state))


def _parquet_transition(record: dict[str, Any], name: str, where: str, reasoning: str) -> Transition:
    need(record, PARQUET_COLUMNS, where, "column")
    extra = take(record, "extra_info", dict, where)
    action = take(extra, "data_action", str, where, "extra_info.")
    truth = take(take(record, "reward_model", dict, where), "ground_truth", str, where, "reward_model.")
    prompt = _prompt_text(record, where)
    objects, score = _state_list(take(extra, "data_state", str, where, "extra_info."), where, "extra_info.data_state")
    new_objects, new_score = _state_list(truth, where, "reward_model.ground_truth")
    base, task = _UUID_BASE.findall(prompt), _TASK.findall(prompt)
    before = _game_state(objects, score, int(base[-1]) if base else None, where, "extra_info.data_state", "score")
    # The layout does not say which uuid is free afterwards, and nothing that is predicted needs it.
    after = _game_state(new_objects, new_score, None, where, "reward_model.ground_truth", "score")
    return Transition(
        id=name,
        state=before,
        action=action,
        next_state=after,
        kind="changed" if has_changed(before, after) else "unchanged",
        world=task[-1].strip() if task else "",
        reasoning=reasoning,
    )


def _prompt_text(record: dict[str, Any], where: str) -> str:
    messages = take(record, "prompt", list, where)
    if not messages or not isinstance(messages[-1], dict):
        raise InputError(f"{where}, field prompt: expected a list of messages, got {messages!r:.80}")
    return str(take(messages[-1], "content", str, where, "prompt[-1]."))


def _state_list(text: str, where: str, field: str) -> tuple[list[Any], dict[str, Any]]:
    """``{"game_state": [object, ..., score]}`` as objects and score."""
    items = take(parse_json(text, where, field), "game_state", list, where, f"{field}.")
    if not items or not isinstance(items[-1], dict) or "score" not in items[-1]:
        last = items[-1] if items else "an empty list"
        raise InputError(f"{where}, field {field}.game_state: expected the score as last element, got {last!r:.80}")
    return items[:-1], items[-1]


def _game_state(
    objects: list[Any], score: dict[str, Any], next_uuid: int | None, where: str, field: str, score_field: str
) -> GameState:
    for index, obj in enumerate(objects):
        _check_object(obj, where, f"{field}[{index}]")
    uuids = [obj["uuid"] for obj in objects]
    if len(set(uuids)) < len(uuids):
        twice = next(uuid for uuid in uuids if uuids.count(uuid) > 1)
        raise InputError(f"{where}, field {field}: expected each uuid once, got {twice} again; make them unique")
    for key, kind in SCORE_KEYS.items():
        take(score, key, kind, where, f"{score_field}.")
    if next_uuid is None:
        next_uuid = max(uuids, default=-1) + 1
    return GameState(tuple(objects), score, next_uuid)


def _check_object(obj: Any, where: str, field: str) -> None:
    if not isinstance(obj, dict):
        raise InputError(f"{where}, field {field}: expected an object, got {obj!r:.80}")
    for key, kind in (("name", str), ("uuid", int), ("type", str), ("properties", dict), ("contains", list)):
        take(obj, key, kind, where, f"{field}.")
    if not all(isinstance(name, str) for name in obj["contains"]):
        raise InputError(f"{where}, field {field}.contains: expected a list of names, got {obj['contains']!r:.80}")


def _reasoning(record: Mapping[str, Any], column: str, where: str) -> str:
    if not column:
        return ""
    if column not in record:
        raise InputError(
            f"{where}: expected a reasoning column {column!r}, got only {', '.join(record)}; choose one of these"
        )
    return str(take(record, column, str, where))
