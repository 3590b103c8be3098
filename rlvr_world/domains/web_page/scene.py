"""Web pages in sessions: what is seen of a page, and which actions it takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import gymnasium as gym

from rlvr_world.domains.replayed import seen_in
from rlvr_world.domains.scene import MAX_ACTION, MAX_TEXT, AnyText, TextScene
from rlvr_world.domains.web_page.actions import parse_action
from rlvr_world.domains.web_page.outcome import FAILURE, SUCCESS
from rlvr_world.domains.web_page.rows import PageState, read_question
from rlvr_world.errors import InputError
from rlvr_world.types import Domain, Outcome, Transition


def space() -> gym.Space:
    """Of what is seen: the fields that a question about a page has."""
    longest = {"observation": MAX_TEXT, "url": MAX_TEXT, "goal": MAX_TEXT, "previous": MAX_ACTION}
    return gym.spaces.Dict({name: AnyText(count) for name, count in longest.items()})


def observed(state: PageState) -> dict[str, str]:
    return {"observation": state.text, "url": state.url, "goal": state.goal, "previous": state.previous}


def as_text(seen: Mapping[str, str]) -> str:
    """What is observed, for a person."""
    return f"{seen['goal']}\n{seen['observation']}"


def refused(state: PageState, action: str) -> str:
    """Why this is no action on this page; empty where it is one."""
    try:
        target = parse_action(action).id
    except InputError as error:
        return str(error)
    return f"no element [{target}] on the page" if target and target not in state.page.by_id else ""


def ask(state: PageState, action: str) -> Transition | Outcome:
    if error := refused(state, action):
        return Outcome(state, info={"action_error": error})
    if action.startswith("stop"):
        return Outcome(state, terminated=True)
    return Transition("session", state, action, None)


def imagined_pages(domain: Domain, choose: Callable[[int, Mapping[str, Any]], Transition]) -> TextScene:
    """``choose`` says in which row's state a session starts."""

    def start(seed: int, options: Mapping[str, Any]) -> tuple[PageState, Mapping[str, Any]]:
        if "state" in options:
            state = read_question({"state": seen_in(options["state"]), "action": ""}).state
            return replace(state, done=getattr(options["state"], "done", ())), {}
        row = choose(seed, options)
        return row.state, {"row": row.id, "task": row.world}

    def outcome(before: PageState, row: Transition, after: PageState) -> Outcome:
        over = after.outcome in (SUCCESS, FAILURE)
        return Outcome(after, float(after.outcome == SUCCESS), over, {"changed": after.text != before.text})

    return TextScene(domain, start, ask, observed, outcome, as_text, space())
