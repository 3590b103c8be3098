import json

from rlvr_world.domains.text_game.answer import read_prediction
from rlvr_world.domains.text_game.domain import explain_prediction
from rlvr_world.domains.text_game.rows import GameState
from rlvr_world.types import Transition


def thing(uuid, name, contains=(), **properties):
    return {"name": name, "uuid": uuid, "type": "Thing", "properties": properties, "contains": list(contains)}


SCORE = {"score": 0, "gameOver": False, "gameWon": False}
ROW = Transition(
    "r1",
    state=GameState(
        (thing(1, "room", ["pot", "match"]), thing(2, "match"), thing(3, "sink", isOn=False), thing(4, "pot", t=70)),
        SCORE,
        5,
    ),
    action="turn on sink",
    next_state=GameState(
        (thing(1, "room", ["pot", "ash"]), thing(3, "sink", isOn=True), thing(4, "pot", t=95), thing(5, "ash", g=1)),
        SCORE | {"score": 1},
        6,
    ),
)


def explain(modified, removed, score):
    return explain_prediction(
        read_prediction(json.dumps({"modified": modified, "removed": removed, "score": score})), ROW
    )


def test_right_missed_and_wrong_lines():
    text = explain([thing(3, "sink", isOn=True), thing(4, "pot", t=90), thing(8, "gh\nost")], [1], SCORE | {"score": 1})
    assert text.splitlines() == [
        "  action: turn on sink",
        "+ removed room",
        "- room contains: loses match, gains ash",
        "- removed match",
        "  sink.isOn: False -> True",
        "- pot.t: 70 -> 95",
        "+ pot.t: 70 -> 90",
        "- created ash: g 1, name 'ash', type 'Thing', contains []",
        "+ created gh\\nost: name 'gh\\nost', type 'Thing', contains []",
        "  score.score: 0 -> 1",
    ]


def test_right_answer_has_no_signs_and_created_fields_are_compared():
    right = [thing(1, "room", ["ash", "pot"]), thing(3, "sink", isOn=True), thing(4, "pot", t=95)]
    lines = explain([*right, thing(5, "ash", g=1)], [2], SCORE | {"score": 1}).splitlines()
    assert len(lines) == 7
    assert all(line.startswith("  ") for line in lines)
    lines = explain([*right, thing(5, "ash", g=2)], [2], SCORE | {"score": 1}).splitlines()
    assert [line for line in lines if line[0] != " "] == ["- ash.g: absent -> 1", "+ ash.g: absent -> 2"]


def test_malformed_shows_reason_and_start_of_text():
    lines = explain_prediction(read_prediction("so\n\ud800" + "x" * 900), ROW).splitlines()
    assert lines[1] == "+ malformed: no JSON object in the answer"
    assert lines[2].startswith("+ text: 'so\\n\\ud800xxx")
    assert len(lines[2]) < 230
    assert "- score.score: 0 -> 1" in lines


def test_missing_score_and_nothing_changed():
    row = Transition("r2", ROW.state, "look", ROW.state)
    lines = explain_prediction(read_prediction('{"modified": [], "removed": []}'), row).splitlines()
    assert lines == ["  action: look", "+ no key 'score'", "  nothing changed"]
