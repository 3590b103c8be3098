"""A change as text, and what is no change."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr_world.domains.web_page.change import NO_CHANGE, Change, read_change, write_change
from rlvr_world.types import Malformed

lines = st.builds(lambda i, name: f"[{i}] link {name!r}", st.integers(1, 999), st.text())
changes = st.builds(Change, *[st.lists(lines, max_size=4).map(tuple)] * 3)
WHOLE = "New items:\n[1] link 'a'\n\nDeleted items:\nNone\n\nUpdated items:\n[2] tab 'b'"


@given(changes, st.sampled_from(["", "<think>\nNew items: some\n</think>\n", "```\n", "New items:\nperhaps\n"]),
       st.sampled_from(["", "\n", "<|endoftext|>", "\n<｜end▁of▁sentence｜>", "</s>"]))  # fmt: skip
def test_written_and_read_back(change, before, after):
    fence = "\n```" if before.startswith("```") else ""
    before = before if change else ""
    assert read_change(before + write_change(change) + (fence if before else "") + after) == change


def test_no_change_sentence():
    assert write_change(Change()) == NO_CHANGE
    assert read_change("Nothing happens.\n" + NO_CHANGE.rstrip(".")) == Change()
    assert read_change(WHOLE.replace("[1] link 'a'", "None").replace("[2] tab 'b'", "None")) == Change()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no sections"),
        ("[1] link 'a'", "no sections"),
        (WHOLE.replace("Deleted items:\nNone\n", ""), "missing"),
        (WHOLE + "\nDeleted items:\nNone", "twice"),
        (WHOLE + "\nThese are the changes that I expect.", "no item"),
        (WHOLE + "\nNone", "None beside"),
        (WHOLE.replace("None", ""), "without items"),
        (WHOLE.replace("[2] tab 'b'", "none of them"), "no item"),
        ("x" * 200_001, "longer"),
    ],
)
def test_malformed(text, reason):
    found = read_change(text)
    assert isinstance(found, Malformed)
    assert reason in found.reason


@given(st.text() | st.lists(st.sampled_from(["New items:", "Deleted items:", "Updated items:", "None", "[1] a"])).map(
    "\n".join))  # fmt: skip
def test_never_raises(text):
    assert isinstance(read_change(text), Change | Malformed)


def test_cap():
    change = Change(("a", "b"), ("c",), ("d", "e", "f"))
    assert change.capped(2) == Change(("a", "b"), ("c",), ("d", "e"))
    assert change.capped(0) == change
