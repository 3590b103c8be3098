"""What a web-page model reads and what it writes, in three styles.

``published``: one user message for a pretrained model, with the parts and their order of RLVR-World's prompt (the
wording is this project's), and an answer in the published sections with the browser's ids.

``row``: the same answer, asked for in the row's own words.

``compact``: for small models that see nothing but such pages, answered by ``edits``. Nodes are numbered on each page,
because browser ids are long and arbitrary; the numbers stand at the end, where a causal model knows what they name:

    RootWebArea 'Shop' #1
    textbox '' required: False #2
    button 'Go' #@
    click @ button 'Go'

``outcome``: the same with the goal, where the page does not show it, and a sign after nodes that it names and after an
action on such a node or of text that it quotes; the answer ends with how the episode stands (see ``outcome``).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal

from rlvr_world.domains.web_page.actions import parse_action, target_of
from rlvr_world.domains.web_page.change import Change, read_change, write_change
from rlvr_world.domains.web_page.edits import node_names, read_edits, typed_text, write_edits
from rlvr_world.domains.web_page.outcome import SIGN, place, quoted, split_outcome, with_outcome
from rlvr_world.domains.web_page.rows import PageState
from rlvr_world.domains.web_page.tree import Page
from rlvr_world.errors import InputError
from rlvr_world.types import Malformed

Style = Literal["row", "published", "compact", "outcome"]
COMPACT = ("compact", "outcome")
LEFT_OUT = "..."
"""Stands where lines of a page, or the end of a line, are left out."""
LONGEST = 200
"""Longest line that compact prompts show whole, in characters."""
INSTRUCTIONS = Path(__file__).with_suffix(".txt").read_text()


def build_prompt(state: PageState, action: str, style: Style, kept: Collection[int] | None = None) -> str:
    """The prompt; of a long page only the nodes at the indices ``kept`` are shown."""
    acted = acted_node(state.page, action)
    lines = page_lines(state, style, acted)
    if kept is not None:
        told = [i for i in range(len(lines)) if i == 0 or i in kept or i - 1 in kept]
        lines = [lines[i] if i in kept else LEFT_OUT for i in told]
    page = "\n".join([state.page.tabs, *lines] if state.page.tabs else lines)
    if style in COMPACT:
        shown = style == "compact" or any(node.parts[1][1:-1] == state.goal for node in state.page.nodes)
        goal = "" if shown else f"{state.goal!r}\n"
        sign = f" {SIGN}" if style == "outcome" and aim(state, action) >= 0 else ""
        return f"{goal}{page}\n{_compact_action(action, state.page, acted)}{sign}\n"
    return (
        f"{INSTRUCTIONS}\nURL: {state.url}\nOBJECTIVE: {state.goal}\nPREVIOUS ACTION: {state.previous or 'None'}\n"
        f"CURRENT OBSERVATION:\n{page}\n\nCURRENT ACTION: {told_action(state.page, action)}\n"
    )


def told_action(page: Page, action: str) -> str:
    """The action with the element that it names: ``click [12] where [12] is link 'Cart'``."""
    acted, verb = acted_node(page, action), action.partition(" where [")[0]
    return verb if acted is None else f"{verb} where [{page.nodes[acted].id}] is {page.nodes[acted].text}"


def page_lines(state: PageState, style: Style, acted: int | None) -> list[str]:
    """A line for each node."""
    nodes = state.page.nodes
    if style not in COMPACT:
        return ["\t" * node.depth + node.line for node in nodes]
    signs = [SIGN if style == "outcome" and place(state.goal, node) >= 0 else "" for node in nodes]
    numbered = zip(nodes, node_names(state.page, acted), signs, strict=True)
    return [f"{_short(node.text)} #{name}{sign}" for node, name, sign in numbered]


def aim(state: PageState, action: str) -> int:
    """Where the goal quotes the text that an action types or, where it types none, names the node that it is on."""
    if text := typed_text(state.page, action):
        return state.goal.find(f'"{text}"') if text in quoted(state.goal) else -1
    node = acted_node(state.page, action)
    return -1 if node is None else place(state.goal, state.page.nodes[node])


def acted_node(page: Page, action: str) -> int | None:
    """The index of the node that the action names; None where it names none, or one that is not on the page."""
    node = page.by_id.get(target_of(action))
    return None if node is None else page.nodes.index(node)


def nearest(sizes: Sequence[int], centre: int, room: int) -> set[int]:
    """As many indices around ``centre`` as ``room`` holds, nearest first; ``centre`` always, then the first."""
    kept: set[int] = set()
    for i in dict.fromkeys([centre, 0, *sorted(range(len(sizes)), key=lambda i: (abs(i - centre), i))]):
        room -= sizes[i]
        if room < 0 and kept:
            break
        kept.add(i)
    return kept


def _compact_action(action: str, page: Page, acted: int | None) -> str:
    """The action with its text as names are written, and the line of its node."""
    node = "" if acted is None else f" @ {_short(page.nodes[acted].text)}"
    try:
        done = parse_action(action)
    except InputError:  # BrowserGym's calls, and what rows with prompts of their own may have
        return action + node
    text = f" {done.text!r}" if done.text or done.verb == "type" else ""
    return f"{done.verb}{text}{' 1' if done.enter else ''}{node}"


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else text[:LONGEST] + LEFT_OUT


def build_answer(change: Change, state: PageState, action: str, style: Style, outcome: str = "") -> str:
    """The text that states this change. Raises InputError without an ``outcome`` that the style has."""
    if style not in COMPACT:
        return write_change(change)
    edits = write_edits(change, state.page, acted_node(state.page, action), typed_text(state.page, action))
    if style == "compact":
        return edits
    if not outcome:
        raise InputError("it does not say how its episode stands; give rows with done and reward")
    return with_outcome(edits, outcome)


def read_answer(text: str, state: PageState, action: str, style: Style) -> Change | Malformed:
    """The change that an answer states. Never raises."""
    if style not in COMPACT:
        return read_change(text)
    if style == "outcome":
        text, outcome = split_outcome(text)
        if not outcome:
            return Malformed("no outcome")
    return read_edits(text, state.page, acted_node(state.page, action), typed_text(state.page, action))
