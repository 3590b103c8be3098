"""Our labels: minimal, with the old page's ids, in bounded time."""

import gzip
import json
import random
import time
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr_world.domains.web_page.change import Change
from rlvr_world.domains.web_page.diff import match_nodes, page_change
from rlvr_world.domains.web_page.tree import Node, Page, parse_page

texts = st.lists(st.sampled_from(["link 'a'", "link 'b'", "button 'a'", "tab ''", "StaticText 'x'"]), max_size=12)


def page(lines, first=1):
    return Page("", tuple(Node(str(first + i), text) for i, text in enumerate(lines)))


def changed(before, after):
    return page_change(parse_page(before), parse_page(after))


@given(texts)
def test_other_ids_are_no_change(lines):
    assert page_change(page(lines), page(lines, first=100)) == Change()


@given(texts, texts, st.booleans())
def test_the_change_leads_to_the_next_page(before, after, renumbered):
    """Without the deleted, with the updated and new lines, the old page has the next one's texts."""
    old, new = page(before), page(after, first=100 if renumbered else 1)
    change = page_change(old, new)
    text = {node.line: node.text for node in (*old.nodes, *new.nodes)}
    ids = {line.split("]")[0] for line in change.updated}
    left = [n.text for n in old.nodes if n.line not in change.deleted and n.line.split("]")[0] not in ids]
    assert Counter(left + [line.split("] ")[1] for line in change.updated] + [text[line] for line in change.new]) == (
        Counter(after)
    )


def test_ids_of_matched_nodes_are_carried_over():
    old = "[1] RootWebArea 'A'\n\t[2] link 'x'\n\t[3] button 'OK'\n\t[4] StaticText 'old'"
    new = "[51] RootWebArea 'A'\n\t[52] link 'x'\n\t[53] button 'OK' focused: True\n\t[54] link 'y'"
    assert changed(old, new) == Change(
        new=("[54] link 'y'",), deleted=("[4] StaticText 'old'",), updated=("[3] button 'OK' focused: True",)
    )


def test_stable_ids_tell_equal_lines_apart():
    old = "[1] list ''\n\t[2] link 'x'\n\t[3] link 'x'\n\t[4] link 'x'"
    assert changed(old, "[1] list ''\n\t[3] link 'x'\n\t[4] link 'x'").deleted == ("[2] link 'x'",)


def test_a_node_that_moved_is_no_change():
    assert changed("[1] link 'a'\n[2] link 'b'\n[3] tab 'c'", "[2] link 'b'\n[3] tab 'c'\n[1] link 'a'") == Change()


def test_nodes_without_ids_are_never_updated():
    change = changed("[1] button 'a'\n\tStaticText 'a'", "[1] button 'b'\n\tStaticText 'b'")
    assert change == Change(("StaticText 'b'",), ("StaticText 'a'",), ("[1] button 'b'",))


@settings(max_examples=30)
@given(texts, texts)
def test_matches_are_pairs(before, after):
    pairs = match_nodes(page(before).nodes, page(after, first=100).nodes)
    assert len(set(pairs.values())) == len(pairs)


def test_a_page_of_20000_lines():
    """Bounded, also where nearly all lines are alike and all ids new."""
    draw = random.Random(0)
    old = page([f"cell '{draw.randrange(9)}'" for _ in range(20_000)])
    new = page([n.text for n in old.nodes if draw.random() < 0.99], first=100_000)
    start = time.perf_counter()
    change = page_change(old, new)
    assert time.perf_counter() - start < 20
    assert len(change) < 20_000


def test_published_labels_are_far_from_minimal(shared):
    """On real steps our change is a small part of the page, and none where the page is the same."""
    for line in gzip.decompress((shared / "data/web/generated.jsonl.gz").read_bytes()).splitlines():
        row = json.loads(line)
        old, new = parse_page(row["observation"]), parse_page(row["next_observation"])
        change = page_change(old, new)
        assert bool(change) == ([n.text for n in old.nodes] != [n.text for n in new.nodes])
        assert {line.split("]")[0] for line in change.updated} <= {f"[{node.id}" for node in old.nodes}
