"""The true change between two pages: a minimal diff of their lines, with the ids of matched nodes carried over.

Pages that render anew give every node another id, so lines are aligned with their ids first and without them where
that leaves gaps. What stays in a gap is paired by role: an *updated* node. The rest is *deleted* or *new*. Updated
items bear the old page's id, the one that a model can know.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from itertools import count

from rlvr_world.domains.web_page.change import Change
from rlvr_world.domains.web_page.scoring import bare
from rlvr_world.domains.web_page.tree import Node, Page

Key = Callable[[Node], str]
EXACT_UP_TO = 2000
"""Longest pages, in nodes, that are aligned with every line considered; of longer ones frequent lines are ignored,
because the time that they take grows with the square."""


def page_change(old: Page, new: Page) -> Change:
    """What differs on ``new``, in document order.

    >>> page_change(parse_page("[1] link 'a'\\n[2] button 'b'"), parse_page("[8] link 'a'\\n[9] button 'c'"))
    Change(new=(), deleted=(), updated=("[2] button 'c'",))
    """
    pairs = match_nodes(old.nodes, new.nodes)
    partner = {j: i for i, j in pairs.items()}
    updated = {i: Node(old.nodes[i].id, new.nodes[j].text).line for i, j in pairs.items()}
    return Change(
        new=tuple(node.line for j, node in enumerate(new.nodes) if j not in partner),
        deleted=tuple(node.line for i, node in enumerate(old.nodes) if i not in pairs),
        updated=tuple(updated[i] for i, node in enumerate(old.nodes) if i in pairs and updated[i] != node.line),
    )


def apply_change(page: Page, change: Change) -> Page:
    """The page after a change. Updated nodes keep their place; new ones, for which a change has no place, stand where
    the first deleted one stood, else at the end, one level below the page.

    >>> apply_change(parse_page("[1] main\\n\\t[2] button 'b'"), Change(updated=("[2] button 'c'",))).nodes[1].text
    "button 'c'"
    """
    gone = Counter(change.deleted)
    by_id = {line[1:].partition("] ")[0]: bare(line) for line in change.updated if line.startswith("[")}
    nodes: list[Node] = []
    place: int | None = None
    for node in page.nodes:
        if gone[node.line]:
            gone[node.line] -= 1
            place = len(nodes) if place is None else place
        else:
            nodes.append(replace(node, text=by_id.get(node.id, node.text)))
    place = len(nodes) if place is None else place
    depth = max(1, nodes[place - 1].depth) if place else 0
    known = {node.id for node in page.nodes}
    fresh = (name for name in map(str, count(1 + max(map(_number, known), default=0))) if name not in known)
    new = [Node(next(fresh) if line.startswith("[") else "", bare(line), depth) for line in change.new]
    return Page(page.tabs, (*nodes[:place], *new, *nodes[place:]))


def match_nodes(old: Sequence[Node], new: Sequence[Node]) -> dict[int, int]:
    """For the nodes of ``old`` that are still there, by index, the index in ``new``."""
    pairs: dict[int, int] = {}
    for a, b in _gaps(old, new, range(len(old)), range(len(new)), _line, pairs):
        for c, d in _gaps(old, new, a, b, _text, pairs):
            _pair(old, new, c, d, _id_and_role, pairs)
            _pair(old, new, c, d, _role, pairs)
    _pair(old, new, range(len(old)), range(len(new)), _id_and_role, pairs)  # nodes that moved
    return pairs


def _number(name: str) -> int:
    """The digits at the end of a browser's id."""
    digits = name[len(name.rstrip("0123456789")) :]
    return int(digits or 0)


def _line(node: Node) -> str:
    return node.line


def _text(node: Node) -> str:
    return node.text


def _role(node: Node) -> str:
    return node.id and node.role  # a node without an id cannot be said to be updated: nothing names it


def _id_and_role(node: Node) -> str:
    return node.id and f"{node.id} {node.role}"


def _gaps(
    old: Sequence[Node], new: Sequence[Node], rows: range, columns: range, key: Key, pairs: dict[int, int]
) -> Iterator[tuple[range, range]]:
    """Aligns the nodes at these indices by their keys into ``pairs``; yields what lies between the aligned runs."""
    if not rows or not columns:
        return
    a, b = [key(old[i]) for i in rows], [key(new[j]) for j in columns]
    matcher = SequenceMatcher(None, a, b, autojunk=len(a) > EXACT_UP_TO or len(b) > EXACT_UP_TO)
    i = j = 0
    for start, start_new, size in matcher.get_matching_blocks():
        if i < start and j < start_new:
            yield rows[i:start], columns[j:start_new]
        pairs.update((rows[start + k], columns[start_new + k]) for k in range(size))
        i, j = start + size, start_new + size


def _pair(
    old: Sequence[Node], new: Sequence[Node], rows: range, columns: range, key: Key, pairs: dict[int, int]
) -> None:
    """Pairs what is still alone, in order, where the keys are equal and not empty."""
    taken, waiting = set(pairs.values()), defaultdict(list)
    for j in reversed(columns):
        if j not in taken:
            waiting[key(new[j])].append(j)
    for i in rows:
        if i not in pairs and (name := key(old[i])) and waiting[name]:
            pairs[i] = waiting[name].pop()
