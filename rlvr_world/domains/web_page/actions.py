"""What an agent does on a page, in WebArena's words; read strictly, because a wrong action is never carried out.

    click [12]   hover [12]   type [12] [text] [0|1]   press [Control+v]   scroll [up|down]
    new_tab   tab_focus [1]   close_tab   goto [url]   go_back   go_forward   stop [answer]

The last field of ``type`` says whether Enter is pressed afterwards (it is where the field is missing). Recorded
actions may end in a description of the element, `` where [12] is link 'Cart'``, which is no part of the action.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from rlvr_world.errors import InputError

_ID = r"\[(?P<id>[\w-]+)\]"
_WHERE = r"(?: where \[(?P=id)\] is .*)?"
GRAMMAR = {
    "click": _ID + _WHERE,
    "hover": _ID + _WHERE,
    "type": _ID + r" \[(?P<text>.*?)\](?: \[(?P<enter>[01])\])?" + _WHERE,
    "press": r"\[(?P<text>[^\[\]]+)\]",
    "scroll": r"\[(?P<text>up|down)\]",
    "new_tab": "",
    "tab_focus": r"\[(?P<text>\d+)\]",
    "close_tab": "",
    "goto": r"\[(?P<text>\S+)\]",
    "go_back": "",
    "go_forward": "",
    "stop": r"(?:\[(?P<text>.*)\])?",
}
"""What follows each verb."""
_PATTERNS = {verb: re.compile(rest, re.DOTALL) for verb, rest in GRAMMAR.items()}
_TARGET = re.compile(r"\w+(?: \[|\(['\"])([\w-]+)")
_ON_ELEMENTS = ("click", "hover", "type", "fill", "press", "select_option", "focus", "clear", "check", "uncheck")


@dataclass(frozen=True)
class Action:
    """One action.

    >>> Action("type", id="12", text="red shoes", enter=True)
    """

    verb: str
    id: str = ""
    """The element acted on; empty for actions on the page."""
    text: str = ""
    """What is typed, the keys, the direction, the number of the tab, the address or the answer."""
    enter: bool = False
    """Whether Enter is pressed after typing."""

    def __str__(self) -> str:
        fields = [self.id, self.text] if self.verb == "type" else [self.id or self.text]
        fields += [str(int(self.enter))] if self.verb == "type" else []
        return " ".join([self.verb, *(f"[{field}]" for field in fields if field or self.verb in ("type", "stop"))])


def parse_action(text: str) -> Action:
    """The action that ``text`` states, and nothing else.

    Raises InputError that lists the verbs, or shows the form of the one that was used.

    >>> parse_action("type [12] [red shoes]")
    Action(verb='type', id='12', text='red shoes', enter=True)
    """
    verb, _, rest = text.strip().partition(" ")
    if verb not in GRAMMAR:
        raise InputError(f"action {text!r:.80}: expected one of {', '.join(GRAMMAR)}, got {verb!r:.40}")
    found = _PATTERNS[verb].fullmatch(rest)
    if not found:
        raise InputError(f"action {text!r:.80}: expected {_form(verb)}; write it so")
    fields = found.groupdict()
    enter = verb == "type" and fields["enter"] != "0"
    return Action(verb, fields.get("id") or "", fields.get("text") or "", enter)


def target_of(action: str) -> str:
    """The id of the element that an action names, in WebArena's words or as BrowserGym's call; empty for none.

    >>> target_of("click [12]"), target_of("fill('a12', 'red')"), target_of("scroll [up]")
    ('12', 'a12', '')
    """
    found = _TARGET.match(action)
    named = found and action.startswith(_ON_ELEMENTS) and not action.startswith("press [")
    return found[1] if found and named else ""


def _form(verb: str) -> str:
    examples = {
        "type": "type [id] [text] [0|1]",
        "press": "press [keys]",
        "scroll": "scroll [up] or scroll [down]",
        "tab_focus": "tab_focus [number]",
        "goto": "goto [url]",
        "stop": "stop [answer]",
    }
    return examples.get(verb, f"{verb} [id]" if _PATTERNS[verb].groups else f"{verb} alone")
