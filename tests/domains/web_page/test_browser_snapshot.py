"""Pages as text, from what Chromium's protocol says: lines, what is left out, and numbers that stay."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from rlvr_world.domains.web_page.envs.snapshot import MAX_LINES, Observation, number, observe
from rlvr_world.domains.web_page.rows import read_question
from rlvr_world.domains.web_page.tree import Node, Page, parse_page


def ax(
    key: int, role: str, name: str | None, *children: int, ignored: bool = False, **properties: Any
) -> dict[str, Any]:
    node: dict[str, Any] = {"nodeId": str(key), "backendDOMNodeId": key, "ignored": ignored, "role": {"value": role}}
    node |= {"childIds": [str(child) for child in children]}
    node["properties"] = [{"name": name, "value": {"value": value}} for name, value in properties.items()]
    return node if name is None else node | {"name": {"value": name}}


def boxes(**places: tuple[float, float, float, float]) -> dict[str, Any]:
    keys = [int(key[1:]) for key in places]
    layout = {"nodeIndex": list(range(len(keys))), "bounds": [list(box) for box in places.values()]}
    return {"documents": [{"nodes": {"backendNodeId": keys}, "layout": layout, "scrollOffsetX": 0, "scrollOffsetY": 0}]}


HERE = (0, 0, 10, 10)


def lines(tree: list[dict[str, Any]], **places: tuple[float, float, float, float]) -> list[str]:
    text = observe("Shop", tree, boxes(**places), (100, 100)).text
    assert text.startswith("Tab 0 (current): Shop\n\n")
    return text.split("\n")[2:]


def test_a_page_reads_as_webarena_writes_it():
    tree = [
        ax(1, "RootWebArea", "Shop", 2, focusable=True, focused=True, url="file:///x"),
        ax(2, "none", None, 3, ignored=True),
        ax(3, "generic", "", 4, 5, 7),
        ax(4, "heading", "It's red", level=2),
        ax(5, "textbox", "", 6, invalid="false", required=False, controls="a\nb"),
        ax(6, "StaticText", "red"),
        ax(7, "image", "shoe"),
    ]
    assert lines(tree, k3=HERE, k4=HERE, k5=HERE, k7=HERE) == [
        "[1] RootWebArea 'Shop' focused: True",
        '\t[2] heading "It\'s red"',
        "\t[3] textbox '' required: False controls: a b",
        "\t\t[4] StaticText 'red'",  # though the heading says so too, and though it has no box of its own
        "\t[5] img 'shoe'",
    ]


def test_characters_that_no_row_may_hold_are_spaces():
    tree = [ax(1, "RootWebArea", "a\u2028b", 2), ax(2, "button", "", keyshortcuts="a\x01b")]
    text = observe("A\u2028B\x85\x7f", tree, boxes(k2=HERE), (100, 100)).text
    assert text == "Tab 0 (current): A B  \n\n[1] RootWebArea 'a\\u2028b'\n\t[2] button '' keyshortcuts: a b"
    assert read_question({"state": text, "action": ""}).state.page.nodes


def test_what_is_out_of_view_or_said_before_is_left_out_and_leaves_its_children():
    tree = [
        ax(1, "RootWebArea", "Shop", 2, 4, 5),
        ax(2, "list", "far", 3),
        ax(3, "link", "near"),
        ax(4, "StaticText", "near"),
        ax(5, "button", "no box"),
    ]
    shown = lines(tree, k2=(0, 0, 10, 1000), k3=HERE, k4=HERE)
    assert shown == ["[1] RootWebArea 'Shop'", "\t[2] link 'near'"]
    assert lines(tree, k3=(95, 0, 10, 10), k4=HERE) == ["[1] RootWebArea 'Shop'", "\t[2] StaticText 'near'"]


def test_a_page_of_very_many_lines_is_cut():
    count = MAX_LINES + 5
    tree = [ax(1, "RootWebArea", "Big", *range(2, count)), *(ax(key, "link", f"l{key}") for key in range(2, count))]
    seen = observe("Big", tree, boxes(**{f"k{key}": HERE for key in range(2, count)}), (100, 100))
    assert seen.cut
    assert len(seen.page.nodes) == MAX_LINES


texts = st.lists(st.sampled_from(["button 'a'", "button 'b'", "link 'a'", "StaticText 'x'"]), max_size=12)


def page(found: list[tuple[int, Node]], before: Observation | None = None) -> Observation:
    nodes = [Node(str(i), node.text, node.depth) for (_, node), i in zip(found, number(found, before), strict=True)]
    return Observation(Page("", tuple(nodes)), tuple(key for key, _ in found))


def keyed(some: list[str], first: int) -> list[tuple[int, Node]]:
    return [(first + at, Node("", text, 1)) for at, text in enumerate(some)]


@given(texts)
def test_a_page_rendered_anew_keeps_all_its_numbers(some: list[str]):
    first = page(keyed(some, 1))
    assert page(keyed(some, 1000), first).page == first.page


@given(texts, texts, st.integers(0, 20))
def test_numbers_are_of_one_node_each_and_new_ones_follow_on(some: list[str], others: list[str], moved: int):
    before = page(keyed(some, 1))
    after = page(keyed(others, 1 + moved), before)
    ids = [int(node.id) for node in after.page.nodes]
    assert len(set(ids)) == len(ids)
    fresh = [i for i in ids if i > len(some)]
    assert fresh == list(range(len(some) + 1, len(some) + 1 + len(fresh)))
    for key, node in zip(after.keys, after.page.nodes, strict=True):
        if before.keys and key in before.keys:
            assert before.page.nodes[before.keys.index(key)].id == node.id


def test_what_is_put_in_between_gets_a_new_number_and_moves_none():
    before = page(keyed(["link 'a'", "button 'Delete'", "link 'c'", "button 'Delete'"], 1))
    shown = ["link 'new'", "button 'Delete'", "link 'a'", "button 'Delete'", "link 'c'", "button 'Delete'"]
    after = page(keyed(shown, 100), before)
    assert [node.id for node in after.page.nodes] == ["5", "6", "1", "2", "3", "4"]


def test_pages_of_the_same_line_over_and_over_are_aligned_in_order():
    before = page(keyed(["button ''"] * MAX_LINES, 1))
    after = page(keyed(["button ''"] * (MAX_LINES - 1), 10_000), before)
    assert [node.id for node in after.page.nodes] == [node.id for node in before.page.nodes[:-1]]


def test_the_text_reads_back_as_the_page():
    tree = [ax(1, "RootWebArea", "A 'b'\n\"c\" \ue60b", 2), ax(2, "button", "\\", expanded=False)]
    seen = observe("T", tree, boxes(k2=HERE), (100, 100))
    assert parse_page(seen.text) == seen.page
