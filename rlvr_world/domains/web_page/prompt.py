"""What a web-page model reads and what it writes, in two styles.

``published``: one user message for a pretrained model, with the parts and their order of RLVR-World's prompt (the
wording is this project's), and an answer in the published sections with the browser's ids.

``compact``: for small models that see nothing but such pages. Nodes are numbered on each page, because browser ids are
long and arbitrary; the numbers stand at the end, where a causal model knows what they name. The acted node is ``@``,
and ``*`` is another one that has the focus, which it is about to lose. The answer says what to edit, and ``¶`` in a
name is the text that the action types:

    RootWebArea 'Shop' #1          ~2 focused: True        node 2 has these properties now
    textbox '' required: False #2  =3 StaticText 'x'       node 3 reads so now
    StaticText 'y' #3              -3                      node 3 is gone (-4:9: nodes 4 to 9)
    button 'Go' #@                 +StaticText 'Done'      a new node
    click @ button 'Go'            none                    nothing changes
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from itertools import groupby
from typing import Literal

from rlvr_world.domains.web_page.actions import GRAMMAR, parse_action, target_of
from rlvr_world.domains.web_page.change import Change, read_change, write_change
from rlvr_world.domains.web_page.rows import PageState
from rlvr_world.domains.web_page.scoring import bare
from rlvr_world.domains.web_page.tree import Node, Page
from rlvr_world.errors import InputError
from rlvr_world.types import Malformed

Style = Literal["published", "compact"]
LEFT_OUT = "..."
"""Stands where lines of a page that is too long are left out, and for the end of a line that is."""
LONGEST = 200
"""Longest line that compact prompts show whole, in characters: what a paragraph says matters less than that it is."""
TYPED = "¶"
"""Stands for the typed text in compact answers: that it appears matters, and small models cannot spell."""
_UNCHANGED = "none"
_EDIT = re.compile(r"([~=])([@*]|\d+)(.*)|-([@*]|\d+)(?::(\d+))?|\+(\S.*)")
_FOCUSED = re.compile(r"\bfocused\b(?!: False)")

INSTRUCTIONS = """\
You predict how a web page changes when an agent acts on it.

You are given the address and the agent's objective, its previous action, the page as an accessibility tree, and the \
action that it takes now. A line of the tree is an element: [id] role 'name' and properties, indented below its parent.

The agent's actions:
click [id], hover [id]: click on the element, or move over it.
type [id] [text] [1]: type the text into the element and press Enter; with [0] at the end Enter is not pressed.
press [keys]: press a combination of keys, such as Control+v.
scroll [up] or scroll [down]
new_tab, tab_focus [number], close_tab: open a tab, go to one, close the present one.
goto [url], go_back, go_forward: load a page, or move in the history.
stop [answer]: the task is done.

Answer with three sections in this order, with an empty line between them. New items are elements that the next page \
has in addition, Deleted items are elements of this page that are gone, Updated items are elements of this page as \
they read afterwards. Write each item as a line of the tree without its indent, and None in a section without items. \
If nothing changes, answer only: Previous Action did not make any changes.

An example of an answer:
New items:
[84] StaticText 'Your cart has 1 item'

Deleted items:
None

Updated items:
[31] button 'Added' focused: True disabled: True
"""


def build_prompt(state: PageState, action: str, style: Style, kept: Collection[int] | None = None) -> str:
    """The prompt; of a long page only the nodes at the indices ``kept`` are shown."""
    acted = acted_node(state.page, action)
    page = "\n".join(_shown(page_lines(state.page, style, acted), kept))
    if style == "compact":
        return f"{page}\n{_compact_action(action, state.page, acted)}\n"
    verb = action.partition(" where [")[0]
    where = "" if acted is None else f" where [{state.page.nodes[acted].id}] is {state.page.nodes[acted].text}"
    return (
        f"{INSTRUCTIONS}\nURL: {state.url}\nOBJECTIVE: {state.goal}\nPREVIOUS ACTION: {state.previous or 'None'}\n"
        f"CURRENT OBSERVATION:\n{page}\n\nCURRENT ACTION: {verb}{where}\n"
    )


def page_lines(page: Page, style: Style, acted: int | None) -> list[str]:
    """A line for each node."""
    if style == "compact":
        names = _names(page, acted)
        return [f"{_short(node.text)} #{name}" for node, name in zip(page.nodes, names, strict=True)]
    return ["\t" * node.depth + node.line for node in page.nodes]


def acted_node(page: Page, action: str) -> int | None:
    """The index of the node that the action names; None where it names none, or one that is not on the page."""
    node = page.by_id.get(target_of(action))
    return None if node is None else page.nodes.index(node)


def nearest(sizes: Sequence[int], centre: int, room: int) -> set[int]:
    """As many indices around ``centre`` as ``room`` holds, nearest first; ``centre`` always, then the first.

    >>> sorted(nearest([1, 1, 1, 1, 1, 1], centre=3, room=4))
    [0, 2, 3, 4]
    """
    kept: set[int] = set()
    for i in dict.fromkeys([centre, 0, *sorted(range(len(sizes)), key=lambda i: (abs(i - centre), i))]):
        room -= sizes[i]
        if room < 0 and kept:
            break
        kept.add(i)
    return kept


def _shown(lines: Sequence[str], kept: Collection[int] | None) -> Iterator[str]:
    for i, line in enumerate(lines):
        if kept is None or i in kept:
            yield line
        elif i - 1 in kept or i == 0:
            yield LEFT_OUT


def _names(page: Page, acted: int | None) -> list[str]:
    """What edits call each node: its number, or a sign. A page has the focus itself where nothing on it has."""
    names = [str(number) for number in range(1, 1 + len(page.nodes))]
    focused = [i for i, node in enumerate(page.nodes) if i and _FOCUSED.search(node.parts[2])]
    if focused:
        names[focused[-1]] = "*"
    if acted is not None:
        names[acted] = "@"
    return names


def _compact_action(action: str, page: Page, acted: int | None) -> str:
    """The action with its text as names are written, and the line of its node."""
    node = "" if acted is None else f" @ {_short(page.nodes[acted].text)}"
    if not action.startswith(tuple(f"{verb} [" for verb in GRAMMAR)):
        return action + node  # BrowserGym's calls, and actions of one word
    done = parse_action(action)
    text = f" {done.text!r}" if done.text or done.verb == "type" else ""
    return f"{done.verb}{text}{' 1' if done.enter else ''}{node}"


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else text[:LONGEST] + LEFT_OUT


# Answers


def build_answer(change: Change, state: PageState, action: str, style: Style) -> str:
    """The text that states this change."""
    if style == "published":
        return write_change(change)
    return write_edits(change, state.page, acted_node(state.page, action), _typed(state.page, action))


def read_answer(text: str, state: PageState, action: str, style: Style) -> Change | Malformed:
    """The change that an answer states. Never raises."""
    if style == "published":
        return read_change(text)
    return read_edits(text, state.page, acted_node(state.page, action), _typed(state.page, action))


def _typed(page: Page, action: str) -> str:
    """The text that ``TYPED`` stands for; empty where nothing is typed, or where the sign itself is in use."""
    if not action.startswith("type [") or any(TYPED in text for text in (action, *(node.text for node in page.nodes))):
        return ""
    return parse_action(action).text


def write_edits(change: Change, page: Page, acted: int | None = None, typed: str = "") -> str:
    """A change of this page as edits: updated nodes, those with a sign first, then runs of deleted ones, then new ones.

    Raises InputError for an item that is no node of the page, as published labels have them.
    """
    at = defaultdict(list)
    for index in reversed(range(len(page.nodes))):
        at[page.nodes[index].line].append(index)
        at[page.nodes[index].id].append(index)
    names = _names(page, acted)
    updated: dict[str, str] = {}
    gone: list[int] = []
    for line in change.updated:
        index = _place(at, line[1:].partition("] ")[0] if line.startswith("[") else "", line)
        updated[names[index]] = _edit(page.nodes[index], names[index], bare(line), typed)
    edits = [updated.pop(sign) for sign in "@*" if sign in updated] + [*updated.values()]
    for line in change.deleted:
        gone.append(_place(at, line, line) + 1)
    runs = groupby(enumerate(sorted(gone)), key=lambda item: item[1] - item[0])  # neighbours have one difference
    for _, run in runs:
        numbers = [number for _, number in run]
        edits.append(f"-{numbers[0]}:{numbers[-1]}" if len(numbers) > 1 else f"-{names[numbers[0] - 1]}")
    return "\n".join([*edits, *(f"+{_signed(bare(line), typed)}" for line in change.new)]) or _UNCHANGED


def _place(at: dict[str, list[int]], name: str, line: str) -> int:
    """The index of the first node of this id or line that has not been named yet."""
    if not name or not at[name]:
        raise InputError(f"item {line!r:.60}: it is not on the page; compact answers need data.label=aligned")
    return at[name].pop()


def _edit(node: Node, number: str, text: str, typed: str) -> str:
    now = Node("", text).parts
    return f"~{number}{now[2]}" if now[:2] == node.parts[:2] else f"={number} {_signed(text, typed)}"


def _signed(text: str, typed: str) -> str:
    """A node's text with the sign for what was typed, where its name holds that just once."""
    role, name, properties = Node("", text).parts
    if not typed or name.count(typed) != 1:
        return text
    return " ".join(filter(None, (role, name.replace(typed, TYPED)))) + properties


def read_edits(text: str, page: Page, acted: int | None = None, typed: str = "") -> Change | Malformed:
    """The change that edits state. Never raises."""
    new, deleted, updated = [], [], []
    places = {name: place for place, name in enumerate(_names(page, acted), start=1) if name in "@*"}
    lines = text.strip().split("\n")
    for line in lines if lines != [_UNCHANGED] else ():
        found = _EDIT.fullmatch(line.strip())
        if not found:
            return Malformed("a line that is no edit")
        kind, at, rest, start, end, added = (part and part.replace(TYPED, typed or TYPED) for part in found.groups())
        if added:
            new.append(added)
            continue
        first, last = (
            places.get(name, 0) if name in "@*" else int(name[:9]) for name in (at or start, at or end or start)
        )
        if not 0 < first <= last <= len(page.nodes):
            return Malformed("an edit of nodes that the page does not have")
        if start:
            deleted += [node.line for node in page.nodes[first - 1 : last]]
            continue
        node = page.nodes[first - 1]
        same = " ".join(filter(None, node.parts[:2]))
        updated.append(Node(node.id, rest.strip() if kind == "=" else same + rest).line)
    return Change(tuple(new), tuple(deleted), tuple(updated))
