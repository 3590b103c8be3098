"""The text-game world: a game state and a command in, the difference to the next state out; and a prediction beside
what really happened, as a diff that a person reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from rlvr_world.domains.answers import ABSENT, compared, printable, shown
from rlvr_world.domains.text_domain import TextDomain
from rlvr_world.domains.text_game.answer import Prediction, StateDiff, apply_diff, read_prediction
from rlvr_world.domains.text_game.config import TextGameConfig
from rlvr_world.domains.text_game.prompt import Rules, build_answer, build_prompt
from rlvr_world.domains.text_game.rows import GameState, by_uuid, check_score
from rlvr_world.domains.text_game.scoring import fields, score_answer
from rlvr_world.errors import InputError
from rlvr_world.models.text_tokenizer import TextTokenizer
from rlvr_world.types import Malformed, Score, Transition

_SHOWN = 200


def explain_prediction(prediction: Prediction, transition: Transition) -> str:
    """A line for the action, then one for each thing that changed or was said to change: with a space in front where
    the prediction is right, ``-`` for a truth that it missed, ``+`` for something wrong that it says:

      sink (ID: 3).isOn: False -> True
    - pot (ID: 4).temperature: 70.0 -> 95.0
    + pot (ID: 4).temperature: 70.0 -> 90.0
    """
    diff = prediction.diff
    lines = [f"  action: {transition.action}"]
    if isinstance(diff, Malformed):
        lines += [f"+ malformed: {diff.reason}", f"+ text: {prediction.text[:_SHOWN]!r}"]
        diff = StateDiff((), (), {})
    said = apply_diff(transition.state, diff)
    if diff.score is None:
        lines.append("+ no key 'score'")
    body = _object_lines(transition, said)
    body += _field_lines("score.", transition.state.score, transition.next_state.score, said.score)
    return "\n".join(map(printable, [*lines, *(body or ["  nothing changed"])]))


def _object_lines(transition: Transition, said_state: GameState) -> list[str]:
    old, true, said = by_uuid(transition.state), by_uuid(transition.next_state), by_uuid(said_state)
    lines: list[str] = []
    for uuid in {**old, **true, **said}:
        before, after, predicted = old.get(uuid), true.get(uuid), said.get(uuid)
        name = (before or after or predicted or {})["name"]
        if before is None:
            lines += _created_lines(name, after, predicted)
            continue
        if after is None or predicted is None:
            lines.append(f"{_mark(after is None, predicted is None)} removed {name}")
        if after is not None:
            lines += _field_lines(name, fields(before), fields(after), fields(predicted or before))
    return lines


def _created_lines(name: str, after: Mapping[str, Any] | None, predicted: Mapping[str, Any] | None) -> list[str]:
    """An object that was not there before; where both agree that it is there now, also the fields that are wrong."""
    mark = _mark(after is not None, predicted is not None)
    if after is not None and predicted is not None:
        wrong = _field_lines(name, {}, fields(after), fields(predicted))
        return [f"{mark} created {name}", *(line for line in wrong if not line.startswith(" "))]
    shown = fields(after or predicted or {})
    return [f"{mark} created {name}: " + ", ".join(f"{key.lstrip('.')} {value!r}" for key, value in shown.items())]


def _field_lines(name: str, before: Mapping[str, Any], after: Mapping[str, Any], said: Mapping[str, Any]) -> list[str]:
    lines: list[str] = []
    for mark, field, old, new in compared(before, after, said):
        label = name + field if name.endswith(".") or field.startswith(".") else f"{name} {field}"
        lines.append(f"{mark} {label}{_change(field, old, new)}")
    return lines


def _change(field: str, old: Any, new: Any) -> str:
    """``: False -> True``; for contents, which can be long, what comes and goes."""
    if field != "contains" or old is ABSENT or new is ABSENT:
        return f": {shown(old)} -> {shown(new)}"
    moves = (("loses", Counter(old) - Counter(new)), ("gains", Counter(new) - Counter(old)))
    return ": " + ", ".join(f"{verb} {name}" for verb, names in moves for name in names.elements())


def _mark(true: bool, said: bool) -> str:
    return " " if true and said else "-" if true else "+"


class TextGame(TextDomain):
    """Encode, decode and score text-game transitions (states are ``GameState``)."""

    config: TextGameConfig
    explain = staticmethod(explain_prediction)
    mend = "raise data.max_prompt, or turn off data.style.example or data.style.rules"

    def __init__(self, config: TextGameConfig, tokenizer: TextTokenizer | None, rules: Rules | None) -> None:
        super().__init__(config, tokenizer)
        self.rules = rules
        self.headline = "exact" if config.scoring == "strict" else "exact_published"

    def prompt(self, row: Transition) -> str:
        return build_prompt(row, self.config.style, self.rules)

    def answer(self, row: Transition) -> str:
        return build_answer(row, self.config.style.instructions)

    def read(self, text: str, row: Transition) -> Prediction:
        return read_prediction(text)

    def score(self, prediction: Prediction, transition: Transition) -> Score:
        return score_answer(prediction, transition, self.config.reward, self.config.scoring)

    def advance(self, state: GameState, action: str, prediction: Prediction) -> GameState | Malformed:
        if isinstance(prediction.diff, Malformed):
            return prediction.diff
        after = apply_diff(state, prediction.diff)
        with suppress(InputError):  # half a score is scored for what is right of it, but no game goes on from it
            check_score(after.score, "answer", "score")
            return after
        return Malformed("'score' is not a whole score")

    def baselines(self, transition: Transition) -> Mapping[str, Prediction]:
        return {"no change": read_prediction('{"modified": [], "removed": [], "score": {}}')}
