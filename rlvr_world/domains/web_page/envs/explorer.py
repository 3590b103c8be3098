"""What a seeded visitor does on a page: mostly clicks and types, mostly where something comes of it."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Collection

from rlvr_world.domains.web_page.outcome import quoted
from rlvr_world.domains.web_page.rows import PageState
from rlvr_world.domains.web_page.tree import Node, Page

_WEIGHTS = {
    **dict.fromkeys(("button", "link", "checkbox", "radio", "tab", "menuitem", "switch", "treeitem"), 4.0),
    **dict.fromkeys(("textbox", "searchbox", "spinbutton"), 6.0),
    **dict.fromkeys(("slider", "menuitemcheckbox", "menuitemradio", "gridcell", "listitem", "heading"), 2.0),
    **dict.fromkeys(("option", "generic", "img", "cell"), 1.0),
    "StaticText": 0.2,
}
"""How often a role is acted on; every other role never is."""
_DRAWS = 20
"""Draws of what is proposed on a page."""
_TYPED = ("textbox", "searchbox", "spinbutton")
_ENDS = re.compile(r"submit|ok|done|cancel|login", re.IGNORECASE)
_KEYS = {"slider": ("ArrowRight", "ArrowLeft"), "spinbutton": ("ArrowUp", "ArrowDown"), "combobox": ("ArrowDown",)}


def choose_action(page: Page, goal: str, acted: Collection[str], rng: random.Random, ends: float) -> str:
    """The next action, in WebArena's words, after those ``acted`` in this episode. Elements that the goal names are
    taken more often, those that were used less often, and what ends an episode ``ends`` times as often as others."""
    if rng.random() < 0.04:
        return rng.choice(("scroll [down]", "scroll [up]", "press [Tab]"))
    focused = [node for node in page.nodes if "focused: True" in node.text and node.role in _KEYS]
    if focused and rng.random() < 0.5:
        return f"press [{rng.choice(_KEYS[focused[0].role])}]"
    used = {action.split()[1] for action in acted if " " in action}
    nodes = [node for node in page.nodes if node.role in _WEIGHTS and "disabled: True" not in node.text]
    weights = [_weight(node, goal, used, ends) for node in nodes]
    if not any(weights):
        return "scroll [down]"
    node = rng.choices(nodes, weights)[0]
    if node.role in _TYPED and rng.random() < 0.85:
        text = str(rng.randrange(20)) if node.role == "spinbutton" else _words(goal, page, rng)
        return f"type [{node.id}] [{text}] [{int(rng.random() < 0.1)}]"
    return f"{'hover' if rng.random() < 0.03 else 'click'} [{node.id}]"


def proposals(state: PageState, done: Collection[str], ends: float) -> list[str]:
    """What a visitor would do on a page after those ``done``, the most frequent first, and nothing twice."""
    rng = random.Random(state.text)
    drawn = Counter(choose_action(state.page, state.goal, done, rng, ends) for _ in range(_DRAWS))
    return [action for action, _ in drawn.most_common() if action not in done]


def clicks(page: Page) -> list[str]:
    """The clicks from which something may come."""
    nodes = (node for node in page.nodes if _WEIGHTS.get(node.role, 0) >= 2 and "disabled: True" not in node.text)
    return [f"click [{node.id}]" for node in nodes]


def _weight(node: Node, goal: str, used: Collection[str], ends: float) -> float:
    role, name, _ = node.parts
    weight = _WEIGHTS[role]
    if len(name) > 4 and name[1:-1].lower() in goal.lower() and name[1:-1] != goal:
        weight *= 3
    if name[1:-1] == goal:  # the instruction itself, which pages show as text
        weight *= 0.1
    if _ENDS.fullmatch(name[1:-1]):
        weight *= ends
    return weight * (0.15 if f"[{node.id}]" in used else 1.0)


def _words(goal: str, page: Page, rng: random.Random) -> str:
    """Something to type: what the goal quotes, else one of its words, else one of the page's."""
    given = quoted(goal)
    if given and rng.random() < 0.8:
        return rng.choice(given)
    words = re.findall(r"[\w@.:/-]+", goal) or re.findall(r"\w{3,}", " ".join(node.parts[1] for node in page.nodes))
    return rng.choice(words or ["hello"])
