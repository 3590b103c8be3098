"""Prompts and gold answers of text games."""

import ast
import json
import re
from pathlib import Path

import pytest

from rlvr_world.domains.text_game.config import PromptStyle
from rlvr_world.domains.text_game.prompt import MARKER, Rules, build_answer, build_prompt
from rlvr_world.domains.text_game.rows import GameState, differs, read_rows
from rlvr_world.errors import InputError
from rlvr_world.types import Transition

DATA = Path(__file__).resolve().parents[3] / "../shared/data/bytesized32"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="no shared/data/bytesized32 beside the checkout")

COMPACT = PromptStyle(instructions=False, rules=False, literals="json")
OBJECTS, ACTIONS, SCORE = "Object: Lamp\n==========\nObject: Moth", "light: lights it", "One point."
RULES = Rules({"object_rules": {"lamp": OBJECTS}, "action_rules": {"lamp": ACTIONS}, "score_rules": {"lamp": SCORE}})


def thing(uuid, *contains, **properties):
    return {"name": f"é {uuid}", "uuid": uuid, "type": "T", "properties": properties, "contains": list(contains)}


def score(points):
    return {"score": points, "gameOver": False, "gameWon": False}


STEP = Transition(
    "row",
    state=GameState((thing(1, "é 2", on=True), thing(2), thing(3)), score(0), next_uuid=6),
    action="light",
    next_state=GameState((thing(3, heat=None), thing(6), thing(1, "é 2", on=True)), score(1), next_uuid=7),
    world="lamp",
)


def test_answer_lists_what_differs_in_the_order_of_the_states():
    expected = {"modified": [thing(3, heat=None), thing(6)], "removed": [2], "score": score(1)}
    assert build_answer(STEP, marker=False) == json.dumps(expected, ensure_ascii=False)
    assert build_answer(STEP, marker=True) == "The final answer is: " + json.dumps(expected, ensure_ascii=False)
    still = Transition("row", state=STEP.state, action="look", next_state=STEP.state)
    assert build_answer(still, marker=False) == '{"modified": [], "removed": [], "score": {}}'


@needs_data
def test_answers_rebuild_the_next_state_of_real_rows():
    for row in read_rows(DATA / "test.jsonl.gz"):
        answer = json.loads(build_answer(row, marker=False))
        objects = {o["uuid"]: o for o in row.state.objects if o["uuid"] not in answer["removed"]}
        objects |= {o["uuid"]: o for o in answer["modified"]}
        true = {o["uuid"]: o for o in row.next_state.objects}
        assert objects.keys() == true.keys()
        assert not any(differs(objects[uuid], true[uuid]) for uuid in true)
        assert (answer["score"] or row.state.score) == row.next_state.score
        assert bool(answer["modified"] or answer["removed"] or answer["score"]) == (row.kind == "changed")


def test_compact_prompt_is_state_uuid_and_action():
    literal, *rest = build_prompt(STEP, COMPACT, None).split("\n")
    assert rest == ["Next UUID: 6", "Action: light", ""]
    assert json.loads(literal) == {"game_state": [*STEP.state.objects, STEP.state.score]}
    python = build_prompt(STEP, PromptStyle(instructions=False, rules=False), None).split("\n")[0]
    assert ast.literal_eval(python) == json.loads(literal)


def test_json_literals_let_the_answer_copy_from_the_prompt():
    prompt = build_prompt(STEP, COMPACT, None)
    moved = Transition("row", STEP.state, "x", GameState((thing(1, "é 2", on=False),), score(0), 6))
    changed = build_answer(moved, marker=False)
    before, after = '"properties": {"on": true}', '"properties": {"on": false}'
    piece = changed[changed.index('{"name"') : changed.index("]}") + 2]
    assert after in piece
    assert piece.replace(after, before) in prompt


def test_full_prompt_has_all_parts_in_order_and_the_last_object_rule():
    prompt = build_prompt(STEP, PromptStyle(example=True), RULES)
    state = repr({"game_state": [*STEP.state.objects, STEP.state.score]})
    parts = ['"modified"', '"removed"', '"score"', "pebble (ID: 4)", "Object: Lamp", "Object: Moth", "lights it"]
    parts += ["One point.", state, "Next UUID: 6", "Action: light", "Begin the answer with `The final answer is:`"]
    places = [prompt.index(part) for part in parts]
    assert places == sorted(places)
    assert build_prompt(STEP, PromptStyle(), RULES).count(MARKER) == 1


def test_parts_can_be_left_out():
    assert "pebble" not in build_prompt(STEP, PromptStyle(), RULES)
    assert "Object: Lamp" not in build_prompt(STEP, PromptStyle(rules=False), None)
    only_rules = build_prompt(STEP, PromptStyle(instructions=False), RULES)
    assert "Object: Lamp" in only_rules
    assert MARKER not in only_rules


@pytest.mark.parametrize("literals", ["python", "json"])
def test_worked_example_is_one_action_step_and_one_tick_step(literals):
    prompt = build_prompt(STEP, PromptStyle(example=True, literals=literals), RULES)
    answers = [json.loads(text) for text in re.findall(rf"^{MARKER} (.*)$", prompt, re.MULTILINE)]
    by_action, by_tick = answers
    assert by_action["removed"] == [4]
    assert by_action["score"]["score"] == 1
    assert [o["properties"]["waterLevel"] for o in by_tick["modified"]] == [3]
    assert by_tick["score"] == {}


def test_missing_rules_are_the_users_to_mend(tmp_path):
    with pytest.raises(InputError, match=r"the game 'cave', got rules only for lamp"):
        RULES.for_game("cave")
    with pytest.raises(InputError, match="no rules file"):
        build_prompt(STEP, PromptStyle(), None)
    with pytest.raises(InputError, match="no such rules file"):
        Rules.load(tmp_path / "absent.json")
    path = tmp_path / "rules.json"
    for content in ("{", "[]", '{"object_rules": {}, "action_rules": {"lamp": 1}}'):
        path.write_text(content)
        with pytest.raises(InputError, match="rules"):
            Rules.load(path)
    with pytest.raises(InputError, match="'yaml'"):
        PromptStyle(literals="yaml")


@needs_data
def test_real_rules_are_whole():
    objects, _, _ = Rules.load(DATA / "rules.json").for_game("space-walk")
    assert objects.endswith("without SpaceSuit, the agent dies.")
