"""Rows out of WebLINX's demonstrations (arXiv 2402.05930), whose pages are HTML; here they become accessibility trees:

python docs/examples/weblinx.py demonstrations rows.jsonl

Each folder in ``demonstrations`` holds ``replay.json``, the turns, and ``pages/`` as they stood before each of them. A
row holds one page and what was done on it; ``rlvr-world init rows.jsonl`` joins it with the page after it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mind2web import NODE, Tree

KEY = "data-webtasks-id"
NAMES_ITSELF = ("link", "button", "option", "heading")
TEXT = {"textInput": "text", "paste": "pasted"}


class Page(Tree):
    """A page as a browser saves it: text stands between tags, and states are attributes without a value."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        known[NODE] = known.pop(KEY, None)
        known["aria_label"] = known.get("aria-label")
        if tag == "input" and known.get("type") in ("checkbox", "radio"):
            known["input_checked"] = str("checked" in known).lower()
        elif tag == "input":
            known["input_value"] = known.get("value")
        elif tag == "option":
            known["option_selected"] = str("selected" in known).lower()
        super().handle_starttag("script" if tag in ("noscript", "template", "svg") else tag, [*known.items()])

    def handle_endtag(self, tag: str) -> None:
        super().handle_endtag("script" if tag in ("noscript", "template", "svg") else tag)

    def handle_data(self, data: str) -> None:
        holder = self.open[-1][1] if self.open else -1
        if holder >= 0 and self.lines[holder][2] in NAMES_ITSELF:
            super().handle_data(data)
        elif holder >= 0 and data.strip():
            self.lines.append((self.lines[holder][0] + 1, "", "StaticText", [" ".join(data.split())], ""))


def acted(done: dict[str, Any], page: Page) -> str | None:
    """What a turn did, on the element that is shown or the one around it; None for what the page did by itself, empty
    where what follows has nothing to do with this page."""
    intent, given = done["intent"], done["arguments"] or {}
    element = (given.get("element") or {}).get("attributes") or {}
    number = page.shown.get(element.get(KEY) or "", "")
    about = given.get("properties") or {}
    if intent == "load":  # after a click it is what the click did
        typed = about.get("transitionType") == "typed" or "from_address_bar" in about.get("transitionQualifiers", ())
        return f"goto [{about.get('url') or given.get('url')}]" if typed else None
    if intent == "scroll":
        return f"scroll [{'up' if given['scrollY'] < 0 else 'down'}]"
    if intent in ("tabcreate", "tabremove", "tabswitch"):
        return ""
    if intent in ("click", "hover"):
        return f"{intent} [{number}]" if number else ""
    if intent in TEXT:
        return f"type [{number}] [{given[TEXT[intent]]}] [0]" if number else ""
    if intent == "change":
        return f"select_option({number!r}, {given['value']!r})" if number else ""
    return None  # copy changes nothing; submit comes with the click or the key before it


def main(folder: Path, out: Path) -> None:
    lines = unnamed = 0
    with out.open("w", encoding="utf-8") as rows:
        for replay in sorted(folder.glob("*/replay.json")):
            form, goal = replay.with_name("form.json"), ""
            if form.is_file():
                goal = json.loads(form.read_text(encoding="utf-8")).get("description", "")
            part = step = 0
            for turn in json.loads(replay.read_text(encoding="utf-8"))["data"]:
                name = (turn.get("state") or {}).get("page")
                if turn["type"] != "browser" or not name:
                    part += turn["type"] == "browser"  # a page that was not kept joins nothing
                    continue
                page = Page((replay.parent / "pages" / name).read_text(encoding="utf-8", errors="replace"))
                action = acted(turn["action"], page)
                if action is None:
                    continue
                url = ((turn["action"]["arguments"] or {}).get("metadata") or {}).get("url") or ""
                about = {"website": urlsplit(url).hostname or "", "seed": replay.parent.name, "goal": goal, "url": url}
                row = {**about, "episode": part, "step": step, "axtree_txt": page.text(), "action": action or "noop()"}
                rows.write(json.dumps(row) + "\n")
                part += not action  # what follows an unknown action is joined to nothing before it
                unnamed += not action
                step, lines = step + 1, lines + 1
    print(f"{out}: {lines} steps, {unnamed} of them not on what the page shows; next: rlvr-world init {out}")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
