"""Rows out of Mind2Web's files (arXiv 2306.06070), whose pages are HTML; here they become accessibility trees:

python docs/examples/mind2web.py train_0.json ... rows.jsonl

Each file holds a list: of tasks with their ``actions``, as published, or of single steps, as Multimodal-Mind2Web has
them. A row holds one page and what was done on it; ``rlvr-world init rows.jsonl`` joins it with the page after it.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

ROLES = {"html": "RootWebArea", "a": "link", "button": "button", "select": "combobox", "option": "option"}
ROLES |= {"textarea": "textbox", "img": "image", "text": "StaticText", **{f"h{n}": "heading" for n in range(1, 7)}}
INPUTS = {"checkbox": "checkbox", "radio": "radio", "submit": "button", "button": "button", "search": "searchbox"}
NAMED = ("aria_label", "placeholder", "alt", "title")
UNSEEN, VOID = {"title", "script", "style"}, {"input", "img", "br", "hr", "meta", "link"}
NODE = "backend_node_id"


class Tree(HTMLParser):
    """The elements of a page that show something, in order. The text of links and their like is their name."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.lines: list[tuple[int, str, str, list[str], str]] = []
        """Depth, id, role, name and state of each."""
        self.open: list[tuple[str, int]] = []
        """Tags that are not closed, with the line that stands for each; -1 where nothing in them is seen."""
        self.shown: dict[str, str] = {}
        """Of each element the id of the one that stands for it: itself, or the nearest around it."""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = {key: value or "" for key, value in attrs}
        holder = self.open[-1][1] if self.open else -1
        inside = self.lines[holder] if holder >= 0 else (-1, "", "", [], "")
        role = INPUTS.get(known.get("type", ""), "textbox") if tag == "input" else ROLES.get(tag, "")
        role = known["role"] if re.fullmatch("[a-z]+", known.get("role", "")) else role
        unseen = bool(self.open) and holder < 0
        if role and not unseen and not (tag == "text" and inside[2] in ("link", "button", "option", "heading")):
            name = [known[key] for key in NAMED if known.get(key)][:1]
            states = {"checked": known.get("input_checked"), "selected": known.get("option_selected")}
            state = "".join(f" {key}: {value}" for key, value in states.items() if value)
            self.lines.append((inside[0] + 1, known.get(NODE, ""), role, name, state))
            holder = len(self.lines) - 1
            if known.get("input_value"):  # what stands in a field is a text below it
                self.lines.append((inside[0] + 2, "", "StaticText", [known["input_value"]], ""))
        if holder >= 0:
            self.shown[known.get(NODE, "")] = self.lines[holder][1]
        if tag not in VOID:
            self.open.append((tag, -1 if tag in UNSEEN else holder))

    def handle_endtag(self, tag: str) -> None:
        place = next((place for place in reversed(range(len(self.open))) if self.open[place][0] == tag), len(self.open))
        del self.open[place:]

    def handle_data(self, data: str) -> None:
        if data.strip() and self.open and self.open[-1][1] > 0:
            self.lines[self.open[-1][1]][3].append(" ".join(data.split()))

    def text(self) -> str:
        """A line a node, as web pages are read here."""
        lines = (
            (depth, f"[{at}] " * bool(at), role, " ".join(name), state) for depth, at, role, name, state in self.lines
        )
        return "\n".join("\t" * depth + f"{at}{role} {name!r}{state}" for depth, at, role, name, state in lines)


def whole(value: Any) -> Any:
    """Objects are written as JSON in the tables of Multimodal-Mind2Web."""
    return json.loads(value) if isinstance(value, str) else value


def acted(step: dict[str, Any], page: Tree) -> str:
    """What was done, on the element that is shown or the one around it; empty where the page has neither."""
    done, found = whole(step["operation"]), map(whole, step["pos_candidates"])
    number = next((page.shown[one[NODE]] for one in found if one[NODE] in page.shown), "")
    value = done.get("value") or ""
    forms = {"TYPE": f"type [{number}] [{value}] [0]", "SELECT": f"select_option({number!r}, {value!r})"}
    return forms.get(done["op"], f"click [{number}]") if number else ""


def main(files: list[Path], out: Path) -> None:
    lines, unnamed = 0, Counter[str]()
    with out.open("w") as rows:
        for record in (record for file in files for record in json.loads(file.read_text())):
            about = {"website": record["website"], "seed": record["annotation_id"], "goal": record["confirmed_task"]}
            for number, step in enumerate(record.get("actions", [record])):
                page, at = Tree(step["cleaned_html"]), int(step.get("target_action_index", number))
                action = acted(step, page)
                part = unnamed[about["seed"]]  # what follows an unknown action is joined to nothing before it
                row = {**about, "episode": part, "step": at, "axtree_txt": page.text(), "action": action or "noop()"}
                rows.write(json.dumps(row) + "\n")
                unnamed[about["seed"]] += not action
                lines += 1
    print(
        f"{out}: {lines} steps, {unnamed.total()} of them on what the page does not show; next: rlvr-world init {out}"
    )


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:-1]], Path(sys.argv[-1]))
