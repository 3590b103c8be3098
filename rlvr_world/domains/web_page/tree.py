"""Accessibility-tree text as nodes, and back: one line a node, indented by tabs (read are spaces too).

    WebArena     [12] button 'Save' focused: True        every node has a number
    BrowserGym   [a12] button 'Save', focused            ids are names, text nodes have none

Names are Python literals, so that a node is always one line. WebArena puts the open tabs and a blank line above.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cached_property

from rlvr_world.errors import InputError

_LINE = re.compile(r"([\t ]*)(?:\[([\w-]+)\] )?(\S.*)")
_TEXT = re.compile(r"(?:([A-Za-z][\w-]*)(?= |,|$))? ?(?:('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"))?(.*)")
"""Role, name (a Python literal), properties. Mind2Web's trees leave out some roles."""
FIELDS = {"textbox", "searchbox", "spinbutton", "combobox"}
"""Roles of nodes that are typed into; what stands in one is a text below it."""


@dataclass(frozen=True)
class Node:
    """One line of a page."""

    id: str
    """What actions name; empty where a node has none."""
    text: str
    """Role, name and properties, as written."""
    depth: int = 0

    @cached_property
    def parts(self) -> tuple[str, str, str]:
        """Role, name with its quotes, and properties with the separator before them; empty where there is none."""
        found = _TEXT.fullmatch(self.text)
        return (found[1] or "", found[2] or "", found[3]) if found else ("", "", self.text)

    @property
    def role(self) -> str:
        return self.parts[0]

    @property
    def line(self) -> str:
        """The node without its indent: an item of a page change."""
        return f"[{self.id}] {self.text}" if self.id else self.text


@dataclass(frozen=True)
class Page:
    """A page as a browser describes it, in document order."""

    tabs: str
    """The line of open tabs, such as ``Tab 0 (current): Dashboard``; empty where there is none."""
    nodes: tuple[Node, ...]

    @cached_property
    def by_id(self) -> dict[str, Node]:
        return {node.id: node for node in self.nodes if node.id}


def parse_page(text: str) -> Page:
    """The page that ``text`` describes, blank lines aside; a line without indent and id goes on with a value before it.
    Raises InputError, naming the line, where one is no node."""
    lines = text.split("\n")
    tabs = lines[0] if lines[0].startswith("Tab ") else ""
    nodes: list[Node] = []
    spaces: list[int] = []  # the indents, in spaces, that the present node lies below
    for number, line in enumerate(lines[bool(tabs) :], start=1 + bool(tabs)):
        if not line.strip():
            continue
        if nodes and nodes[-1].parts[2] and line[0] not in "\t [":  # only the first node has no indent: a value goes on
            nodes[-1] = replace(nodes[-1], text=f"{nodes[-1].text} {line.strip()}")
            continue
        found = _LINE.fullmatch(line)
        node = Node(found[2] or "", found[3], _depth(found[1], spaces)) if found else None
        if node is None or not (node.id or node.role):
            raise InputError(f"line {number}: expected a node such as [12] button 'Save', got {line!r:.80}")
        nodes.append(node)
    return Page(tabs, tuple(nodes))


def _depth(indent: str, spaces: list[int]) -> int:
    """How deep a line lies: its tabs, or how many of the lines above it have fewer spaces, one inside the other."""
    if " " not in indent:
        spaces.clear()
        return len(indent)
    width = len(indent.expandtabs(4))
    while spaces and spaces[-1] >= width:
        spaces.pop()
    spaces.append(width)
    return len(spaces)


def write_page(page: Page) -> str:
    """The text of a page: what ``parse_page`` reads."""
    lines = ["\t" * node.depth + node.line for node in page.nodes]
    return "\n".join([page.tabs, "", *lines] if page.tabs else lines)
