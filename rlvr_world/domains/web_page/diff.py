"""The true change between two pages: a minimal diff of their lines, with the ids of matched nodes carried over.

Pages that render anew give every node another id, so lines are aligned with their ids first and without them where
that leaves gaps. What stays in a gap is paired by role: an *updated* node. The rest is *deleted* or *new*. Updated
items bear the old page's id, the one that a model can know.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from itertools import count
from operator import attrgetter

from rlvr_world.domains.web_page.change import Change, bare
from rlvr_world.domains.web_page.tree import FIELDS, Node, Page

Key = Callable[[Node], Hashable]
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


def apply_change(page: Page, change: Change, acted: str = "") -> Page:
    """The page after a change by an action on the node ``acted``. Nodes keep their ids and places, updated ones too.

    New ones, for which a change has no place, stand after the acted node where nothing is gone, else after the last
    updated node, else where the first deleted one stood, else at the end.
    """
    gone = Counter(change.deleted)
    by_id = {line[1:].partition("] ")[0]: bare(line) for line in change.updated if line.startswith("[")}
    nodes: list[Node] = []
    gaps, updated, after = [], [], []
    for node in page.nodes:
        if gone[node.line]:
            gone[node.line] -= 1
            gaps.append(len(nodes))
        else:
            nodes.append(replace(node, text=by_id.get(node.id, node.text)))
            updated += [len(nodes)] * (node.id in by_id)
            after += [len(nodes)] * (acted != "" and node.id == acted)
    place = [*(after if not gaps else ()), *updated[-1:], *gaps[:1], len(nodes)][0]
    new = _new_nodes(page, change.new, nodes[place - 1] if place else None)
    return Page(page.tabs, (*nodes[:place], *new, *nodes[place:]))


def _new_nodes(page: Page, lines: Sequence[str], before: Node | None) -> list[Node]:
    """Nodes that come after ``before``, with ids that follow on the page's; one of a role that has none there has none.

    They stand beside ``before``, below the page, and a text in the field that it was typed into.
    """
    nameless = {node.role for node in page.nodes if not node.id}
    following = count(1 + max((_number(node.id) for node in page.nodes), default=0))
    depth = max(1, before.depth) if before else 0
    nodes = [Node("", bare(line), depth) for line in lines]
    if before and before.role in FIELDS and nodes and nodes[0].role == "StaticText":
        nodes = [replace(node, depth=depth + 1) for node in nodes]
    return [
        replace(node, id=str(next(following))) if line.startswith("[") or node.role not in nameless else node
        for node, line in zip(nodes, lines, strict=True)
    ]


def match_nodes(old: Sequence[Node], new: Sequence[Node]) -> dict[int, int]:
    """For the nodes of ``old`` that are still there, by index, the index in ``new``."""
    pairs: dict[int, int] = {}
    for a, b in align(old, new, range(len(old)), range(len(new)), attrgetter("line"), pairs):
        for c, d in align(old, new, a, b, attrgetter("text"), pairs):
            pair_up(old, new, c, d, _id_and_role, pairs)
            pair_up(old, new, c, d, lambda node: node.id and node.role, pairs)
    pair_up(old, new, range(len(old)), range(len(new)), _id_and_role, pairs)  # nodes that moved
    return pairs


def _number(name: str) -> int:
    """The digits at the end of a browser's id."""
    return int("0" + name[len(name.rstrip("0123456789")) :][-18:])


def _id_and_role(node: Node) -> str:
    """Empty for a node without an id, which cannot be said to be updated: nothing names it."""
    return node.id and f"{node.id} {node.role}"


def align(
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


def pair_up(
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
