"""How right a text-game answer is: strictly (the default), or as ``published`` measures it.

The difference is applied to the state and *everything* in the result is compared with what happened. A state is a set
of fields, (uuid, field) -> value: a missed removal, an invented object, a wrong name each cost their fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from rlvr_world.domains.answers import ABSENT, same
from rlvr_world.domains.text_game.answer import Prediction, StateDiff
from rlvr_world.domains.text_game.published import published_scores
from rlvr_world.domains.text_game.rows import OBJECT_FIELDS, GameState, by_uuid
from rlvr_world.errors import InputError
from rlvr_world.types import Malformed, Score, Transition

Reward = Literal["binary", "task_specific"]
Scoring = Literal["strict", "published"]


def score_answer(
    prediction: Prediction, transition: Transition, reward: Reward = "binary", scoring: Scoring = "strict"
) -> Score:
    """The chosen reward of an answer, with parts that are always the same and always finite:

    * ``exact`` (0/1): the whole next state and score are right (strict); ``exact_published`` (0/1): the paper's measure
    * ``changed``: of the fields that truly changed, the share that is right; where none did, 1 if none was changed
    * ``changes``: the right ones among the fields that truly changed or that the answer changes (Jaccard): ``changed``
      where it changes nothing else, less where it also breaks what should have stayed
    * ``objects``: of all fields, the share that is right; ``score_state``: the same for the score
    * ``malformed`` (0/1): the strict parse failed, for the reason in ``Score.malformed``

    Raises InputError for a true state that is not one.
    """
    check_truth(transition)
    parts = score_strict(prediction.diff, transition)
    exact_published, task_published = published_scores(prediction.text, transition.state, transition.next_state)
    published = exact_published if reward == "binary" else task_published
    value = reward_value(parts, reward) if scoring == "strict" else published
    del parts["has_change"]
    malformed = prediction.diff.reason if isinstance(prediction.diff, Malformed) else ""
    parts |= {"exact_published": exact_published, "malformed": float(bool(malformed))}
    return Score(value, parts, malformed)


def reward_value(parts: Mapping[str, float], kind: Reward) -> float:
    """The reward from ``score_strict``'s parts, in the form of the paper's section 4.1: binary, or at most 0.3, and 1.3
    where some field of an object changed. The paper counts the true changes that are right, whatever else an answer
    breaks; here it is ``changes``."""
    if kind == "binary":
        return parts["exact"]
    value = 0.09 * parts["objects"] + 0.01 * parts["score_state"] + 0.2 * parts["exact"]
    return value + parts["changes"] if parts["has_change"] else value


def check_truth(transition: Transition) -> None:
    """Raises InputError, naming the row, unless both states are sound."""
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


def score_strict(prediction: StateDiff | Malformed, transition: Transition) -> dict[str, float]:
    """The parts of ``score_answer``, and ``has_change``: some field of an object truly changed (a score alone does not
    count, as in the paper)."""
    # Rows share the objects that a step leaves alone, so that most of the comparisons end at ``is``.
    before = by_uuid(transition.state)
    old = {uuid: fields(obj) for uuid, obj in before.items()}
    true = {u: old[u] if before.get(u) is obj else fields(obj) for u, obj in by_uuid(transition.next_state).items()}
    changes = changed_fields(old, true)
    if isinstance(prediction, Malformed):
        nothing = dict.fromkeys(("exact", "objects", "score_state", "changed", "changes"), 0.0)
        return nothing | {"has_change": float(bool(changes))}
    said = {uuid: values for uuid, values in old.items() if uuid not in prediction.removed}
    said |= {obj["uuid"]: fields(obj) for obj in prediction.modified}
    wrong = changed_fields(said, true)
    total = len(wrong) + sum(len(values) for values in true.values())
    total -= sum(1 for uuid, field in wrong if field in true.get(uuid, ()))
    score = {} if prediction.score is None else prediction.score or transition.state.score
    true_score = transition.next_state.score
    keys = score.keys() | true_score.keys()
    right = sum(same(score.get(k, ABSENT), true_score.get(k, ABSENT)) for k in keys)
    missed = set(wrong)
    hits, stated = sum(change not in missed for change in changes), changed_fields(old, said)
    return {
        "exact": float(not wrong and right == len(keys)),
        "objects": 1 - len(wrong) / total if total else 1.0,
        "score_state": right / len(keys),
        "changed": hits / len(changes) if changes else float(not wrong),
        "changes": hits / len({*changes, *stated}) if changes else float(not wrong),
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
    return changes + [(uuid, field) for uuid, old in before.items() if uuid not in after for field in old]
