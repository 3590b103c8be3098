"""A predicted page change beside the true one, with the page before and after, as a diff that a person reads."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from rlvr_world.domains.answers import printable
from rlvr_world.domains.web_page.change import Change
from rlvr_world.domains.web_page.diff import match_nodes
from rlvr_world.domains.web_page.prompt import acted_node, nearest
from rlvr_world.domains.web_page.rows import PageResult
from rlvr_world.domains.web_page.scoring import items
from rlvr_world.domains.web_page.tree import Node, Page, parse_page
from rlvr_world.types import Malformed, Transition

SHOWN = 24
"""Most nodes of a page that are shown, around the acted one."""
_WIDTH = 160


def explain_change(said: Change | Malformed, text: str, true: Change, transition: Transition) -> str:
    """The action, the change item by item, and the pages, in which a star marks the nodes that come, go or differ.

    An item starts with a space where the prediction is right, ``-`` where it missed one, ``+`` where none happened.
    """
    result: PageResult = transition.next_state
    page: Page = transition.state.page
    centre = acted_node(page, transition.action) or 0
    lines = [f"  action: {transition.action}", *([f"  error: {result.error}"] if result.error else [])]
    if isinstance(said, Malformed):
        lines += [f"+ malformed: {said.reason}", f"+ text: {text[:_WIDTH]!r}"]
        said = Change()
    predicted, wanted = items(said), items(true)
    marked = ((" ", predicted & wanted), ("-", wanted - predicted), ("+", predicted - wanted))
    body = [f"{mark} {section} {line}" for mark, found in marked for section, line in found.elements()]
    lines += body or ["  nothing changes"]
    before, after = page.nodes, parse_page(result.text).nodes
    if after:
        pairs = match_nodes(before, after)
        kept = {i: j for i, j in pairs.items() if before[i].text == after[j].text}
        lines += ["  page before:", *_page_lines(before, centre, kept)]
        lines += ["  page after:", *_page_lines(after, pairs.get(centre, 0), kept.values())]
    return "\n".join(printable(line if len(line) <= _WIDTH else f"{line[:_WIDTH]}...") for line in lines)


def _page_lines(nodes: Sequence[Node], centre: int, kept: Collection[int]) -> Iterator[str]:
    """The nodes around ``centre``, a star before those that are not at the indices ``kept``."""
    shown = nearest([1] * len(nodes), centre, SHOWN)
    for i in sorted(shown):
        yield f"    {' ' if i in kept else '*'} {'  ' * nodes[i].depth}{nodes[i].line}"
    if len(shown) < len(nodes):
        yield f"      ({len(nodes) - len(shown)} more)"
