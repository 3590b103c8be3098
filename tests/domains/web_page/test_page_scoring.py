"""Strict F1 of changes."""

from hypothesis import given
from hypothesis import strategies as st

from rlvr_world.domains.web_page.change import Change
from rlvr_world.domains.web_page.scoring import score_change
from rlvr_world.types import Malformed

lines = st.builds(lambda i, n: f"[{i}] {n}", st.integers(1, 4), st.sampled_from(["link 'a'", "tab ''"]))
changes = st.builds(Change, *[st.lists(lines, max_size=4).map(tuple)] * 3)


@given(changes)
def test_the_truth_is_exact(change):
    score = score_change(change, change)
    assert (score.value, set(score.parts.values())) == (1.0, {1.0})


@given(changes, changes)
def test_bounds_and_exactness(said, true):
    score = score_change(said, true)
    assert 0 <= score.value <= 1
    assert (score.value == 1) == bool(score.parts["exact"])
    assert score.value == score_change(true, said).value


def test_counted_by_hand():
    true = Change(new=("[9] link 'n'",), deleted=("[1] tab ''",), updated=("[2] tab 'b'", "[3] tab 'c'"))
    said = Change(new=("[5] link 'n'", "[6] link 'n'"), updated=("[2] tab 'b'", "[1] tab ''"))
    score = score_change(said, true)  # the new item without its id, one update; the second link was not asked for
    assert (score.parts["precision"], score.parts["recall"], score.value) == (0.5, 0.5, 0.5)


def test_no_change():
    some = Change(updated=("[2] tab 'b'",))
    assert score_change(Change(), Change()).value == 1
    assert score_change(Change(), some).value == score_change(some, Change()).value == 0
    assert score_change(Malformed("why"), Change()).malformed == "why"


def test_no_credit_for_none():
    true = Change(updated=("[2] tab 'b'",))
    assert score_change(Change(updated=("[3] tab 'b'",)), true).value == 0
