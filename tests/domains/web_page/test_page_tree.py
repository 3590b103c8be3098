"""Accessibility-tree text: what is read is written back, and what is no tree is refused."""

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr_world.domains.web_page.tree import Node, Page, parse_page, write_page
from rlvr_world.errors import InputError

names = st.text().map(repr)
nodes = st.builds(
    lambda number, role, name, rest, depth: Node(number, f"{role} {name}{rest}", depth),
    st.integers(1, 10**9).map(str),
    st.sampled_from(["link", "StaticText", "graphics-symbol"]),
    names,
    st.sampled_from(["", " focused: True", ", value='x', focused"]),
    st.integers(0, 9),
)


@given(st.lists(nodes, min_size=1), st.sampled_from(["", "Tab 0 (current): A | Tab 1: B"]))
def test_written_and_read_back(found, tabs):
    page = Page(tabs, tuple(found))
    assert parse_page(write_page(page)) == page


@given(names, st.sampled_from(["", " focused: True", ", focused"]))
def test_parts(name, rest):
    assert Node("1", f"button {name}{rest}").parts == ("button", name, rest)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("generic, live='polite', atomic", ("generic", "", ", live='polite', atomic")),
        ("'Car' selected: False", ("", "'Car'", " selected: False")),
        ("RootWebArea", ("RootWebArea", "", "")),
        ("textbox '' required: False", ("textbox", "''", " required: False")),
    ],
)
def test_variants(text, parts):
    assert Node("1", text).parts == parts


def test_spaces_are_read_as_indents():
    page = parse_page(
        "[1] main ''\n    [2] list ''\n        [3] link 'a'\n    [4] list ''\n  [5] link 'b'\n[6] link 'c'"
    )
    assert [node.depth for node in page.nodes] == [0, 1, 2, 1, 1, 0]
    assert parse_page(write_page(page)) == page


def test_nodes_without_ids():
    page = parse_page("RootWebArea 'A', focused\n\t[a12] button 'B'\n\t\tStaticText 'B'")
    assert [(n.id, n.role, n.depth) for n in page.nodes] == [
        ("", "RootWebArea", 0),
        ("a12", "button", 1),
        ("", "StaticText", 2),
    ]


@pytest.mark.parametrize("line", ["<div>", "[1]", "12 items"])
def test_what_is_no_node(line):
    with pytest.raises(InputError, match="line 2"):
        parse_page(f"[1] RootWebArea 'A'\n{line}")


def test_a_value_of_several_lines_makes_no_nodes():
    page = parse_page("[1] RootWebArea 'A'\n\t[2] textbox 'Note' value: one\ntwo 'b', three\n\n4\n\t[3] button 'Go'")
    assert [node.text for node in page.nodes][1:] == ["textbox 'Note' value: one two 'b', three 4", "button 'Go'"]
    assert parse_page(write_page(page)) == page


def test_every_real_page(shared):
    pages = 0
    for name in ("real", "generated"):
        for line in gzip.decompress((shared / f"data/web/{name}.jsonl.gz").read_bytes()).splitlines():
            row = json.loads(line)
            for text in (row["observation"], row["next_observation"]):
                assert write_page(parse_page(text)) == text
                pages += 1
    assert pages > 500
