"""Which text-game rows are trained on."""

from pathlib import Path

import pytest

from rlvr_world.domains.splits import deduplicate
from rlvr_world.domains.text_game.rows import GameState, is_gold, question, read_rows
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


def test_deduplicated_training_rows():
    test = [row(1, action="a")]
    train = [row(1, action="a"), row(2, action="a"), row(3, action="b"), row(4, action="b"), row(5, action="c")]
    assert ids(deduplicate(train, test, question)) == ["f:3", "f:5"]


def test_gold_is_a_change_in_an_object_that_stays():
    new = {"name": "lid", "uuid": 2, "type": "Lid", "properties": {}, "contains": []}
    assert is_gold(row(1, after=game_state(heat=1)))
    assert is_gold(row(1, after=game_state(contains=["lid"])))
    assert not is_gold(row(1))
    assert not is_gold(row(1, after=game_state(points=1)))
    assert not is_gold(row(1, after=game_state(extra=[new])))


@needs_data
def test_gold_rows_of_the_real_test_file():
    rows = read_rows(DATA / "test.jsonl.gz")
    score_only = sum(r.kind == "changed" and not is_gold(r) for r in rows)
    assert (sum(map(is_gold, rows)), score_only) == (749, 52)
    assert not any(is_gold(r) for r in rows if r.kind == "unchanged")
