"""What an agent does on a page, in WebArena's words; read strictly, because a wrong action is never carried out.

    click [12]   hover [12]   type [12] [text] [0|1]   press [Control+v]   scroll [up|down]
    new_tab   tab_focus [1]   close_tab   goto [url]   go_back   go_forward   stop [answer]   clear [12]

The last field of ``type`` says whether Enter is pressed afterwards (it is where the field is missing). Recorded
actions may end in a description of the element, `` where [12] is link 'Cart'``, which is no part of the action.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

from rlvr_world.errors import InputError

_ID = r"\[(?P<id>[\w-]+)\]"
_WHERE = r"(?: where \[(?P=id)\] is .*)?"
GRAMMAR = {
    "click": (_ID + _WHERE, "click [id]"),
    "hover": (_ID + _WHERE, "hover [id]"),
    "type": (_ID + r" \[(?P<text>.*?)\](?: \[(?P<enter>[01])\])?" + _WHERE, "type [id] [text] [0|1]"),
    "press": (r"\[(?P<text>[^\[\]]+)\]", "press [keys]"),
    "scroll": (r"\[(?P<text>up|down)\]", "scroll [up] or scroll [down]"),
    "new_tab": ("", "new_tab alone"),
    "tab_focus": (r"\[(?P<text>\d+)\]", "tab_focus [number]"),
    "clear": (_ID + _WHERE, "clear [id]"),
    "close_tab": ("", "close_tab alone"),
    "goto": (r"\[(?P<text>\S+)\]", "goto [url]"),
    "go_back": ("", "go_back alone"),
    "go_forward": ("", "go_forward alone"),
    "stop": (r"(?:\[(?P<text>.*)\])?", "stop [answer]"),
}
"""What follows each verb, as a pattern, and the whole for a person."""
_TARGET = re.compile(r"(?:click|hover|type|clear) " + _ID)
_CALLS_ON_ELEMENTS = (
    *("click", "dblclick", "hover", "fill", "press", "select_option", "focus", "clear", "check", "uncheck"),
    *("drag_and_drop", "upload_file"),
)
"""BrowserGym's high-level actions (``browsergym.core.action.functions``) whose first argument names an element."""


@dataclass(frozen=True)
class Action:
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
    """The action that ``text`` states. Raises InputError that lists the verbs, or shows the form of the one used.

    >>> parse_action("type [12] [red shoes]")
    Action(verb='type', id='12', text='red shoes', enter=True)
    """
    verb, _, rest = text.strip().partition(" ")
    verb = "tab_focus" if verb == "page_focus" else verb  # what WebArena's histories call it
    if verb not in GRAMMAR:
        raise InputError(f"action {text!r:.80}: expected one of {', '.join(GRAMMAR)}, got {verb!r:.40}")
    pattern, form = GRAMMAR[verb]
    found = re.fullmatch(pattern, rest, re.DOTALL)
    if not found:
        raise InputError(f"action {text!r:.80}: expected {form}; write it so")
    fields = found.groupdict()
    enter = verb == "type" and fields["enter"] != "0"
    return Action(verb, fields.get("id") or "", fields.get("text") or "", enter)


def target_of(action: str) -> str:
    """The id of the element that an action names, in WebArena's words or as BrowserGym's call, of several calls the
    first; empty for none.

    >>> target_of("drag_and_drop(to_bid='b2', from_bid='a3')")
    'a3'
    """
    if found := _TARGET.match(action):
        return found["id"]
    try:
        body = ast.parse(action.strip()).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""
    call = body[0].value if body and isinstance(body[0], ast.Expr) else None
    if not isinstance(call, ast.Call) or ast.unparse(call.func) not in _CALLS_ON_ELEMENTS:
        return ""
    named = [*call.args[:1], *(keyword.value for keyword in call.keywords if keyword.arg in ("bid", "from_bid"))]
    return str(named[0].value) if named and isinstance(named[0], ast.Constant) else ""
