"""A page as text: WebArena's accessibility tree, from one accessibility tree and one DOM snapshot of Chromium.

WebArena asks Chromium for the box of every node by itself, which takes seconds on a large page; one snapshot has all
boxes. Two things differ from WebArena on purpose, because without them typing and choosing would not show: what stands
in a text field is never left out as a repetition, and a closed list keeps its options, which have no box.
"""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rlvr_world.domains.row_files import NO_TEXT
from rlvr_world.domains.web_page.diff import align, pair_up
from rlvr_world.domains.web_page.tree import FIELDS, Node, Page, write_page

MAX_LINES = 2000
"""Lines kept of a page."""
_HIDDEN_PROPERTIES = {
    *("focusable", "editable", "readonly", "level", "settable", "multiline", "invalid"),  # as WebArena
    "url",  # newer Chromium
}
_HIDDEN_ROLES = {"none", "InlineTextBox", "LineBreak", "MenuListPopup"}
_HIDDEN_IF_BARE = {
    *("generic", "img", "list", "strong", "paragraph", "banner", "navigation", "Section", "LabelText", "Legend"),
    "listitem",
}
_IN_VIEW = 0.6  # share of a box that has to lie in the viewport
_MANY_PAIRS = 200_000  # equal pairs of lines from which on difflib would take seconds

Box = tuple[float, float, float, float]
"""x, y, width, height in CSS pixels."""
Keyed = tuple[int, Node]
"""Chromium's number of a DOM node, and its line."""


@dataclass(frozen=True)
class Observation:
    """A page at one moment, and for each of its nodes Chromium's number of the DOM node behind it."""

    page: Page
    keys: tuple[int, ...]
    cut: bool = False
    """More lines than MAX_LINES: the rest is missing."""

    @property
    def text(self) -> str:
        return NO_TEXT.sub(" ", write_page(self.page))

    def key(self, number: str) -> int | None:
        """The DOM node behind a number of the page."""
        return next((key for key, node in zip(self.keys, self.page.nodes, strict=True) if node.id == number), None)


NOTHING = Observation(Page("Tab 0 (current): ", (Node("1", "RootWebArea ''"),)), (0,))
"""The page of a browser that shows none."""


def observe(
    title: str,
    tree: Sequence[Mapping[str, Any]],
    snapshot: Mapping[str, Any],
    view: tuple[float, float],
    before: Observation | None = None,
) -> Observation:
    """The page as it stands; nodes that were there ``before`` keep their numbers. Out of Chromium's getFullAXTree of
    all frames, its captureSnapshot, and width and height of the viewport in CSS pixels."""
    boxes, inside = _boxes(snapshot)
    found = list(itertools.islice(_lines(tree, boxes, inside, view), MAX_LINES + 1))
    cut, found = len(found) > MAX_LINES, found[:MAX_LINES]
    nodes = (replace(node, id=str(i)) for (_, node), i in zip(found, number(found, before), strict=True))
    return Observation(Page(f"Tab 0 (current): {title}", tuple(nodes)), tuple(key for key, _ in found), cut)


def number(found: Sequence[Keyed], before: Observation | None) -> list[int]:
    """A number for every line: its old one where it was there before, else the next after the largest one there.

    A node was there before if its DOM node was, or, where the page was rendered anew, if its line aligns with one
    whose DOM node is gone. So the numbers of a page follow from its lines and the page before, and can be predicted.
    """
    known = zip(before.keys, before.page.nodes, strict=True) if before else ()
    old = {key: (int(node.id), node) for key, node in known}
    ids = [old[key][0] if key in old else 0 for key, _ in found]
    fresh = [at for at, i in enumerate(ids) if not i]
    stay = {*ids}
    gone = [(i, node) for i, node in old.values() if i not in stay]
    for a, b in _same([node for _, node in gone], [found[at][1] for at in fresh]).items():
        ids[fresh[b]] = gone[a][0]
    following = itertools.count(1 + max((i for i, _ in old.values()), default=0))
    return [i or next(following) for i in ids]


def _same(old: Sequence[Node], new: Sequence[Node]) -> dict[int, int]:
    """By index the nodes that are taken for the same: equal role and name in order, else equal role and depth in one
    place."""
    pairs: dict[int, int] = {}
    rows, columns, count = range(len(old)), range(len(new)), Counter(map(_label, new))
    if sum(count[_label(node)] for node in old) > _MANY_PAIRS:
        pair_up(old, new, rows, columns, _label, pairs)
        return pairs
    for a, b in align(old, new, rows, columns, _label, pairs):
        pair_up(old, new, a, b, lambda node: (node.role, node.depth), pairs)
    return pairs


def _label(node: Node) -> tuple[str, str]:
    return node.parts[:2]


def _lines(
    tree: Sequence[Mapping[str, Any]], boxes: Mapping[int, Box], inside: Mapping[int, int], view: tuple[float, float]
) -> Iterator[Keyed]:
    """The lines of WebArena's text, in document order; what is left out leaves its children to its parent. A frame has
    the page in it as its child."""
    by_id = {node["nodeId"]: node for node in tree}
    roots = {node.get("backendDOMNodeId", 0): node["nodeId"] for node in tree if "parentId" not in node}
    recent: deque[str] = deque(maxlen=3)
    stack = [(tree[0]["nodeId"], 0, False)] if tree else []
    while stack:
        at, depth, in_field = stack.pop()
        if at not in by_id:  # a child that Chromium has not made yet
            continue
        found = by_id[at]
        key, text = found.get("backendDOMNodeId", 0), _text(found)
        if text and (in_field or depth == 0 or _in_view(boxes.get(key), view)):
            node = Node("", text, depth)
            name = node.parts[1][1:-1]
            repeats = node.role == "StaticText" and (not name or any(name in line for line in recent))
            if in_field or not repeats:
                recent.append(text)
                yield key, node
                depth, in_field = depth + 1, in_field or node.role in FIELDS
        framed = [roots[inside[key]]] if key in inside and inside[key] in roots else []
        stack += [(child, depth, in_field) for child in reversed([*found.get("childIds", ()), *framed])]


def _text(found: Mapping[str, Any]) -> str:
    """Role, name and properties of one accessibility node; empty where WebArena has no line."""
    role, name = found["role"]["value"], found.get("name", {}).get("value")
    if found["ignored"] or name is None or role in _HIDDEN_ROLES or "backendDOMNodeId" not in found:
        return ""
    properties = "".join(
        f" {p['name']}: {' '.join(str(p['value']['value']).split())}"
        for p in found.get("properties", ())
        if p["name"] not in _HIDDEN_PROPERTIES and "value" in p["value"]
    )
    role = {"image": "img"}.get(role, role)
    if not name.strip() and role in _HIDDEN_IF_BARE and (not properties or role == "listitem"):
        return ""
    return f"{role} {name!r}{properties}"


def _in_view(box: Box | None, view: tuple[float, float]) -> bool:
    if box is None or box[2] <= 0 or box[3] <= 0:
        return False
    x, y, width, height = box
    inside = max(0.0, min(x + width, view[0]) - max(x, 0)) * max(0.0, min(y + height, view[1]) - max(y, 0))
    return inside >= _IN_VIEW * width * height


def _boxes(snapshot: Mapping[str, Any]) -> tuple[dict[int, Box], dict[int, int]]:
    """The box of every laid-out DOM node, in viewport coordinates, and of every frame the document that is in it. What
    a frame does not show has no box."""
    pages, boxes, inside = snapshot["documents"], dict[int, Box](), dict[int, int]()
    waiting: list[tuple[int, Box | None]] = [(0, None)]
    for number, frame in waiting:  # grows as frames are found
        page = pages[number]
        keys, layout = page["nodes"]["backendNodeId"], page["layout"]
        left, top = page.get("scrollOffsetX", 0), page.get("scrollOffsetY", 0)
        for at, (x, y, width, height) in zip(layout["nodeIndex"], layout["bounds"], strict=True):
            box = (x - left, y - top, width, height)
            if frame is None:
                boxes[keys[at]] = box
            elif _in_view(box, frame[2:]):
                boxes[keys[at]] = (frame[0] + box[0], frame[1] + box[1], width, height)
        frames = page["nodes"].get("contentDocumentIndex", {"index": (), "value": ()})
        for at, inner in zip(frames["index"], frames["value"], strict=True):
            inside[keys[at]] = pages[inner]["nodes"]["backendNodeId"][0]
            waiting.append((inner, boxes.get(keys[at], (0, 0, 0, 0))))
    return boxes, inside
