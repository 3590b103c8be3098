"""Strict F1 of changes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr_world.domains.web_page.change import Change, f_beta, score_change
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


@given(changes, changes, st.floats(0.1, 10))
def test_beta_weighs_recall_in_the_reward_and_leaves_the_parts(said, true, beta):
    score, plain = score_change(said, true, beta), score_change(said, true)
    assert score.parts == plain.parts
    assert plain.value == plain.parts["f1"]
    precision, recall = score.parts["precision"], score.parts["recall"]
    if precision and recall:  # by its definition: a weighted mean of inverses
        assert 1 / score.value == pytest.approx((1 / precision + beta**2 / recall) / (1 + beta**2))
    if beta > 1 and recall != precision and precision and recall:
        assert (score.value > plain.value) == (recall > precision)
    assert f_beta(precision, recall, beta) == score.value


def test_no_change():
    some = Change(updated=("[2] tab 'b'",))
    assert score_change(Change(), Change()).value == 1
    assert score_change(Change(), some).value == score_change(some, Change()).value == 0
    assert score_change(Malformed("why"), Change()).malformed == "why"


def test_no_credit_for_none():
    true = Change(updated=("[2] tab 'b'",))
    assert score_change(Change(updated=("[3] tab 'b'",)), true).value == 0
