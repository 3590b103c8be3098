"""Which text-game rows are trained on."""

from collections import Counter
from pathlib import Path

import pytest

from rlvr_world.domains.text_game.rows import GameState, read_rows
from rlvr_world.domains.text_game.splits import (
    as_published,
    deduplicate,
    hold_out_worlds,
    is_gold,
    mix_unchanged,
    question,
    validation_split,
)
from rlvr_world.errors import InputError
from rlvr_world.types import Transition

DATA = Path(__file__).resolve().parents[3] / "../shared/data/bytesized32"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="no shared/data/bytesized32 beside the checkout")

SCORE = {"score": 0, "gameOver": False, "gameWon": False}


def game_state(heat=0, contains=(), extra=(), points=0):
    pot = {"name": "pot", "uuid": 1, "type": "Pot", "properties": {"heat": heat}, "contains": list(contains)}
    return GameState((pot, *extra), {**SCORE, "score": points}, next_uuid=2)


def row(number, world="kitchen", action="look", heat=0, after=None):
    before = game_state(heat)
    return Transition(f"f:{number} {world}/{number}", before, action, after or before, world=world)


def ids(rows):
    return [r.id.split()[0] for r in rows]


def test_question_sees_everything_that_is_asked_and_nothing_else():
    base = row(1)
    others = [row(1, world="bath"), row(1, action="wait"), row(1, heat=1)]
    others += [Transition("", game_state(points=1), "look", base.next_state, world="kitchen")]
    others += [Transition("", GameState(base.state.objects, SCORE, 9), "look", base.next_state, world="kitchen")]
    assert len({question(r) for r in [base, *others]}) == 6
    assert question(base) == question(row(2, after=game_state(5)))


def test_published_and_deduplicated_training_rows():
    test = [row(1, action="a")]
    train = [row(1, action="a"), row(2, action="a"), row(3, action="b"), row(4, action="b"), row(5, action="c")]
    assert ids(as_published(train, test)) == ["f:2", "f:3", "f:4", "f:5"]
    assert ids(deduplicate(train, test)) == ["f:3", "f:5"]


def test_held_out_worlds():
    rows = [row(i, world=f"w{i % 5}") for i in range(20)]
    train, held = hold_out_worlds(rows, worlds=["w1", "w3"])
    assert {r.world for r in held} == {"w1", "w3"}
    assert {r.world for r in train} == {"w0", "w2", "w4"}
    train, held = hold_out_worlds(rows, fraction=0.4, seed=3)
    assert len({r.world for r in held}) == 2
    assert len(train) + len(held) == 20
    assert hold_out_worlds(rows, fraction=0.4, seed=3) == (train, held)
    assert len({tuple(sorted({r.world for r in hold_out_worlds(rows, fraction=0.4, seed=s)[1]})) for s in range(9)}) > 1
    for bad in ({"worlds": ["w9"]}, {"worlds": ["w0", "w1", "w2", "w3", "w4"]}, {}, {"fraction": 1.5}):
        with pytest.raises(InputError):
            hold_out_worlds(rows, **bad)


def test_validation_shares_no_question_with_training():
    rows = [row(i, action=f"a{i % 10}") for i in range(40)]
    train, validation = validation_split(rows, fraction=0.2, seed=0)
    assert (len(train), len(validation)) == (32, 8)
    assert not {question(r) for r in train} & {question(r) for r in validation}
    assert validation_split(rows, fraction=0.2, seed=0) == (train, validation)
    assert validation_split(rows, fraction=0.2, seed=1) != (train, validation)
    with pytest.raises(InputError):
        validation_split(rows, fraction=0, seed=0)


def test_gold_is_a_change_in_an_object_that_stays():
    new = {"name": "lid", "uuid": 2, "type": "Lid", "properties": {}, "contains": []}
    assert is_gold(row(1, after=game_state(heat=1)))
    assert is_gold(row(1, after=game_state(contains=["lid"])))
    assert not is_gold(row(1))
    assert not is_gold(row(1, after=game_state(points=1)))
    assert not is_gold(row(1, after=game_state(extra=[new])))


def test_mixing_keeps_all_gold_rows_and_draws_others_anew_each_epoch():
    gold = [row(i, after=game_state(heat=1)) for i in range(50)]
    others = [row(i) for i in range(50, 350)]
    epoch = mix_unchanged(gold + others, per_hundred_changed=40, seed=0, epoch=0)
    drawn = [r for r in epoch if not is_gold(r)]
    assert Counter(ids(r for r in epoch if is_gold(r))) == Counter(ids(gold))
    assert len(drawn) == 20
    assert mix_unchanged(gold + others, 40, 0, 0) == epoch
    for other in (mix_unchanged(gold + others, 40, 0, 1), mix_unchanged(gold + others, 40, 1, 0)):
        assert set(ids(r for r in other if not is_gold(r))) != set(ids(drawn))
    assert len(mix_unchanged(gold + others[:1], 40, 0, 0)) == 70, "draws are with replacement"
    assert len(mix_unchanged(gold, 0, 0, 0)) == 50
    for rows, ratio in ((others, 40), (gold, 40), (gold + others, -1)):
        with pytest.raises(InputError):
            mix_unchanged(rows, ratio, 0, 0)


@needs_data
def test_gold_rows_of_the_real_test_file():
    rows = read_rows(DATA / "test.jsonl.gz")
    score_only = sum(r.kind == "changed" and not is_gold(r) for r in rows)
    assert (sum(map(is_gold, rows)), score_only) == (749, 52)
    assert not any(is_gold(r) for r in rows if r.kind == "unchanged")
