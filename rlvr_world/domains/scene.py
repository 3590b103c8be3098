"""Sessions in a domain over text: where they start, what the model is asked, and what comes of its answer."""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym

from rlvr_world.errors import InputError
from rlvr_world.types import Asked, Domain, Malformed, Outcome, Script, Transition, Written

MAX_ACTION, MAX_TEXT = 400, 10_000_000
"""Characters of the longest action and observation."""
Starts = Callable[[int, Mapping[str, Any]], tuple[Any, Mapping[str, Any]]]
"""(seed, options) -> a first state and what else is to say of it."""


class AnyText(gym.spaces.Text):
    """Text of any characters, where Gymnasium's own space lists those that may occur; samples are printable ASCII."""

    def __init__(self, longest: int) -> None:
        super().__init__(longest, min_length=0, charset=string.ascii_letters + string.digits + " []")

    def contains(self, x: Any) -> bool:
        return isinstance(x, str) and len(x) <= self.max_length


def row_starts(rows: Callable[[], Sequence[Transition]]) -> Starts:
    """Sessions start in the state of a row: that which the seed names, or whose id ends in ``options["row"]``."""
    known: list[Sequence[Transition]] = []

    def start(seed: int, options: Mapping[str, Any]) -> tuple[Any, Mapping[str, Any]]:
        if not known:
            known.append(rows())
        row = known[0][seed % len(known[0])]
        if "row" in options:
            found = [row for row in known[0] if row.id.endswith(options["row"])]
            if not found:
                raise InputError(f"start, row: expected the end of an id such as {row.id!r}, got {options['row']!r}")
            row = found[0]
        return row.state, {"row": row.id, "world": row.world}

    return start


@dataclass(frozen=True)
class TextScene:
    """How a domain over text is imagined; see ``Scene``."""

    domain: Domain
    starts: Starts
    ask: Callable[[Any, str], Transition | str]
    """The row that a state and an action make; or why the text is no action there."""
    shown: Callable[[Any], Any]
    """What is seen of a state."""
    outcome: Callable[[Any, Transition, Any], Outcome] = lambda state, row, after: Outcome(after)
    """(state, row, the row's next state as the model says it) -> what comes of it."""
    observation_space: gym.Space = field(default_factory=lambda: AnyText(MAX_TEXT))
    action_space: gym.Space = field(default_factory=lambda: AnyText(MAX_ACTION))
    render_mode = "ansi"

    def start(self, seed: int, options: Mapping[str, Any]) -> tuple[Any, Mapping[str, Any]]:
        return self.starts(seed, options)

    def read_action(self, given: Any) -> str:
        return read_text(given)

    def script(self, state: Any, action: Any) -> Script | Outcome:
        row = self.ask(state, action)
        return Outcome(state, info={"action_error": row}) if isinstance(row, str) else self.domain.encode(row)

    def follow(self, asked: Asked, written: Sequence[Written]) -> list[Outcome]:
        outcomes = []
        for (state, action), tokens in zip(asked, written, strict=True):
            row = self.ask(state, action)
            assert isinstance(row, Transition)
            after = self.domain.advance(row.state, row.action, self.domain.decode(tokens, row))
            lost = isinstance(after, Malformed)
            outcomes.append(
                Outcome(state, info={"malformed": after.reason}) if lost else self.outcome(state, row, after)
            )
        return outcomes

    def observe(self, state: Any) -> Any:
        return self.shown(state)

    def render(self, state: Any) -> str:
        seen = self.shown(state)
        return seen if isinstance(seen, str) else "\n".join(f"{name}: {text}" for name, text in seen.items())


def read_text(given: Any) -> str:
    """An action in words. Raises InputError for what is no text, or too long."""
    if not isinstance(given, str) or len(given) > MAX_ACTION:
        raise InputError(f"action: expected a text of at most {MAX_ACTION} characters, got {given!r:.80}")
    return given
