"""A predicted page change beside the true one, with the page before and after, as a diff that a person reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator

from rlvr_world.domains.web_page.change import Change
from rlvr_world.domains.web_page.prompt import acted_node, nearest
from rlvr_world.domains.web_page.rows import PageResult, PageState
from rlvr_world.domains.web_page.scoring import Items, bare, items
from rlvr_world.domains.web_page.tree import Page, parse_page
from rlvr_world.types import Malformed, Transition

SHOWN = 24
"""Most nodes of a page that are shown, around the acted one."""
_WIDTH = 160


def explain_change(said: Change | Malformed, text: str, true: Change, transition: Transition) -> str:
    """The action, the change item by item, and the pages.

    An item starts with a space where the prediction is right, ``-`` where it was missed, ``+`` where it was said and
    did not happen.

    >>> print(explain_change(said, text, true, transition))
      action: click [4] where [4] is button 'Go'
      updated [4] button 'Go' focused: True
    - new StaticText 'Done'
      ...
    """
    state: PageState = transition.state
    result: PageResult = transition.next_state
    centre = acted_node(state.page, transition.action) or 0
    lines = [f"  action: {transition.action}", *([f"  error: {result.error}"] if result.error else [])]
    if isinstance(said, Malformed):
        lines += [f"+ malformed: {said.reason}", f"+ text: {text[:_WIDTH]!r}"]
        said = Change()
    lines += list(_item_lines(items(said), items(true))) or ["  nothing changes, as predicted"]
    lines += ["  page before:", *_page_lines(state.page, centre, {*true.deleted, *true.updated})]
    if result.text:
        after = parse_page(result.text)
        lines += ["  page after:", *_page_lines(after, centre, {*true.new, *true.updated})]
    return "\n".join(_clean(line) for line in lines)


def _item_lines(said: Items, true: Items) -> Iterator[str]:
    marks: list[tuple[str, Items]] = [(" ", said & true), ("-", true - said), ("+", said - true)]
    for mark, of_mark in marks:
        yield from (f"{mark} {section} {line}" for section, line in of_mark.elements())


def _page_lines(page: Page, centre: int, changed: Collection[str]) -> Iterator[str]:
    """The nodes around ``centre``; a star marks those of the change, found by their text where ids are others."""
    texts = Counter(bare(line) for line in changed)
    kept = nearest([1] * len(page.nodes), min(centre, len(page.nodes) - 1), SHOWN)
    for i in sorted(kept):
        node = page.nodes[i]
        star = "*" if node.line in changed or texts[node.text] else " "
        yield f"    {star} {'  ' * node.depth}{node.line}"
    if len(kept) < len(page.nodes):
        yield f"      ({len(page.nodes) - len(kept)} more)"


def _clean(line: str) -> str:
    """One line that any terminal or file takes, whatever characters a page holds."""
    line = line if len(line) <= _WIDTH else f"{line[:_WIDTH]}..."
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
