import copy
import json
from collections import defaultdict
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from rlvr_world.domains.text_game import published
from rlvr_world.domains.text_game.answer import StateDiff, read_prediction
from rlvr_world.domains.text_game.prompt import build_answer
from rlvr_world.domains.text_game.published import published_scores
from rlvr_world.domains.text_game.rows import GameState, differs, read_rows
from rlvr_world.domains.text_game.scoring import same, score_answer, score_strict
from rlvr_world.errors import InputError
from rlvr_world.types import Malformed, Transition

SHARED = Path(__file__).resolve().parents[3] / "../shared"
NO_CHANGE = '{"modified": [], "removed": [], "score": {}}'


def thing(uuid, name, contains=(), **properties):
    return {"name": name, "uuid": uuid, "type": "Thing", "properties": properties, "contains": list(contains)}


SCORE = {"score": 0, "gameOver": False, "gameWon": False}
ROOM, MATCH, FIRE = thing(1, "room", ["match", "fire"]), thing(2, "match", lit=True), thing(3, "fire", heat=1, of=["a"])
HOT, ASH, EMPTY = thing(3, "fire", heat=2.5, of=["a"]), thing(4, "ash", grams=1), thing(1, "room", ["ash", "fire"])
ROW = Transition(
    "r1",
    state=GameState((ROOM, MATCH, FIRE), SCORE, 4),
    action="burn match",
    next_state=GameState((EMPTY, HOT, ASH), SCORE | {"score": 1}, 5),
)
RIGHT = {"modified": [EMPTY, HOT, ASH], "removed": [2], "score": SCORE | {"score": 1}}


def score(answer, row=ROW, reward="task_specific", scoring_="strict"):
    text = answer if isinstance(answer, str) else "The final answer is: " + json.dumps(answer)
    return score_answer(read_prediction(text), row, reward, scoring_)


def test_right_answer_scores_the_maximum():
    result = score(RIGHT | {"modified": [ASH, HOT, thing(1, "room", ["fire", "ash"])]})  # no order matters
    assert result.value == pytest.approx(1.3)
    assert result.parts == {
        "exact": 1, "objects": 1, "score_state": 1, "changed": 1, "changes": 1, "exact_published": 0, "malformed": 0
    }  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "wrong", "missed"),  # wrong of 12 true fields and the invented ones; missed of 10 true changes
    [
        (RIGHT | {"removed": []}, 4 / 16, 4 / 10),
        (RIGHT | {"modified": [EMPTY, HOT]}, 4 / 12, 4 / 10),
        (RIGHT | {"modified": [EMPTY, HOT, ASH, thing(9, "ghost", a=1, b=2)]}, 5 / 17, 0),
        (RIGHT | {"modified": [EMPTY, HOT | {"name": "flame"}, ASH]}, 1 / 12, 0),
        (RIGHT | {"modified": [EMPTY, HOT | {"type": "Flame"}, ASH]}, 1 / 12, 0),
        (RIGHT | {"modified": [EMPTY, thing(3, "fire", heat=2.5, of=["a"], extra=1), ASH]}, 1 / 13, 0),
        (RIGHT | {"modified": [EMPTY, thing(3, "fire", heat=2.5), ASH]}, 1 / 12, 0),
        (RIGHT | {"modified": [EMPTY, HOT, thing(4, "ash", grams=True)]}, 1 / 12, 1 / 10),
        (RIGHT | {"modified": [thing(1, "room", ["ash", "fire", "fire"]), HOT, ASH]}, 1 / 12, 1 / 10),
    ],
)
def test_each_fault_costs_its_fields(answer, wrong, missed):
    parts = score(answer).parts
    assert parts["exact"] == 0
    assert parts["objects"] == pytest.approx(1 - wrong)
    assert parts["changed"] == pytest.approx(1 - missed)
    assert parts["changes"] <= 1 - missed + 1e-9, "what is broken besides costs too"
    value = 0.09 * (1 - wrong) + 0.01 + parts["changes"]
    assert score(answer).value == pytest.approx(value)
    assert score(answer, reward="binary").value == 0


@pytest.mark.parametrize(
    ("said", "right"),
    [
        (SCORE | {"score": 1.0}, 1),
        ({}, 2 / 3),
        ({"score": 1, "gameOver": False}, 2 / 3),
        (SCORE | {"score": 1, "bonus": 2}, 3 / 4),
        (SCORE | {"score": 1, "gameOver": 0}, 2 / 3),
    ],
)
def test_score_state(said, right):
    parts = score(RIGHT | {"score": said}).parts
    assert parts["score_state"] == pytest.approx(right)
    assert parts["exact"] == (right == 1)


def test_missing_score_key_is_wrong_even_where_the_score_stays():
    row = replace(ROW, next_state=ROW.state)
    result = score({"modified": [], "removed": []}, row)
    assert result.value == pytest.approx(0.09)
    assert (result.parts["exact"], result.parts["score_state"], result.malformed) == (0, 0, "")


def damaged():
    """Answers with every true change right that break more and more of what should have stayed; then the empty one."""
    others = tuple(thing(uuid, f"stone {uuid}", weight=1.0) for uuid in range(10, 20))
    before = GameState((*ROW.state.objects, *others), SCORE, 20)
    after = GameState((*ROW.next_state.objects, *others), ROW.next_state.score, 20)
    row = replace(ROW, state=before, next_state=after)
    wrong = [stone | {"name": "x"} for stone in others]
    return row, {
        "right": RIGHT,
        "one name wrong": RIGHT | {"modified": [*RIGHT["modified"], wrong[0]]},
        "all names wrong": RIGHT | {"modified": [*RIGHT["modified"], *wrong]},
        "all else deleted": RIGHT | {"removed": [*RIGHT["removed"], *range(10, 20)]},
        "nothing changes": {"modified": [], "removed": [], "score": {}},
    }


def test_collateral_damage_costs():
    row, answers = damaged()
    values = {name: score(answer, row).value for name, answer in answers.items()}
    assert list(values) == sorted(values, key=values.get, reverse=True)
    assert values["right"] == pytest.approx(1.3)
    assert values["all else deleted"] < 0.5, "by the paper's formula 0.9 of the right answer's"
    assert score(answers["all else deleted"], row).parts["changed"] == 1, "which counts true changes alone"
    assert values["all names wrong"] < 0.75


def test_nothing_changed_drops_the_term():
    row = replace(ROW, next_state=GameState(ROW.state.objects, SCORE | {"gameOver": True}, 4))
    right = score({"modified": [], "removed": [], "score": SCORE | {"gameOver": True}}, row)
    assert right.value == pytest.approx(0.3)
    assert right.parts["changed"] == 1
    assert score(RIGHT, row).parts["changed"] == 0


def test_malformed_scores_zero_everywhere_with_its_reason():
    result = score("The final answer is: no")
    assert result.value == 0
    assert result.parts == {
        "exact": 0, "objects": 0, "score_state": 0, "changed": 0, "changes": 0, "exact_published": 0, "malformed": 1
    }  # fmt: skip
    assert result.malformed == "no JSON object in the answer"


def test_published_scoring_is_chosen_by_name():
    answer = RIGHT | {"modified": [EMPTY | {"name": "hall"}, HOT], "removed": []}
    row = replace(ROW, next_state=GameState((EMPTY, HOT), SCORE | {"score": 1}, 5))
    assert score(answer, row, "binary", "published").value == 1
    assert score(answer, row, "task_specific", "published").value == pytest.approx(1.3)
    assert score(answer, row, "binary", "strict").value == 0


def test_same_is_by_value_but_true_is_not_one():
    assert same({"a": [1, 2.0, None]}, {"a": [1.0, 2, None]})
    different = [(1, True), (False, 0), ([True], [1]), ({"a": 0}, {"a": False}), ({"a": 1}, {"b": 1}), ([1], [1, 2])]
    for a, b in [*different, ("1", 1), (None, False)]:
        assert not same(a, b), (a, b)
        assert not same(b, a), (b, a)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"objects": []}, "r1, next_state: expected a GameState, got dict"),
        (GameState(({"uuid": 1},), SCORE, 2), "expected objects with name, uuid"),
        (GameState((ROOM, ROOM), SCORE, 2), "expected each uuid once"),
        (GameState((ROOM,), {}, 2), "expected a key 'score'"),
    ],
)
def test_unsound_truth_raises_rather_than_scoring_zero(state, message):
    with pytest.raises(InputError, match=message):
        score(RIGHT, replace(ROW, next_state=state))


def test_a_bug_in_the_scorer_raises(monkeypatch):
    monkeypatch.setattr(published, "_objects", lambda *_: {}["bug"])
    with pytest.raises(KeyError):
        score(RIGHT)


def game_state(text):
    items = json.loads(text)["game_state"]
    return GameState(tuple(items[:-1]), items[-1], 0)


def test_published_scores_equal_the_reference():
    path = SHARED / "golden/given/text_game_scorer.jsonl"
    if not path.exists():
        pytest.skip(f"no reference scores: {path} does not exist")
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert len(rows) == 425
    for row in rows:
        before, after = game_state(row["data_state"]), game_state(row["ground_truth"])
        got = published_scores(row["response"], before, after)
        allowed = [row] if row["repair_versions_agree"] else [row, row["with_newer_repair"]]
        pairs = [(a["binary"], a["task_specific"]) for a in allowed]
        assert any(got[0] == b and abs(got[1] - t) <= 1e-9 for b, t in pairs), (row["id"], row["kind"], got, pairs)


@pytest.fixture(scope="module")
def real_rows():
    path = SHARED / "data/bytesized32/test.jsonl.gz"
    if not path.exists():
        pytest.skip(f"no real rows: {path} does not exist")
    return read_rows(path)


def test_published_means_of_constant_answers(real_rows):
    """The part of the published means that a sample of the rows can show: games and classes where all rows agree."""
    aggregate = json.loads((SHARED / "golden/given/text_game_aggregate.json").read_text())
    scores = defaultdict(list)
    for row in real_rows:
        for name, text in (("no_change", NO_CHANGE), ("perfect_json", "The final answer is: " + smallest_right(row))):
            pair = published_scores(text, row.state, row.next_state)
            for group in (("by_class", row.kind), ("by_game", row.world)):
                scores[(name, *group)].append(pair)
    checked = 0
    for (name, by, group), pairs in scores.items():
        expected = aggregate[name][by][group]
        share = expected["binary_right"] / expected["rows"]
        if share in (0, 1):
            checked += 1
            assert {binary for binary, _ in pairs} == {share}, (name, group)
        for top in (0.3, 1.3):
            if abs(expected["task_specific_mean"] - top) < 1e-9:
                assert all(abs(value - top) < 1e-9 for _, value in pairs), (name, group)
    assert checked > 20


def smallest_right(row):
    old = {obj["uuid"]: obj for obj in row.state.objects}
    new = {obj["uuid"]: obj for obj in row.next_state.objects}
    modified = [obj for uuid, obj in new.items() if uuid not in old or differs(old[uuid], obj)]
    return json.dumps({
        "modified": modified,
        "removed": [uuid for uuid in old if uuid not in new],
        "score": {} if row.state.score == row.next_state.score else row.next_state.score,
    })  # fmt: skip


def test_right_answers_are_exact_and_no_change_is_right_just_where_nothing_changed(real_rows):
    before = copy.deepcopy(real_rows[:200])
    created = 0
    for row in real_rows:
        right = score(build_answer(row, marker=True), row)
        creates = {obj["uuid"] for obj in row.next_state.objects} - {obj["uuid"] for obj in row.state.objects}
        created += bool(creates)
        has_change = score_strict(Malformed("x"), row)["has_change"]
        assert right.parts["exact"] == right.parts["changed"] == 1, row.id
        assert right.value == pytest.approx(1.3 if has_change else 0.3), row.id
        assert right.parts["exact_published"] == (not creates), row.id
        still = score(NO_CHANGE, row, "binary")
        assert still.value == still.parts["exact_published"] == (row.kind == "unchanged"), row.id
    assert created > 10
    assert real_rows[:200] == before  # scoring leaves the rows alone


def test_shared_objects_change_no_score(real_rows):
    """Rows share unchanged objects and the scorer uses that; copies of everything must score the same."""
    for row, other in pairwise(real_rows[:150]):
        text = build_answer(other, marker=True)  # wrong in many ways
        assert score(text, row) == score(text, copy.deepcopy(row))


def test_strict_takes_a_diff_without_text():
    assert score_strict(StateDiff((EMPTY, HOT, ASH), (2,), RIGHT["score"]), ROW)["exact"] == 1
