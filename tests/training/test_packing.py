"""What lies where in a packed row, worked out by hand."""

from __future__ import annotations

from collections import Counter

import torch
from hypothesis import given
from hypothesis import strategies as st

from rlvr_world.models.attention import Tree
from rlvr_world.training.packing import (
    ALL,
    Branch,
    Group,
    example,
    legal_ranges,
    micro_batches,
    pack,
    response_lengths,
)
from rlvr_world.types import Given, Rollout, Script, Write


def branch(ids: list[int], trained: list[bool] | None = None, weight: float = 1.0, **more: object) -> Branch:
    carried = trained if trained is not None else [True] * len(ids)
    return Branch(torch.tensor(ids), torch.tensor(carried), weight, **more)  # type: ignore[arg-type]


def test_a_row_of_two_groups_by_hand() -> None:
    groups = [
        Group((5, 6), (branch([10, 11, 12], [True, False, True], 0.5, advantage=2.0), branch([20], weight=0.25))),
        Group((7, 8, 9), (branch([30, 31], weight=4.0, old_logps=torch.tensor([-1.0, -2.0])),)),
    ]
    packed = pack(groups)
    # The last token of a response predicts nothing and is left out: 5 6 | 10 11 | (20) and 7 8 9 30.
    assert packed.ids_1N.tolist() == [[5, 6, 10, 11, 7, 8, 9, 30]]
    assert packed.positions_1N.tolist() == [[0, 1, 2, 3, 0, 1, 2, 3]]
    assert packed.layout.trees == (Tree(2, (2,)), Tree(4, ()))
    assert packed.layout.asked == (3, 2)  # 6 10 11 and 9 30; what stands before predicts nothing to learn from
    assert packed.layout.rows(packed.ids_1N.device).tolist() == [1, 2, 3, 6, 7]
    assert packed.source_T.tolist() == [0, 2, 0, 3, 4]
    assert packed.target_T.tolist() == [10, 12, 20, 30, 31]
    assert packed.weight_T.tolist() == [0.5, 0.5, 0.25, 4.0, 4.0]
    assert packed.advantage_T.tolist() == [2.0, 2.0, 0.0, 0.0, 0.0]
    assert packed.old_logp_T.tolist() == [0.0, 0.0, 0.0, -1.0, -2.0]
    assert packed.legal_T2 is None
    assert [group.tokens for group in groups] == [4, 4]


def test_restricted_and_free_tokens_in_one_row() -> None:
    legal = torch.tensor([[1, 4], list(ALL), [2, 9]])
    groups = [Group((5,), (branch([8, 9]),)), Group((5,), (branch([3, 7, 2], [True, False, True], legal=legal),))]
    for order, expected in ((groups, [ALL, ALL, (1, 4), (2, 9)]), (groups[::-1], [(1, 4), (2, 9), ALL, ALL])):
        packed = pack(order)
        assert packed.legal_T2 is not None
        assert [tuple(pair) for pair in packed.legal_T2.tolist()] == expected


def test_an_example_carries_loss_where_the_model_writes() -> None:
    script = Script((Given((1,)), Given((2,)), Write(5, target=(3, 4)), Given((5, 6)), Write(2, target=(7,))))
    group = example(script)
    assert group.prompt == (1, 2)
    assert group.branches[0].ids.tolist() == [3, 4, 5, 6, 7]
    assert group.branches[0].trained.tolist() == [True, True, False, False, True]


def test_legal_ranges_follow_what_was_written() -> None:
    tail = (
        Write(4, stop=(9,), allowed=range(3, 12)),
        Given((1, 2)),
        Write(2),
        Write(2, stop=(9,), allowed=range(8, 10)),
    )
    script = Script((Given((1,)), *tail))
    ids = [5, 9, 1, 2, 40, 41, 8, 8]  # stopped after one token; forced; two free; the last segment ran full
    rollout = Rollout(
        script, torch.tensor(ids), torch.ones(8, dtype=torch.bool), torch.zeros(8), ((5,), (40, 41), (8, 8)), False
    )
    legal = legal_ranges(script, response_lengths(rollout))
    assert legal is not None
    assert [tuple(pair) for pair in legal.tolist()] == [(3, 12)] * 2 + [ALL] * 4 + [(8, 10)] * 2
    free = Script((Given((1,)), Write(2)))
    assert legal_ranges(free, [2]) is None
    aimed = Script((Given((1,)), Write(4, stop=(9,), allowed=range(3, 12), target=(5, 9)), Given((1,))))
    legal = example(aimed).branches[0].legal
    assert legal is not None
    assert [tuple(pair) for pair in legal.tolist()] == [(3, 12)] * 2 + [ALL]


sizes = st.lists(st.tuples(st.integers(1, 9), st.lists(st.integers(1, 7), min_size=1, max_size=3)), max_size=12)


@given(sizes, st.integers(1, 40))
def test_micro_batches_hold_every_group_once_within_the_limit(
    shapes: list[tuple[int, list[int]]], forward_tokens: int
) -> None:
    groups = [Group((1,) * prompt, tuple(branch([2] * size) for size in members)) for prompt, members in shapes]
    batches = micro_batches(groups, forward_tokens)
    assert Counter(id(g) for batch in batches for g in batch) == Counter(id(g) for g in groups)
    for batch in batches:
        assert len(batch) == 1 or sum(g.tokens for g in batch) <= forward_tokens
        assert batch
        assert pack(batch).ids_1N.shape[1] == sum(g.tokens for g in batch)
