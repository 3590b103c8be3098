"""The state after a prediction: with the true prediction of a row it is that row's next state."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr_world.domains.text_game.answer import StateDiff, apply_diff, read_prediction
from rlvr_world.domains.text_game.config import PromptStyle, TextGameConfig
from rlvr_world.domains.text_game.domain import TextGame
from rlvr_world.domains.text_game.prompt import build_answer
from rlvr_world.domains.text_game.rows import GameState, by_uuid, differs, read_question, read_rows, write_state
from rlvr_world.errors import InputError
from rlvr_world.models.text_tokenizer import train_text_tokenizer
from rlvr_world.types import Malformed, Transition

SCORE = {"score": 0, "gameOver": False, "gameWon": False}


def thing(uuid: int, *contains: int, name: str = "", **properties: Any) -> dict[str, Any]:
    names = {"name": name or f"thing {uuid}", "uuid": uuid, "type": "Thing"}
    return {**names, "properties": properties, "contains": [f"thing {inner}" for inner in contains]}


def state(*objects: dict[str, Any], score: int = 0) -> GameState:
    return GameState(objects, {**SCORE, "score": score}, max((obj["uuid"] for obj in objects), default=-1) + 1)


def gold(row: Transition) -> GameState:
    """The state after what the right answer of a row says, read back from its text."""
    domain = TextGame(TextGameConfig(), SimpleNamespace(eos_token_id=0), None)  # type: ignore[arg-type]
    after = domain.advance(row.state, row.action, read_prediction(build_answer(row, marker=False)))
    assert isinstance(after, GameState)
    return after


@pytest.mark.parametrize(
    ("name", "count", "unsaid"), [("test", 1848, (1, 14)), ("train", 11_151, (0, 180)), ("train_all", 68_473, (0, 205))]
)
def test_every_real_row_advances_to_its_next_state(shared, name, count, unsaid):
    """Objects and score in every row, the next uuid in all but one: an object that comes and goes within one step
    leaves nothing that a difference could say. Nor does the order of what lies in an object, which means nothing:
    where only that changed, the old order stays."""
    rows = read_rows(shared / f"data/bytesized32/{name}.jsonl.gz")
    others = reordered = 0
    for row in rows:
        after, true = gold(row), by_uuid(row.next_state)
        assert by_uuid(after).keys() == true.keys(), row.id
        assert not any(differs(obj, true[uuid]) for uuid, obj in by_uuid(after).items()), row.id
        assert after.score == row.next_state.score, row.id
        others += after.next_uuid != row.next_state.next_uuid
        reordered += after.objects != row.next_state.objects
    print(len(rows), others, reordered)
    assert (len(rows), others, reordered) == (count, *unsaid)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(
            [thing(1, 0, 2, 5), thing(0), thing(2), thing(5)],
            [thing(1, 0, 5), thing(0, 2), thing(2), thing(5)],
            id="taken: it follows what holds it",
        ),
        pytest.param(
            [thing(1, 0, 2), thing(0, 5), thing(5), thing(2, 7), thing(7)],
            [thing(1, 2), thing(2, 7, 0), thing(7), thing(0, 5), thing(5)],
            id="moved with what it holds",
        ),
        pytest.param(
            [thing(1, 0, 2, 8), thing(0, 5), thing(5), thing(2), thing(3), thing(4), thing(8)],
            [thing(1, 0, 2, 8), thing(0), thing(2), thing(3, 5), thing(4), thing(5), thing(8)],
            id="a scale: its sides, which nothing contains, stay behind it, and what they hold follows both",
        ),
        pytest.param(
            [thing(1, 0), thing(0), thing(2), thing(3)],
            [thing(1), thing(2, 0), thing(0), thing(3)],
            id="several rooms",
        ),
        pytest.param(
            [thing(0), thing(1, 0, 2), thing(2)], [thing(0, 2), thing(1, 0), thing(2)], id="listed by uuid: it stays so"
        ),
        pytest.param([thing(1, 0), thing(0), thing(2)], [thing(1), thing(2)], id="gone"),
        pytest.param(
            [thing(1, 0), thing(0)], [thing(1, 5, 0), thing(5, hot=True), thing(0)], id="created in its place"
        ),
    ],
)
def test_objects_stand_as_they_stood(before, after):
    row = Transition(
        "row", state(*before), "do it", replace(state(*after, score=1), next_uuid=state(*before).next_uuid)
    )
    assert gold(row).objects == row.next_state.objects
    assert gold(row).score == row.next_state.score


def test_objects_of_one_name_are_all_kept():
    waters = [thing(1, 2, 3), thing(2, 90), thing(5, name="thing 90"), thing(3, 90), thing(6, name="thing 90")]
    drained = [thing(1, 2, 3), thing(2), thing(3, 90), thing(6, name="thing 90")]
    assert gold(Transition("row", state(*waters), "pour", state(*drained))).objects == tuple(drained)


things = st.builds(
    lambda uuid, contains, heat: thing(uuid, *contains, heat=heat),
    st.integers(0, 7),
    st.lists(st.integers(0, 8), max_size=4),
    st.integers(0, 1),
)
states = st.builds(
    lambda objects, score: state(*objects, score=score),
    st.lists(things, max_size=6, unique_by=lambda obj: obj["uuid"]),
    st.integers(0, 1),
)


@given(states, states)
def test_any_step_is_what_its_difference_says(before, after):
    """Whatever contains what: in circles, twice, or what is not there."""
    result = gold(Transition("row", before, "do it", after))
    assert by_uuid(result).keys() == by_uuid(after).keys()
    assert not any(differs(obj, by_uuid(after)[uuid]) for uuid, obj in by_uuid(result).items())
    assert len(result.objects) == len(after.objects)
    assert result.score == after.score
    assert result.next_uuid >= before.next_uuid


def test_a_chain_of_a_thousand_objects():
    chain = state(*(thing(uuid, uuid + 1) for uuid in range(1, 3000)))
    assert apply_diff(chain, StateDiff((), (2,), {})).objects == (chain.objects[0], *chain.objects[2:])


def test_what_does_not_read_stays_malformed():
    domain = TextGame(TextGameConfig(), SimpleNamespace(eos_token_id=0), None)  # type: ignore[arg-type]
    assert domain.advance(state(thing(1)), "look", read_prediction("?")) == Malformed("no JSON object in the answer")


@pytest.mark.parametrize("score", [{"score": 1}, SCORE | {"score": "many"}, SCORE | {"gameOver": 0}, {"won": True}])
def test_no_game_goes_on_from_half_a_score(score):
    domain = TextGame(TextGameConfig(), None, None)
    said = read_prediction(json.dumps({"modified": [], "removed": [], "score": score}))
    assert isinstance(said.diff, StateDiff), "it is scored for what is right of it"
    assert domain.advance(state(thing(1)), "look", said) == Malformed("'score' is not a whole score")


ROW = Transition(
    "row", state(thing(1, 0), thing(0)), "take it", state(thing(1), thing(0, hot=True)), "changed", "kitchen"
)


@pytest.mark.parametrize("style", [PromptStyle(rules=False), PromptStyle(False, False, False, "json")])
def test_a_question_has_the_prompt_of_its_row(style):
    tokenizer = train_text_tokenizer([build_answer(ROW, marker=True), write_state(ROW.state)], 400)
    domain = TextGame(TextGameConfig(style=style), tokenizer, None)
    known, asked = domain.encode(ROW), domain.encode(replace(ROW, next_state=None))
    assert known.tail[0].target is not None
    assert (asked.prompt, asked.tail) == (known.prompt, (replace(known.tail[0], target=None),))


def test_a_state_is_written_and_asked_about():
    given = {"state": json.loads(write_state(ROW.state)), "action": "take it", "game": "kitchen", "id": "q1"}
    question = read_question(given)
    assert question == Transition("q1", ROW.state, "take it", None, world="kitchen")
    assert read_question({"state": ROW.state, "action": "take it"}).state is ROW.state
    fresh = read_question({"state": {"objects": [thing(4)]}, "action": "look"})
    assert fresh.state == GameState((thing(4),), SCORE, 5)


@given(states)
def test_any_state_is_written_and_read_back(known):
    assert read_question({"state": json.loads(write_state(known)), "action": ""}).state == known


GOOD = {"objects": [thing(1)], "score": SCORE, "next_uuid": 2}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (7, "question: expected an object with the keys state and action, got 7"),
        ({"action": "look"}, "question, field state: expected an object, got no such key"),
        ({"state": [], "action": "look"}, "question, field state: expected an object, got []"),
        ({"state": "a room", "action": "look"}, "question, field state: expected an object, got 'a room'"),
        ({"state": {}, "action": "look"}, "question, field state.objects: expected a list, got no such key"),
        ({"state": GOOD}, "question, field action: expected a string, got no such key"),
        ({"state": GOOD, "action": 3}, "question, field action: expected a string, got 3"),
        ({"state": GOOD | {"score": 1}, "action": ""}, "question, field state.score: expected an object, got 1"),
        ({"state": GOOD | {"score": {}}, "action": ""}, "question, field state.score.score: expected a number"),
        ({"state": GOOD | {"next_uuid": "3"}, "action": ""}, "question, field state.next_uuid: expected an integer"),
        (
            {"state": GOOD | {"objects": [1]}, "action": ""},
            "question, field state.objects[0]: expected an object, got 1",
        ),
        ({"state": GOOD | {"objects": [{}]}, "action": ""}, "question, field state.objects[0].name: expected a string"),
        ({"state": GOOD | {"objects": [thing(1)] * 2}, "action": ""}, "field state.objects: expected each uuid once"),
    ],
)
def test_what_is_no_question(given, message):
    with pytest.raises(InputError) as caught:
        read_question(given)
    assert message in str(caught.value)
