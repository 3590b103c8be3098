"""Rows kept apart by question, episode or world, and the mix that RL draws from: the same for text and pages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest

from rlvr_world.config import Config
from rlvr_world.domains.splits import WorldSplitRule, evened, held_out, mix_unchanged, split_rows
from rlvr_world.domains.text_game.config import TextGameConfig
from rlvr_world.errors import InputError
from rlvr_world.recipes.rows import shared_out
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
    assert len(mix_unchanged(changed, [], 40, 0, 0)) == 50
    for some, rest, ratio in (([], others, 40), (changed, others, -1)):
        with pytest.raises(InputError):
            mix_unchanged(some, rest, ratio, 0, 0)


def uneven() -> list[Transition]:
    """A verb that is common in one world, and one that is rare in both."""
    counts = {("w0", "take"): 60, ("w0", "open"): 4, ("w1", "take"): 10, ("w1", "open"): 6}
    cells = [(world, f"{verb} lamp {i}") for (world, verb), count in counts.items() for i in range(count)]
    return [row(i, world, action) for i, (world, action) in enumerate(cells)]


def cells_of(rows: Sequence[Transition]) -> Counter[tuple[str, str]]:
    return Counter((r.world, r.action.split()[0]) for r in rows)


def test_verbs_and_worlds_can_be_drawn_evenly():
    rows = uneven()
    assert evened(rows, 0.0, seed=0) is rows
    for share in (1.0, 0.5):
        drawn = evened(rows, share, seed=0)
        counts = cells_of(drawn)
        weights = [n ** (1 - share) for n in cells_of(rows).values()]
        assert [counts[cell] for cell in cells_of(rows)] == pytest.approx(
            [80 * w / sum(weights) for w in weights], abs=1
        )
        assert len(drawn) == 80, "as many rows"
        times = Counter(r.id for r in drawn if r.world == "w0" and r.action.startswith("open"))
        assert max(times.values()) - min(times.values()) <= 1, "each row of a rare verb as often"
        assert evened(rows, share, seed=0) == drawn
        assert {r.id for r in evened(rows, share, seed=0, epoch=1)} != {r.id for r in drawn}
    with pytest.raises(InputError, match=r"data\.even: expected a number from 0 to 1, got 1\.5"):
        evened(rows, 1.5, seed=0)


def test_sft_and_rl_can_have_rows_of_their_own():
    rows = [row(i, action=f"go {i % 20}") for i in range(100)]
    config = Config(data=TextGameConfig(split=WorldSplitRule(sft=0.4)))
    splits = shared_out((rows, [], []), config, unit, lambda r: True)
    assert sorted([*splits.sft, *splits.train], key=lambda r: int(r.id)) == rows
    assert not {unit(r) for r in splits.sft} & {unit(r) for r in splits.train}
    assert len(splits.sft) == 40
    assert splits.control == splits.train == splits.rl_epoch(0, 0), "the control fits what RL draws from"
    together = shared_out((rows, [], []), Config(data=TextGameConfig()), unit, lambda r: True)
    assert together.sft is together.train is rows
    assert together.control is None
    with pytest.raises(InputError, match=r"data\.split\.sft: expected 0 with data\.sft_train"):
        shared_out((rows, [], []), config, unit, lambda r: True, sft=rows)


def test_rl_draws_verbs_evenly_from_its_mix():
    rows = uneven()
    config = Config(data=TextGameConfig(unchanged_per_hundred=50.0, even=1.0))
    splits = shared_out((rows, [], []), config, unit, lambda r: r.world == "w0")
    epochs = [splits.rl_epoch(0, epoch) for epoch in range(2)]
    assert [len(epoch) for epoch in epochs] == [96, 96]
    assert epochs[0] != epochs[1]
    assert set(cells_of(epochs[0]).values()) == {24}
    assert set(cells_of(splits.sft).values()) == {20}
