"""Mind2Web's recordings (Deng et al., arXiv 2306.06070): their pages are HTML, here they become accessibility trees.

    as published, a task a record    annotation_id, website, confirmed_task, actions: cleaned_html, operation, ...
    Multimodal-Mind2Web, a step      annotation_id, target_action_index, cleaned_html, operation, pos_candidates, ...
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from typing import Any

from rlvr_world.domains.row_files import OnFault, Record, parse_json, take, telling
from rlvr_world.errors import InputError

ROLES = {"html": "RootWebArea", "a": "link", "button": "button", "select": "combobox", "option": "option"}
ROLES |= {"textarea": "textbox", "img": "image", "text": "StaticText", **{f"h{n}": "heading" for n in range(1, 7)}}
INPUTS = {"checkbox": "checkbox", "radio": "radio", "submit": "button", "button": "button", "search": "searchbox"}
NAMED = ("aria_label", "placeholder", "alt", "title")
UNSEEN, VOID = {"title", "script", "style"}, {"input", "img", "br", "hr", "meta", "link"}
NODE = "backend_node_id"


def steps(records: Iterable[Record], on_fault: OnFault) -> Iterator[Record]:
    """Mind2Web's records as BrowserGym's, a page and an action each; others as they are."""
    for name, where, record in records:
        whole = "actions" in record and "annotation_id" in record
        if not whole and "cleaned_html" not in record:
            yield name, where, record
            continue
        with telling(on_fault):
            for number, given in enumerate(take(record, "actions", list, where) if whole else [record]):
                at = f"{where}, action {number}" if whole else where
                step, page = _object(given, at), _Tree()
                page.read(take(step, "cleaned_html", str, at), at)
                about = {key: record.get(key) for key in ("website", "confirmed_task")}
                about |= {"seed": record.get("annotation_id"), "step": _number(record, number)}
                yield name, at, {"axtree_txt": page.text(), "action": _action(step, page, at), **about}


def _action(step: dict[str, Any], page: _Tree, where: str) -> str | None:
    """What was done, on the element that is shown or the one around it; None where the page has neither."""
    done, *found = (_object(one, where) for one in (step.get("operation"), *step.get("pos_candidates", ())))
    number = next((page.shown[one[NODE]] for one in found if one.get(NODE) in page.shown), "")
    value = str(done.get("value", ""))
    forms = {"TYPE": f"type [{number}] [{value}] [0]", "SELECT": f"select_option({number!r}, {value!r})"}
    return forms.get(done.get("op"), f"click [{number}]") if number else None


def _object(given: Any, where: str) -> dict[str, Any]:
    text = given if isinstance(given, str) else json.dumps(given)
    return dict(parse_json(text, where, "action, operation and candidate"))


def _number(record: dict[str, Any], number: int) -> int | None:
    given = str(record.get("target_action_index", number))
    return int(given) if given.isdecimal() else None


class _Tree(HTMLParser):
    """The elements of a page that show something, in order. The text of links and their like is their name."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[int, str, str, list[str], str]] = []
        self.open: list[tuple[str, int]] = []
        """Tags that are not closed, with the line that stands for each."""
        self.shown: dict[str, str] = {}
        """Of each element the number of the one that stands for it: itself, or the nearest around it."""

    def read(self, html: str, where: str) -> None:
        try:
            self.feed(html)
        except AssertionError as error:  # of a declaration that is none
            raise InputError(f"{where}, field cleaned_html: expected HTML ({error}); download it again") from None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = {key: value or "" for key, value in attrs}
        holder = self.open[-1][1] if self.open else -1
        role = INPUTS.get(known.get("type", ""), "textbox") if tag == "input" else ROLES.get(tag, "")
        role = known["role"] if re.fullmatch(r"[a-z]+", known.get("role", "")) else role
        inside = self.lines[holder] if holder >= 0 else (-1, "", "", [], "")
        if self.open and holder < 0:
            role = ""
        if role and not (tag == "text" and inside[2] in ("link", "button", "option", "heading")):
            said = [known[key] for key in NAMED if known.get(key)][:1]
            states = {"checked": known.get("input_checked"), "selected": known.get("option_selected")}
            state = "".join(f" {key}: {value}" for key, value in states.items() if value)
            self.lines.append((inside[0] + 1, known.get(NODE, ""), role, said, state))
            holder = len(self.lines) - 1
            if known.get("input_value"):  # what stands in a field is a text below it
                self.lines.append((inside[0] + 2, "", "StaticText", [known["input_value"]], ""))
        if holder >= 0:
            self.shown[known.get(NODE, "")] = self.lines[holder][1]
        if tag not in VOID:
            self.open.append((tag, -1 if tag in UNSEEN else holder))

    def handle_endtag(self, tag: str) -> None:
        place = next((place for place in reversed(range(len(self.open))) if self.open[place][0] == tag), None)
        del self.open[len(self.open) if place is None else place :]

    def handle_data(self, data: str) -> None:
        if data.strip() and self.open and self.open[-1][1] > 0:
            self.lines[self.open[-1][1]][3].append(" ".join(data.split()))

    def text(self) -> str:
        """A line a node, as ``parse_page`` reads them."""
        lines = ((depth, f"[{at}] " * bool(at), role, " ".join(said), state) for depth, at, role, said, state in self.lines)
        return "\n".join("\t" * depth + f"{at}{role} {said!r}{state}" for depth, at, role, said, state in lines)
