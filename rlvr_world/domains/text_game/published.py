"""The text-game reward as the published code computes it, for comparison with the paper's numbers: RLVR-World (NeurIPS
2025, arXiv 2505.13934), ``compute_score`` of its text-game reward at commit e1b8b6f.

It cannot give full score to a step that creates an object, and charges nothing for a missed removal, an invented
object, or a wrong name or type. Its lenient reading (``True`` is replaced even inside names, a uuid may be ``1.0``,
``removed`` may be anything) is part of what it measures: hence a parse of its own. The one difference are limits on
length and nesting, beyond which the reward is 0.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import json_repair  # from 0.58.7: older ones can loop for ever on broken quotes

from rlvr_world.domains.answers import MAX_ANSWER, too_deep
from rlvr_world.domains.text_game.rows import GameState, by_uuid

MAX_PUBLISHED_REPAIR = 16_384
"""Longest text, in characters, that is repaired here: without a marker, reasoning and all are repaired as one."""

LOOKS = 4
"""Looks that repairing may take at a character, on average: broken quotes need two or three, loops hundreds."""
REPAIR_ERRORS = (RecursionError, ValueError, AssertionError, TypeError, AttributeError, LookupError, ArithmeticError)
"""What json_repair may raise on text that it cannot read: the first two by design, the others where it has a bug."""

_MARKERS = [f"{the} final {what} is:" for what in ("answer", "state", "game state") for the in ("The", "the")]


class _Unscorable(Exception):
    """The answer makes the published code raise, which it turns into reward 0."""


def published_scores(text: str, current: GameState, target: GameState) -> tuple[float, float]:
    """The rewards (binary, task_specific) of an answer's text, equal to the published code's within rounding. Each way
    in which that code raises, and so gives 0, is spelled out as ``_Unscorable``: a bug here still raises."""
    try:
        predicted, score = _state(_parse(text), current)
        objects = _objects(predicted, target)
        right = sum(key in score and score[key] == value for key, value in target.score.items()) / len(target.score)
    except _Unscorable:
        return 0.0, 0.0
    exact = float(objects == 1 and right == 1)
    try:
        changed = _changed(predicted, current, target)
    except _Unscorable:
        return exact, 0.0
    return exact, objects * 0.09 + right * 0.01 + 0.2 * exact + (changed or 0.0)


def _parse(text: str) -> dict[str, Any] | list[Any] | str:
    """What stands after the first kind of marker that occurs, in the last json fence, or the whole text, as JSON. Lists
    and texts that contain both key words pass, and say nothing."""
    marker = next((m for m in _MARKERS if m in text), None)
    fence = "" if marker else _last_fence(text)
    answer = text.rpartition(marker)[2].strip() if marker else fence if len(fence) >= 10 else text
    if len(answer) > MAX_ANSWER or too_deep(answer):
        raise _Unscorable
    data = _json(answer.replace("True", "true").replace("False", "false").replace("None", "null"))
    if not isinstance(data, (dict, list, str)) or "modified" not in data or "removed" not in data:
        raise _Unscorable
    return data


def _last_fence(text: str) -> str:
    """The stripped body of the last json fence that is closed, else "". No pattern: one would take cubic time."""
    body, end = "", 0
    while (start := text.find("```json", end)) >= 0:
        start += len("```json")
        end = text.find("```", start)
        if end < 0:
            break
        body, end = text[start:end].strip(), end + 3
    return body


def _json(answer: str) -> Any:
    with suppress(ValueError):
        return json.loads(answer)
    with suppress(*REPAIR_ERRORS):
        if len(answer) <= MAX_PUBLISHED_REPAIR:
            metered = _Metered(answer)
            metered.left += LOOKS * len(answer)
            return json_repair.repair_json(metered, return_objects=True, skip_json_loads=True)
    raise _Unscorable


class _Metered(str):
    """A text that can be looked at so often: some broken quotes make json_repair read on to the end at every letter."""

    left = 10_000

    def __getitem__(self, place: Any) -> str:
        self.left -= 1
        if self.left < 0:
            raise ValueError("repairing takes too long")
        return super().__getitem__(place)


def _state(data: Any, current: GameState) -> tuple[dict[Any, dict[str, Any]], dict[str, Any]]:
    """uuid -> predicted object, and the predicted score. Nothing is ever created; ``removed`` counts only as a list."""
    modified: dict[Any, dict[str, Any]] = {}
    removed: list[Any] = []
    score: Any = None
    if isinstance(data, dict):
        items = data["modified"] if isinstance(data["modified"], list) else []
        modified = {o["uuid"]: o for o in items if isinstance(o, dict) and _hashable(o.get("uuid", []))}
        removed = data["removed"] if isinstance(data["removed"], list) else []
        if "score" in data:
            score = (isinstance(data["score"], (dict, list, str)) and data["score"]) or current.score
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


def _objects(predicted: Mapping[Any, dict[str, Any]], target: GameState) -> float:
    """Share of the true objects' properties and contents that is right; a missing object is one error."""
    right = wrong = 0
    for obj in target.objects:
        said = predicted.get(obj["uuid"])
        if said is None:
            wrong += 1
        elif said is obj:
            right += len(obj["properties"]) + 1
        else:
            verdicts = ["contains" in said and sorted(obj["contains"]) == _sorted(said["contains"])]
            given = "properties" in said
            verdicts += [_right(said["properties"], k, v) for k, v in obj["properties"].items()] if given else [False]
            right += sum(verdicts)
            wrong += len(verdicts) - sum(verdicts)
    if right + wrong == 0:  # a world without objects: the published code divides by zero
        raise _Unscorable
    return right / (right + wrong)


def _changed(predicted: Mapping[Any, dict[str, Any]], current: GameState, target: GameState) -> float | None:
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
        verdicts += [(obj["uuid"], key, _right(properties, key, value)) for key, value in obj["properties"].items()]
        verdicts += [(obj["uuid"], key, False) for key in properties if key not in obj["properties"]]
        verdicts.append((obj["uuid"], "contains", sorted(obj["contains"]) == _sorted(said.get("contains", []))))
    has_changed = _marks(old, target.objects)
    if any(key not in has_changed[uuid] for uuid, key, _ in verdicts):  # a property that no true state has
        raise _Unscorable
    counted = [right for uuid, key, right in verdicts if has_changed[uuid][key]]
    return sum(counted) / len(counted) if counted else None


def _marks(current: Mapping[int, dict[str, Any]], target: Sequence[dict[str, Any]]) -> dict[int, dict[str, bool]]:
    """uuid -> field -> whether it changed; of a created object only ``contains`` counts."""
    marks: dict[int, dict[str, bool]] = {}
    for obj in target:
        new, before = obj["properties"], current.get(obj["uuid"])
        if before is None or before is obj:
            mark = {**dict.fromkeys(new, False), "contains": before is None}
        else:
            old = before["properties"]
            mark = {key: key not in new or value != new[key] for key, value in old.items()}
            mark |= {key: True for key in new if key not in old}
            mark["contains"] = sorted(obj["contains"]) != sorted(before["contains"])
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
