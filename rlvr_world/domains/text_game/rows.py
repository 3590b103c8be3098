"""Text-game data in: ByteSized32-State-Prediction rows, and the published parquet layout of RLVR-World.

* ``.jsonl`` / ``.jsonl.gz``: one row a line with ``current_state``, ``action_state``, ``tick_state``,
  ``current_score_state``, ``next_score_state``, ``game``, ``state_id`` (Wang et al., ACL 2024, arXiv 2406.06485); or
  with ``state``, ``action``, ``next_state``, as sessions are saved.
* ``.parquet``: ``prompt``, ``reward_model.ground_truth``, ``extra_info.{data_state, data_action}``, as in
  ``bytesized32-world-model-cot`` (RLVR-World, NeurIPS 2025, arXiv 2505.13934). In its ``generated_cot.parquet`` the
  ground truth is no state but a teacher's reasoning and answer: rows for SFT, whose next state is not known.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlvr_world.domains import row_files
from rlvr_world.domains.row_files import OnFault, need, take, take_inner
from rlvr_world.errors import InputError
from rlvr_world.types import Transition

OBJECT_FIELDS = {"name": str, "uuid": int, "type": str, "properties": dict, "contains": list}
SCORE_FIELDS = {"score": float, "gameOver": bool, "gameWon": bool}
NEW_GAME = {"score": 0, "gameOver": False, "gameWon": False}

_UUID_BASE = re.compile(r"UUID base is:?\s*(\d+)")
_TASK = re.compile(r"Task Description:\s*(\S[^\n]*)")


@dataclass(frozen=True)
class GameState:
    """A game at one moment, as the row gives it.

    >>> GameState(({"name": "sink (ID: 2)", "uuid": 2, "type": "Sink", "properties": {"isOn": False},
    ...             "contains": []},), {"score": 0, "gameOver": False, "gameWon": False}, next_uuid=3)
    """

    objects: tuple[dict[str, Any], ...]
    """Dicts of ``OBJECT_FIELDS``; ``contains`` holds names. Rows share equal ones: copy one before changing it."""
    score: dict[str, Any]
    """``score`` (points), ``gameOver``, ``gameWon``."""
    next_uuid: int
    """The uuid that the next object to be created gets ("UUID base")."""


def read_rows(path: str | Path, reasoning_column: str = "", on_fault: OnFault = None) -> list[Transition]:
    """Read a ``.jsonl``, ``.jsonl.gz`` or ``.parquet`` file, or a folder of parquet shards of one split.

    ``reasoning_column`` holds a given chain of thought with its answer. ``kind`` is ``changed`` or ``unchanged``, see
    ``has_changed``; ``world`` is the game, or where a row does not say it (as published) the prompt's task sentence.
    Raises InputError, naming file, row and field, for what is no such row; ``on_fault``, if given, gets it instead.
    """
    pool: dict[str, dict[str, Any]] = {}

    def shared(state: GameState) -> GameState:
        """Equal objects of all rows are one dict: the full training set repeats each some hundred times."""
        return replace(state, objects=tuple(pool.setdefault(json.dumps(obj), obj) for obj in state.objects))

    def parse(name: str, where: str, record: dict[str, Any]) -> Transition:
        read = _published_step if "reward_model" in record or ".parquet:" in name else _jsonl_step
        identity, before, action, after, world = read(record, name, where)
        prompt = row_files.last_message(record, where) if "prompt" in record else ""
        if isinstance(after, str):
            if not reasoning_column:
                wanted = "data.sft_train alone can be such rows, with data.reasoning_column and sft.reasoning=true"
                raise InputError(f"{where}, field reward_model.ground_truth: expected a game state, got text; {wanted}")
            return Transition(identity, shared(before), action, None, "", world, after, prompt)
        reasoning = row_files.reasoning_of(record, reasoning_column, where)
        kind = "changed" if has_changed(before, after) else "unchanged"
        return Transition(identity, shared(before), action, shared(after), kind, world, reasoning, prompt)

    return row_files.read_transitions(path, "text-game", parse, on_fault)


def has_changed(before: GameState, after: GameState) -> bool:
    """Whether an object came, went, or differs, or the score does. On the published test rows these are the official
    labels (changed by the action, by the tick, or in the score): 1,210 changed and 1,744 unchanged."""
    old, new = by_uuid(before), by_uuid(after)
    same = old.keys() == new.keys() and before.score == after.score
    return not same or any(differs(old[uuid], new[uuid]) for uuid in old)


def differs(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Whether two versions of an object differ; the order of ``contains`` does not count, as in the official labels."""
    return {**a, "contains": sorted(a["contains"])} != {**b, "contains": sorted(b["contains"])}


def is_gold(transition: Transition) -> bool:
    """Whether an object that is there before and after differs in ``properties`` or in what it contains: the published
    training filter. It is narrower than ``changed``: a new score alone is not gold."""
    old, new = by_uuid(transition.state), by_uuid(transition.next_state)
    return any(
        old[uuid]["properties"] != new[uuid]["properties"]
        or sorted(old[uuid]["contains"]) != sorted(new[uuid]["contains"])
        for uuid in old.keys() & new.keys()
    )


def question(transition: Transition) -> bytes:
    """A fingerprint of what the model is asked: game, objects, score, next uuid and action (16 bytes)."""
    state: GameState = transition.state
    asked = [transition.world, state.objects, state.score, state.next_uuid, transition.action]
    return hashlib.blake2b(json.dumps(asked).encode(), digest_size=16).digest()


def by_uuid(state: GameState) -> dict[int, dict[str, Any]]:
    """The objects of a state by uuid, in the state's order."""
    return {obj["uuid"]: obj for obj in state.objects}


def read_question(given: Any) -> Transition:
    """``{"state": ..., "action": ...}`` with a ``GameState`` or what ``write_state`` writes, whose score and next uuid
    may be missing; ``game`` names its rules. Raises InputError that names the field for anything else."""
    return row_files.asked(given, _asked_state)


def _asked_state(given: Mapping[str, Any]) -> GameState:
    if isinstance(given.get("state"), GameState):
        return given["state"]
    return _told_state(take(given, "state", dict, "question"), "question", "state.")


def _told_state(given: Mapping[str, Any], where: str, prefix: str) -> GameState:
    """What ``write_state`` writes; the score and the next uuid may be missing."""
    state = {"score": NEW_GAME, "next_uuid": None, **given}
    objects, score = (take(state, key, kind, where, prefix) for key, kind in (("objects", list), ("score", dict)))
    following = None if state["next_uuid"] is None else take(state, "next_uuid", int, where, prefix)
    return _game_state(objects, score, following, where, f"{prefix}objects", f"{prefix}score")


def write_state(state: GameState) -> str:
    """A state as JSON: ``objects``, ``score`` and ``next_uuid``."""
    return json.dumps({"objects": state.objects, "score": state.score, "next_uuid": state.next_uuid})


def _jsonl_step(record: dict[str, Any], name: str, where: str) -> tuple[str, GameState, str, GameState, str]:
    if "next_state" in record:  # as sessions are saved, and questions asked
        need(record, ("state", "action"), where, "key")
        before, after = (_told_state(take(record, k, dict, where), where, f"{k}.") for k in ("state", "next_state"))
        game = record.get("game") or record["state"].get("game", "")
        return name, before, take(record, "action", str, where), after, str(game)
    states = ("current_state", "action_state", "tick_state", "current_score_state", "next_score_state")
    need(record, (*states, "game", "state_id"), where, "key")
    before = _state_record(record, "current_state", "current_score_state", where)
    after = _state_record(record, "tick_state", "next_score_state", where)
    action = take_inner(record, "action_state", "lastAction", str, where)
    game = take(record, "game", str, where)
    return f"{name} {game}/{record['state_id']}", before, action, after, game


def _state_record(record: dict[str, Any], key: str, score_key: str, where: str) -> GameState:
    objects = take_inner(record, key, "objects", list, where)
    score = take(record, score_key, dict, where)
    next_uuid = take_inner(record, key, "max_UUID", int, where)
    return _game_state(objects, score, next_uuid, where, f"{key}.objects", score_key)


def _published_step(record: dict[str, Any], name: str, where: str) -> tuple[str, GameState, str, GameState | str, str]:
    need(record, ("prompt", "reward_model", "extra_info"), where, "column")
    action = take_inner(record, "extra_info", "data_action", str, where)
    prompt = row_files.last_message(record, where)
    base, task = _UUID_BASE.findall(prompt), _TASK.findall(prompt)
    before = _state_list(record, "extra_info", "data_state", where, int(base[-1]) if base else None)
    # The layout does not say which uuid is free afterwards, and nothing that is predicted needs it.
    truth = take_inner(record, "reward_model", "ground_truth", str, where)
    read = truth.lstrip().startswith("{")
    after = _state_list(record, "reward_model", "ground_truth", where, None) if read else truth
    game = record.get("game") or record["extra_info"].get("game") or (task[-1].strip() if task else "")
    return name, before, action, after, str(game)


def _state_list(record: dict[str, Any], outer: str, key: str, where: str, next_uuid: int | None) -> GameState:
    """A state out of ``{"game_state": [object, ..., score]}``."""
    field = f"{outer}.{key}"
    state = row_files.parse_json(take_inner(record, outer, key, str, where), where, field)
    items = take(state, "game_state", list, where, f"{field}.")
    if not items or not isinstance(items[-1], dict) or "score" not in items[-1]:
        last = items[-1] if items else "an empty list"
        raise InputError(f"{where}, field {field}.game_state: expected the score as last element, got {last!r:.80}")
    return _game_state(items[:-1], items[-1], next_uuid, where, field, "score")


def _game_state(
    objects: list[Any], score: dict[str, Any], next_uuid: int | None, where: str, field: str, score_field: str
) -> GameState:
    for index, obj in enumerate(objects):
        _check_object(obj, where, f"{field}[{index}]")
    uuids = [obj["uuid"] for obj in objects]
    if len(set(uuids)) < len(uuids):
        twice = next(uuid for uuid in uuids if uuids.count(uuid) > 1)
        raise InputError(f"{where}, field {field}: expected each uuid once, got {twice} again; make them unique")
    check_score(score, where, score_field)
    return GameState(tuple(objects), score, max(uuids, default=-1) + 1 if next_uuid is None else next_uuid)


def check_score(score: Mapping[str, Any], where: str, field: str) -> None:
    for key, kind in SCORE_FIELDS.items():
        take(score, key, kind, where, f"{field}.")


def _check_object(obj: Any, where: str, field: str) -> None:
    if not isinstance(obj, dict):
        raise InputError(f"{where}, field {field}: expected an object, got {obj!r:.80}")
    for key, kind in OBJECT_FIELDS.items():
        take(obj, key, kind, where, f"{field}.")
    if not all(isinstance(name, str) for name in obj["contains"]):
        raise InputError(f"{where}, field {field}.contains: expected a list of names, got {obj['contains']!r:.80}")
