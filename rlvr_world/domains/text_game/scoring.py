"""How right a text-game answer is: strictly (the default), and as the published code of RLVR-World measures it.

Strict: the difference is applied to the state and *everything* in the result is compared with what happened. A state
is a set of fields, (uuid, field) -> value: a missed removal, an invented object, a wrong name each cost their fields.

Published: the reward of arXiv 2505.13934 as its code computes it, for comparison with its numbers. It cannot give a
right score to a step that creates an object, and charges nothing for a missed removal, an invented object, or a wrong
name or type. It reads the answer in its own lenient way (a plain replacement of ``True`` even inside names, a uuid
may be ``1.0``, ``removed`` may be anything), and that leniency is part of what it measures; hence a parse of its own.

Rows a second on this machine: ``python tests/domains/text_game/bench_scoring.py``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import json_repair

from rlvr_world.domains.text_game.answer import (
    MAX_ANSWER,
    OBJECT_FIELDS,
    REPAIR_ERRORS,
    Prediction,
    StateDiff,
    apply_diff,
    too_deep,
)
from rlvr_world.domains.text_game.rows import GameState, by_uuid
from rlvr_world.errors import InputError
from rlvr_world.types import Malformed, Score, Transition

Reward = Literal["binary", "task_specific"]
Scoring = Literal["strict", "published"]

PUBLISHED_MAX_REPAIR = 16_384
"""Longest text, in characters, that the published parse repairs here; the published code has no limit."""

_PUBLISHED_MARKERS = [
    f"{the} final {what} is:" for what in ("answer", "state", "game state") for the in ("The", "the")
]
_PUBLISHED_FENCE = re.compile(r"```json\s*([\s\S]*?)\s*```")
_ABSENT = object()


def score_answer(
    text: str, prediction: Prediction, transition: Transition, reward: Reward = "binary", scoring: Scoring = "strict"
) -> Score:
    """The chosen reward of an answer, with parts that are always the same and always finite.

    ``text`` is what the published scoring reads, ``prediction.diff`` what the strict one reads. Parts:

    * ``exact`` (0/1): the whole next state and score are right (strict); ``exact_published`` (0/1): the paper's measure
    * ``changed``: of the fields that truly changed, the share that is right; where none did, 1 if none was changed
    * ``objects``: of all fields, the share that is right; ``score_state``: the same for the score
    * ``malformed`` (0/1): the strict parse failed, for the reason in ``Score.malformed``

    Raises InputError for a true state that is not one; any other exception is a bug here, never a wrong answer.
    """
    check_truth(transition)
    parts = score_strict(prediction.diff, transition)
    exact_published, task_published = _published(text, transition.state, transition.next_state)
    if scoring == "strict":
        value = reward_value(parts, reward)
    else:
        value = exact_published if reward == "binary" else task_published
    del parts["has_change"]
    malformed = prediction.diff.reason if isinstance(prediction.diff, Malformed) else ""
    parts |= {"exact_published": exact_published, "malformed": float(bool(malformed))}
    return Score(value, parts, malformed)


def reward_value(parts: Mapping[str, float], kind: Reward) -> float:
    """The reward from ``score_strict``'s parts, in the form of the paper's section 4.1.

    binary: 0 or 1. task_specific: 0.09 objects + 0.01 score + 0.2 exact + changed, the last only where some field of
    an object changed: at most 1.3 there and 0.3 elsewhere.
    """
    if kind == "binary":
        return parts["exact"]
    value = 0.09 * parts["objects"] + 0.01 * parts["score_state"] + 0.2 * parts["exact"]
    return value + parts["changed"] if parts["has_change"] else value


def check_truth(transition: Transition) -> None:
    """Raise InputError, naming the row, unless both states are sound; what is scored against must not be in doubt."""
    for side, state in (("state", transition.state), ("next_state", transition.next_state)):
        where = f"row {transition.id}, {side}"
        if not isinstance(state, GameState):
            raise InputError(f"{where}: expected a GameState, got {type(state).__name__}; read rows with read_rows")
        for obj in state.objects:
            if not (obj.keys() >= OBJECT_FIELDS.keys()):
                raise InputError(f"{where}: expected objects with {', '.join(OBJECT_FIELDS)}, got {', '.join(obj)}")
        if len({obj["uuid"] for obj in state.objects}) < len(state.objects):
            raise InputError(f"{where}: expected each uuid once, got one twice; give objects unique uuids")
        if "score" not in state.score:
            raise InputError(f"{where}.score: expected a key 'score', got {', '.join(state.score) or 'none'}")


# Strict


def score_strict(prediction: StateDiff | Malformed, transition: Transition) -> dict[str, float]:
    """Parts ``exact``, ``objects``, ``score_state``, ``changed``, ``has_change``, each in [0, 1]; see ``score_answer``.

    ``has_change``: some field of an object truly changed (a score alone does not count, as in the paper).
    """
    # Rows share the objects that a step leaves alone, so that most of the comparisons end at ``is``.
    before = by_uuid(transition.state)
    old = {uuid: fields(obj) for uuid, obj in before.items()}
    true = {u: old[u] if before.get(u) is obj else fields(obj) for u, obj in by_uuid(transition.next_state).items()}
    changes = changed_fields(old, true)
    if isinstance(prediction, Malformed):
        return {"exact": 0.0, "objects": 0.0, "score_state": 0.0, "changed": 0.0, "has_change": float(bool(changes))}
    after = apply_diff(transition.state, prediction)
    touched = {obj["uuid"] for obj in prediction.modified}
    said = {u: fields(obj) if u in touched else old[u] for u, obj in by_uuid(after).items()}
    wrong = changed_fields(said, true)
    total = len(wrong) + sum(len(values) for values in true.values())
    total -= sum(1 for uuid, field in wrong if field in true.get(uuid, ()))
    score = {} if prediction.score is None else after.score
    keys = score.keys() | transition.next_state.score.keys()
    right = sum(same(score.get(k, _ABSENT), transition.next_state.score.get(k, _ABSENT)) for k in keys)
    if changes:
        missed = set(wrong)
        changed = sum(change not in missed for change in changes) / len(changes)
    else:
        changed = float(not wrong)
    return {
        "exact": float(not wrong and right == len(keys)),
        "objects": 1 - len(wrong) / total if total else 1.0,
        "score_state": right / len(keys),
        "changed": changed,
        "has_change": float(bool(changes)),
    }


def fields(obj: Mapping[str, Any]) -> dict[str, Any]:
    """An object as fields: ``name``, ``type``, ``contains`` (sorted: its order means nothing), ``.isOn`` and so on."""
    flat = {"." + key: value for key, value in obj["properties"].items()}
    flat["name"], flat["type"], flat["contains"] = obj["name"], obj["type"], sorted(obj["contains"])
    return flat


def changed_fields(before: Mapping[int, dict[str, Any]], after: Mapping[int, dict[str, Any]]) -> list[tuple[int, str]]:
    """The (uuid, field) pairs that differ or stand on one side only, of two states given as uuid -> ``fields``."""
    changes: list[tuple[int, str]] = []
    for uuid, new in after.items():
        old = before.get(uuid)
        if old is None:
            changes += [(uuid, field) for field in new]
        elif old is not new:
            changes += [(uuid, f) for f, value in new.items() if f not in old or not same(old[f], value)]
            changes += [(uuid, f) for f in old if f not in new]
    for uuid, old in before.items():
        if uuid not in after:
            changes += [(uuid, field) for field in old]
    return changes


def same(a: Any, b: Any) -> bool:
    """Equality of JSON values: numbers by value (``1`` is ``1.0``), but ``true`` is not ``1``."""
    kind = type(a)
    if kind is dict:
        return type(b) is dict and a.keys() == b.keys() and all(same(value, b[key]) for key, value in a.items())
    if kind is list or kind is tuple:
        return isinstance(b, (list, tuple)) and len(a) == len(b) and all(map(same, a, b))
    return a == b and (kind is bool) == (type(b) is bool)


# Published


class _Unscorable(Exception):
    """The answer makes the published code raise, which it turns into reward 0."""


def score_published(text: str, current: GameState, target: GameState, reward: Reward) -> float:
    """The reward as the published code gives it (``compute_score`` of RLVR-World's text-game reward, e1b8b6f).

    The one difference are limits on length and nesting (``MAX_ANSWER``, ``PUBLISHED_MAX_REPAIR``, ``MAX_DEPTH``),
    beyond which the reward is 0, so that no answer can stall a run.
    """
    binary, task_specific = _published(text, current, target)
    return binary if reward == "binary" else task_specific


def _published(text: str, current: GameState, target: GameState) -> tuple[float, float]:
    """(binary, task_specific). Each way in which the published code raises is spelled out, so our bugs still raise."""
    try:
        predicted, score = _published_state(_published_parse(text), current)
        objects = _published_objects(predicted, target)
        right = _published_score(score, target)
    except _Unscorable:
        return 0.0, 0.0
    exact = float(objects == 1 and right == 1)
    value = objects * 0.09 + right * 0.01 + 0.2 * exact
    try:
        changed = _published_changed(predicted, current, target)
    except _Unscorable:
        return exact, 0.0
    return exact, value if changed is None else value + changed


def _published_parse(text: str) -> dict[str, Any] | list[Any] | str:
    """What stands after the first kind of marker that occurs, in the last json fence, or the whole text, as JSON.

    A list or a text passes where it contains both key words, and then says nothing.
    """
    marker = next((m for m in _PUBLISHED_MARKERS if m in text), None)
    if marker:
        answer = text[text.rindex(marker) + len(marker) :].strip()
    else:
        fences = _PUBLISHED_FENCE.findall(text) if "```json" in text else []
        answer = fences[-1] if fences and len(fences[-1]) >= 10 else text
    if len(answer) > MAX_ANSWER or too_deep(answer):
        raise _Unscorable
    data = _published_json(answer.replace("True", "true").replace("False", "false").replace("None", "null"))
    if not isinstance(data, (dict, list, str)) or "modified" not in data or "removed" not in data:
        raise _Unscorable
    return data


def _published_json(answer: str) -> Any:
    try:
        return json.loads(answer)
    except ValueError:
        pass
    if len(answer) > PUBLISHED_MAX_REPAIR:
        raise _Unscorable
    try:
        return json_repair.repair_json(answer, return_objects=True, skip_json_loads=True)
    except REPAIR_ERRORS as error:
        raise _Unscorable from error


def _published_state(data: Any, current: GameState) -> tuple[dict[Any, dict[str, Any]], dict[str, Any]]:
    """uuid -> predicted object, and the predicted score. Nothing is ever created; ``removed`` counts only as a list."""
    modified: dict[Any, dict[str, Any]] = {}
    removed: list[Any] = []
    score: Any = None
    if isinstance(data, dict):
        items = data["modified"] if isinstance(data["modified"], list) else []
        modified = {o["uuid"]: o for o in items if isinstance(o, dict) and _hashable(o.get("uuid", []))}
        removed = data["removed"] if isinstance(data["removed"], list) else []
        if "score" in data:
            score = data["score"]
            score = score if isinstance(score, (dict, list, str)) and score else current.score
    kept = (modified.get(obj["uuid"], obj) for obj in current.objects if obj["uuid"] not in removed)
    predicted = {obj["uuid"]: obj for obj in kept}
    # The published code tells objects and score apart by their keys alone, with ``in``, whatever they are.
    if score is not None and "uuid" in score:
        if not isinstance(score, dict) or not _hashable(score["uuid"]):
            raise _Unscorable
        predicted[score["uuid"]] = score
    elif score is not None and "score" in score:
        if not isinstance(score, dict):
            raise _Unscorable
        return predicted, score
    return predicted, {}


def _published_objects(predicted: Mapping[Any, dict[str, Any]], target: GameState) -> float:
    """Share of the true objects' properties and contents that is right; a missing object is one error."""
    right = wrong = 0
    for obj in target.objects:
        said = predicted.get(obj["uuid"])
        if said is None:
            wrong += 1
            continue
        if said is obj:
            right += len(obj["properties"]) + 1
            continue
        verdicts = [sorted(obj["contains"]) == _sorted(said["contains"]) if "contains" in said else False]
        if "properties" in said:
            verdicts += [_right(said["properties"], key, value) for key, value in obj["properties"].items()]
        else:
            verdicts.append(False)
        right += sum(verdicts)
        wrong += len(verdicts) - sum(verdicts)
    if right + wrong == 0:  # a world without objects: the published code divides by zero
        raise _Unscorable
    return right / (right + wrong)


def _published_score(score: Mapping[str, Any], target: GameState) -> float:
    right = sum(key in score and score[key] == value for key, value in target.score.items())
    return right / len(target.score)


def _published_changed(
    predicted: Mapping[Any, dict[str, Any]], current: GameState, target: GameState
) -> float | None:
    """Of what changed in objects present before and after, the share that is right; None where the term is dropped."""
    old = by_uuid(current)
    verdicts: list[tuple[int, Any, bool]] = []
    for obj in target.objects:
        said = predicted.get(obj["uuid"])
        if said is None or said is obj is old.get(obj["uuid"]):
            continue
        properties = said.get("properties")
        if not isinstance(properties, (dict, list, str)) or not all(map(_hashable, properties)):
            return None
        for key, value in obj["properties"].items():
            verdicts.append((obj["uuid"], key, _right(properties, key, value)))
        verdicts += [(obj["uuid"], key, False) for key in properties if key not in obj["properties"]]
        contains_right = sorted(obj["contains"]) == _sorted(said.get("contains", []))
        verdicts.append((obj["uuid"], "contains", contains_right))
    has_changed = _published_marks(old, target.objects)
    if any(key not in has_changed[uuid] for uuid, key, _ in verdicts):  # a property that no true state has
        raise _Unscorable
    counted = [right for uuid, key, right in verdicts if has_changed[uuid][key]]
    return sum(counted) / len(counted) if counted else None


def _published_marks(
    current: Mapping[int, dict[str, Any]], target: Sequence[dict[str, Any]]
) -> dict[int, dict[str, bool]]:
    """uuid -> field -> whether it changed; of a created object only ``contains`` counts."""
    marks: dict[int, dict[str, bool]] = {}
    for obj in target:
        new = obj["properties"]
        if obj is current.get(obj["uuid"]):
            marks[obj["uuid"]] = {**dict.fromkeys(new, False), "contains": False}
            continue
        if obj["uuid"] not in current:
            marks[obj["uuid"]] = {**dict.fromkeys(new, False), "contains": True}
            continue
        old = current[obj["uuid"]]["properties"]
        mark = {key: key not in new or value != new[key] for key, value in old.items()}
        mark |= {key: True for key in new if key not in old}
        mark["contains"] = sorted(obj["contains"]) != sorted(current[obj["uuid"]]["contains"])
        marks[obj["uuid"]] = mark
    return marks


def _right(properties: Any, key: str, value: Any) -> bool:
    """Whether ``properties``, which may be of any kind, has the value; looking into a non-object is an error there."""
    if isinstance(properties, dict):
        return bool(key in properties and properties[key] == value)
    if not isinstance(properties, (list, str)) or key in properties:
        raise _Unscorable
    return False


def _sorted(value: Any) -> list[Any]:
    try:
        return sorted(value)
    except TypeError as error:  # not a sequence, or names and numbers mixed
        raise _Unscorable from error


def _hashable(value: Any) -> bool:
    return not isinstance(value, (dict, list))
