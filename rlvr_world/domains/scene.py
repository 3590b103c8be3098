"""Sessions in a domain over text: where they start, what the model is asked, and what comes of its answer."""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import gymnasium as gym

from rlvr_world.domains.row_files import check_texts
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


def start_rows(rows: Callable[[], Sequence[Transition]]) -> Callable[[int, Mapping[str, Any]], Transition]:
    """(seed, options) -> the row in whose state a session starts: that of the seed, or whose id ends in
    ``options["row"]``. ``rows`` is called once, when the first session starts."""
    read = lru_cache(maxsize=1)(rows)

    def choose(seed: int, options: Mapping[str, Any]) -> Transition:
        end = options.get("row", "")
        found = [row for row in read() if row.id.endswith(end)] if isinstance(end, str) else []
        if not found:
            raise InputError(f"start, row: expected the end of an id such as {read()[0].id!r}, got {end!r:.80}")
        return found[seed % len(found)]

    return choose


def read_text(given: Any) -> str:
    """An action in words. Raises InputError for what is no text, or too long."""
    if not isinstance(given, str) or len(given) > MAX_ACTION:
        raise InputError(f"action: expected a text of at most {MAX_ACTION} characters, got {given!r:.80}")
    check_texts(given, "step", "action")
    return given


@dataclass(frozen=True)
class TextScene:
    """How a domain over text is imagined; see ``Scene``."""

    domain: Domain
    start: Starts
    ask: Callable[[Any, str], Transition | Outcome]
    """The row that a state and an action make; an outcome where the model need not be asked."""
    observe: Callable[[Any], Any]
    """What is seen of a state."""
    outcome: Callable[[Any, Transition, Any], Outcome] = lambda state, row, after: Outcome(after)
    """(state, row, the row's next state as the model says it) -> what comes of it."""
    as_text: Callable[[Any], str] = str
    """What is seen, for a person."""
    observation_space: gym.Space = field(default_factory=lambda: AnyText(MAX_TEXT))
    action_space: gym.Space = field(default_factory=lambda: AnyText(MAX_ACTION))
    options: Sequence[str] = ("state", "row")
    render_mode = "ansi"
    read_action = staticmethod(read_text)

    def script(self, state: Any, action: Any) -> Script | Outcome:
        row = self.ask(state, action)
        return row if isinstance(row, Outcome) else self.domain.encode(row)

    def follow(self, asked: Asked, written: Sequence[Written]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for (state, action), tokens in zip(asked, written, strict=True):
            row = self.ask(state, action)
            assert isinstance(row, Transition)
            after = self.domain.advance(row.state, row.action, self.domain.decode(tokens, row))
            lost = Outcome(state, info={"malformed": after.reason}) if isinstance(after, Malformed) else None
            outcomes.append(lost or self.outcome(state, row, after))
        return outcomes

    def render(self, state: Any) -> str:
        return self.as_text(self.observe(state))


def is_count(given: Any) -> bool:
    """Whether an option is a whole number of at least 0; True and False are none."""
    return isinstance(given, int) and not isinstance(given, bool) and given >= 0
