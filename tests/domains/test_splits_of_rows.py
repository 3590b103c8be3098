"""Rows kept apart by question, episode or world, and the mix that RL draws from: the same for text and pages."""

from __future__ import annotations

from collections import Counter

import pytest

from rlvr_world.domains.splits import WorldSplitRule, held_out, mix_unchanged, split_rows
from rlvr_world.errors import InputError
from rlvr_world.types import Transition


def row(number: int, world: str = "w0", action: str = "look") -> Transition:
    return Transition(str(number), None, action, None, world=world)


def unit(transition: Transition) -> str:
    return f"{transition.world} {transition.action}"


def test_worlds_are_held_out_whole():
    rows = [row(i, world=f"w{i % 5}", action=str(i)) for i in range(20)]
    train, valid, test = split_rows(rows, WorldSplitRule(0.0, 0.0, 3, worlds=0.4), unit)
    assert len({r.world for r in test}) == 2
    assert not {r.world for r in test} & {r.world for r in train}
    assert not valid
    assert len(train) + len(test) == 20
    assert split_rows(rows, WorldSplitRule(0.0, 0.0, 3, worlds=0.4), unit) == (train, valid, test)
    held = [held_out([f"w{i}" for i in range(5)], 0.4, seed, "worlds") for seed in range(9)]
    assert len({tuple(sorted(names)) for names in held}) > 1
    for bad in (1.5, -0.1):
        with pytest.raises(InputError, match="less than 1"):
            held_out(["a", "b"], bad, 0, "worlds")


def test_no_unit_is_on_two_sides():
    rows = [row(i, action=f"a{i % 10}") for i in range(40)]
    train, valid, test = split_rows(rows, WorldSplitRule(0.2, 0.1, 0), unit)
    assert (len(train), len(valid), len(test)) == (28, 4, 8)
    sides = [{unit(r) for r in part} for part in (train, valid, test)]
    assert len(sides[0] | sides[1] | sides[2]) == sum(map(len, sides))
    assert split_rows(rows, WorldSplitRule(0.2, 0.1, 0), unit) == (train, valid, test)
    assert split_rows(rows, WorldSplitRule(0.2, 0.1, 1), unit) != (train, valid, test)


def test_a_share_above_none_holds_out_at_least_one_and_never_all():
    rows = [row(i, action=str(i)) for i in range(3)]
    assert [len(part) for part in split_rows(rows, WorldSplitRule(0.9, 0.05, 0), unit)] == [1, 1, 1]
    assert [len(part) for part in split_rows(rows, WorldSplitRule(0.0, 0.01, 0), unit)] == [2, 1, 0]
    with pytest.raises(InputError, match="none to train on"):
        split_rows(rows[:0], WorldSplitRule(), unit)


def test_mixing_keeps_all_changed_rows_and_draws_others_anew_each_epoch():
    changed, others = [row(i) for i in range(50)], [row(i) for i in range(50, 350)]
    epoch = mix_unchanged(changed, others, 40, seed=0, epoch=0)
    drawn = [r for r in epoch if int(r.id) >= 50]
    assert Counter(r.id for r in epoch if int(r.id) < 50) == Counter(r.id for r in changed)
    assert len(drawn) == 20
    assert mix_unchanged(changed, others, 40, 0, 0) == epoch
    for other in (mix_unchanged(changed, others, 40, 0, 1), mix_unchanged(changed, others, 40, 1, 0)):
        assert {r.id for r in other if int(r.id) >= 50} != {r.id for r in drawn}
    assert len(mix_unchanged(changed, others[:1], 40, 0, 0)) == 70, "draws are with replacement"
    assert len(mix_unchanged(changed, [], 0, 0, 0)) == 50
    for some, rest, ratio in (([], others, 40), (changed, [], 40), (changed, others, -1)):
        with pytest.raises(InputError):
            mix_unchanged(some, rest, ratio, 0, 0)
