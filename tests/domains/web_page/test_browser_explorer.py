"""The visitor's choices: always an action that the page has, by a seed, and mostly where something comes of it."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from rlvr_world.domains.web_page.actions import parse_action
from rlvr_world.domains.web_page.envs.explorer import choose_action
from rlvr_world.domains.web_page.tree import parse_page

LOGIN = parse_page(
    "[1] RootWebArea 'Login'\n\t[2] StaticText 'Enter \"bob\"'\n\t[3] textbox 'Name'\n\t[4] button 'Submit'\n"
    "\t[5] button 'Off' disabled: True\n\t[6] checkbox 'Stay' checked: false"
)
nodes = st.tuples(
    st.sampled_from(["button", "textbox", "slider", "StaticText", "Pane", "combobox"]),
    st.text(max_size=6),
    st.sampled_from(["", " disabled: True", " focused: True"]),
)


def drawn(count: int = 300, goal: str = 'Enter "bob" and press Submit.') -> list[str]:
    return [choose_action(LOGIN, goal, [], random.Random(seed), 0.1) for seed in range(count)]


@given(st.lists(nodes, max_size=8), st.text(max_size=40), st.integers())
def test_every_action_reads_and_its_element_is_there(some: list[tuple[str, str, str]], goal: str, seed: int):
    lines = [f"[{i}] {role} {name!r}{rest}" for i, (role, name, rest) in enumerate(some, 1)]
    page = parse_page("\n".join(lines))
    action = parse_action(choose_action(page, goal, [], random.Random(seed), 0.1))
    assert not action.id or "disabled" not in page.by_id[action.id].text


def test_the_same_seed_makes_the_same_choice():
    assert drawn() == drawn()


def test_it_types_what_the_goal_quotes_and_seldom_ends_the_episode():
    verbs = Counter(action.split("] [")[0] for action in drawn())
    typed = Counter(action.split("[")[2][:-2] for action in drawn() if action.startswith("type"))
    assert typed.most_common(1)[0][0] == "bob"
    assert verbs["type [3"] > 3 * verbs["click [4]"]
    assert not verbs["click [5]"]


def test_what_was_used_is_used_less():
    again = [choose_action(LOGIN, "", ["click [6]"], random.Random(seed), 0.1) for seed in range(300)]
    first = [choose_action(LOGIN, "", [], random.Random(seed), 0.1) for seed in range(300)]
    assert again.count("click [6]") < first.count("click [6]") / 2


def test_a_page_of_nothing_but_submit_is_scrolled_where_nothing_may_end():
    page = parse_page("[1] RootWebArea 'Form'\n\t[2] button 'Submit'")
    assert {choose_action(page, "", (), random.Random(seed), 0.0).split()[0] for seed in range(50)} <= {
        "scroll",
        "press",
    }
