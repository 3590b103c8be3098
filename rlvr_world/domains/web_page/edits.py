"""Page changes as edits of numbered nodes: the compact answers.

    ~2 focused: True       node 2 has these properties now
    =3 StaticText 'x'      node 3 reads so now
    -3                     node 3 is gone (-4:9: nodes 4 to 9)
    +StaticText 'Done'     a new node
    none                   nothing changes

``@`` stands for the number of the acted node, ``*`` for that of another one that has the focus, which it is about to
lose, and ``¶`` in a name for the text that the action types: small models cannot spell.
"""

from __future__ import annotations

import re
from collections import defaultdict
from itertools import groupby

from rlvr_world.domains.answers import after_thinking
from rlvr_world.domains.web_page.actions import parse_action
from rlvr_world.domains.web_page.change import Change, bare
from rlvr_world.domains.web_page.tree import Node, Page
from rlvr_world.errors import InputError
from rlvr_world.types import Malformed

TYPED = "¶"
_UNCHANGED = "none"
_EDIT = re.compile(r"([~=])([@*]|\d+)(.*)|-([@*]|\d+)(?::(\d+))?|\+(\S.*)")
_FOCUSED = re.compile(r"\bfocused\b(?!: False)")


def node_names(page: Page, acted: int | None) -> list[str]:
    """What edits call each node: its number, or a sign. A page has the focus itself where nothing on it has."""
    names = [str(number) for number in range(1, 1 + len(page.nodes))]
    focused = [i for i, node in enumerate(page.nodes) if i and _FOCUSED.search(node.parts[2])]
    if focused:
        names[focused[-1]] = "*"
    if acted is not None:
        names[acted] = "@"
    return names


def typed_text(page: Page, action: str) -> str:
    """The text that ``TYPED`` stands for; empty where nothing is typed, or where the sign itself is in use."""
    in_use = any(TYPED in text for text in (action, *(node.text for node in page.nodes)))
    return "" if in_use or not action.startswith("type [") else parse_action(action).text


def write_edits(change: Change, page: Page, acted: int | None = None, typed: str = "") -> str:
    """A change of this page as edits: updated nodes, those with a sign first, then runs of deleted ones, then new ones.
    Raises InputError for an item that is no node of the page, as published labels have them."""
    at = defaultdict(list)
    for index, node in reversed([*enumerate(page.nodes)]):
        at[node.line].append(index)
        at[node.id].append(index)
    names = node_names(page, acted)
    updated: dict[str, str] = {}
    for line in change.updated:
        index = _place(at, line[1:].partition("] ")[0] if line.startswith("[") else "", line)
        name, now = names[index], Node("", bare(line))
        same = now.parts[:2] == page.nodes[index].parts[:2]
        updated[name] = f"~{name}{now.parts[2]}" if same else f"={name} {_signed(now.text, typed)}"
    edits = [updated.pop(sign) for sign in "@*" if sign in updated] + [*updated.values()]
    gone = sorted(_place(at, line, line) + 1 for line in change.deleted)
    for _, run in groupby(enumerate(gone), key=lambda item: item[1] - item[0]):  # neighbours have one difference
        first, *others = (number for _, number in run)
        edits.append(f"-{first}:{others[-1]}" if others else f"-{names[first - 1]}")
    return "\n".join([*edits, *(f"+{_signed(bare(line), typed)}" for line in change.new)]) or _UNCHANGED


def _place(at: dict[str, list[int]], name: str, line: str) -> int:
    """The index of the first node of this id or line that has not been named yet."""
    if not name or not at[name]:
        raise InputError(f"item {line!r:.60}: it is not on the page; compact answers need data.label=aligned")
    return at[name].pop()


def _signed(text: str, typed: str) -> str:
    """A node's text with the sign for what was typed, where its name holds that just once."""
    role, name, properties = Node("", text).parts
    if not typed or name.count(typed) != 1:
        return text
    return " ".join(filter(None, (role, name.replace(typed, TYPED)))) + properties


def read_edits(text: str, page: Page, acted: int | None = None, typed: str = "") -> Change | Malformed:
    """The change that edits state; Malformed where two are about one node. Never raises."""
    new, deleted, updated = [], [], []
    places = {name: place for place, name in enumerate(node_names(page, acted), start=1) if name in "@*"}
    touched: list[int] = []
    lines = after_thinking(text).strip().split("\n")
    for line in lines if [line.lower() for line in lines] != [_UNCHANGED] else ():
        found = _EDIT.fullmatch(line.strip())
        if not found:
            return Malformed("a line that is no edit")
        kind, at, rest, start, end, added = (part and part.replace(TYPED, typed or TYPED) for part in found.groups())
        if added:
            new.append(added)
            continue
        ends = (at or start, at or end or start)
        first, last = (places.get(name, 0) if name in "@*" else int(name[:9]) for name in ends)
        if not 0 < first <= last <= len(page.nodes):
            return Malformed("an edit of nodes that the page does not have")
        touched += range(first, last + 1)
        node = page.nodes[first - 1]
        if start:
            deleted += [node.line for node in page.nodes[first - 1 : last]]
        else:
            same = " ".join(filter(None, node.parts[:2]))
            updated.append(Node(node.id, rest.strip() if kind == "=" else same + rest).line)
    twice = len(set(touched)) < len(touched)
    return Malformed("two statements about one node") if twice else Change(tuple(new), tuple(deleted), tuple(updated))
