"""What a text-game model reads and what it should write: one user message, and a state-difference answer.

The parts and their order follow RLVR-World (NeurIPS 2025, arXiv 2505.13934, appendix D): role and answer format,
a worked example, the rules of the game, the state, the next free uuid, the action. The wording is this project's.
What is the same for all rows comes first, so that an engine can cache it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlvr_world.domains.row_files import check_texts, own_prompt, parse_json, take
from rlvr_world.domains.text_game.config import PromptStyle
from rlvr_world.domains.text_game.rows import GameState, by_uuid, differs, read_question
from rlvr_world.errors import InputError
from rlvr_world.types import Transition

MARKER = "The final answer is:"
KINDS = ("object_rules", "action_rules", "score_rules")


@dataclass(frozen=True)
class Rules:
    """The written rules of games: for each kind of rule, a text by game name. Each is whole; the published prompts cut
    what follows the last ``==========`` of the object rules, and with it real rules of ten games."""

    texts: Mapping[str, Mapping[str, str]]
    source: str = "the rules"
    """Names the file in errors."""

    @staticmethod
    def load(path: str | Path) -> Rules:
        """Read a JSON file with ``object_rules``, ``action_rules`` and ``score_rules``, each {game: text}; or a folder
        that holds each as a file of its own, such as GPT-simulator's ``rules/human_written_rules``."""
        path = Path(path).expanduser()
        files = {kind: path / f"{kind}.json" for kind in KINDS} if path.is_dir() else {"": path}
        for file in files.values():
            if not file.is_file():
                raise InputError(f"{file}: no such rules file; check the path")
        content = {kind: parse_json(file.read_bytes(), str(file), "the rules file") for kind, file in files.items()}
        content = content.get("", content)
        for kind in KINDS:
            texts = take(content, kind, dict, str(path))
            if not all(isinstance(text, str) for text in texts.values()):
                raise InputError(f"{path}, field {kind}: expected an object of game names and texts, got {texts!r:.80}")
            check_texts(texts, str(path), kind)
        return Rules({kind: content[kind] for kind in KINDS}, str(path))

    def save(self, file: Path) -> None:
        """One file that ``load`` reads."""
        file.write_text(_json(self.texts))

    def for_game(self, game: str) -> tuple[str, ...]:
        """The object, action and score rules of a game; InputError where the file lacks one of them."""
        for kind, texts in self.texts.items():
            if game not in texts:
                mend = "add them, turn rules off in the prompt, or ask as the rows do (data.style.row=true)"
                got = f"got rules only for {', '.join(sorted(texts))}; {mend}"
                raise InputError(f"{self.source}, field {kind}: expected rules for the game {game!r}, {got}")
        return tuple(self.texts[kind][game].strip() for kind in KINDS)


def build_prompt(transition: Transition, style: PromptStyle, rules: Rules | None) -> str:
    """One user message that asks for the next state. Raises InputError where there are no rules and the style asks."""
    if style.row:
        return own_prompt(transition)
    parts = [_INSTRUCTIONS] if style.instructions else []
    if style.example:
        parts.append(_worked_example(style))
    if style.rules:
        if rules is None:
            raise InputError("the prompt style asks for rules, but no rules file is given; name one, or turn rules off")
        heading = "Now the game to predict.\n" if style.example else ""
        parts.append(heading + _rules_text(rules, transition.world))
    if not parts:
        return _question(transition, style)
    parts.append(f"The state now:\n{_question(transition, style)}")
    if style.instructions:
        parts.append(f"What is the state after this step? Begin the answer with `{MARKER}`.")
    return "\n".join(parts)


def build_answer(transition: Transition, marker: bool) -> str:
    """The right answer as one line of JSON, with ``The final answer is: `` before it where ``marker`` is set.

    ``modified`` holds the objects that are new or differ (the order of ``contains`` means nothing), whole and in the
    order of the next state; ``removed`` the uuids that are gone; ``score`` is ``{}`` where it stays the same.
    """
    before, after = transition.state, transition.next_state
    old, new = by_uuid(before), by_uuid(after)
    answer = {
        "modified": [obj for uuid, obj in new.items() if uuid not in old or differs(old[uuid], obj)],
        "removed": [uuid for uuid in old if uuid not in new],
        "score": {} if before.score == after.score else after.score,
    }
    return f"{MARKER} {_json(answer)}" if marker else _json(answer)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _question(transition: Transition, style: PromptStyle) -> str:
    state: GameState = transition.state
    value = {"game_state": [*state.objects, state.score]}
    literal = _json(value) if style.literals == "json" else repr(value)
    return f"{literal}\nNext UUID: {state.next_uuid}\nAction: {transition.action}\n"


def _rules_text(rules: Rules, game: str) -> str:
    objects, actions, score = rules.for_game(game)
    return f"Rules of the objects:\n{objects}\n\nRules of the actions:\n{actions}\n\nRules of the score:\n{score}\n"


_INSTRUCTIONS = Path(__file__).with_suffix(".txt").read_text()
_POND = Path(__file__).with_name("pond.json")
"""The worked example: a pond with pebbles and rain, made up for this prompt. Its first step is decided by the action
alone (it does not rain), its second by the tick alone (looking changes nothing)."""
_POND_RULES, _POND_STEPS = Rules.load(_POND), json.loads(_POND.read_text())["steps"]


def _worked_example(style: PromptStyle) -> str:
    shown = []
    for number, told in enumerate(_POND_STEPS, start=1):
        before, after = (read_question({**told, "state": told[side]}).state for side in ("state", "next_state"))
        step = Transition(f"example {number}", before, told["action"], after)
        answer = build_answer(step, marker=True)
        shown.append(f"Step {number}:\n{_question(step, style)}The right answer:\n{answer}\n")
    return "\n".join(["Here is another game as an example.", _rules_text(_POND_RULES, "pond"), *shown])
