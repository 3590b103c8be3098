"""States of any JSON: changes by path lead to the next state exactly, answers are read strictly."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr_world import InputError, Malformed, Transition
from rlvr_world.domains.answers import same
from rlvr_world.domains.json_world.config import JsonWorldConfig
from rlvr_world.domains.json_world.domain import JsonWorld, applied, difference, fields, read_rows

WORLD = JsonWorld(JsonWorldConfig(), None)
ROOM = {
    "door": {"open": False, "a/b~c": 1},
    "items": [{"name": "lamp", "lit": False}, {"name": "key", "lit": None}],
    "grid": [["#", "."], [".", "."]],
    "bag": ["coin"],
}


def after(**changes: Any) -> dict[str, Any]:
    return {**json.loads(json.dumps(ROOM)), **changes}


@pytest.mark.parametrize(
    ("next_state", "changed", "gone"),
    [
        (after(), {}, []),
        (after(door={"open": True, "a/b~c": 2}), {"/door/open": True, "/door/a~1b~0c": 2}, []),
        (after(items=[{"name": "lamp", "lit": True}]), {"/items/lamp/lit": True}, ["/items/key"]),
        (after(items=ROOM["items"][::-1]), {"/items": ROOM["items"][::-1]}, []),
        (after(grid=[["#", "."], ["@", "."], ["."]]), {"/grid/1": ["@", "."], "/grid/2": ["."]}, []),
        (after(bag=[]), {"/bag": []}, []),
        (after(door={}, new={"x": 1}), {"/new": {"x": 1}}, ["/door/open", "/door/a~1b~0c"]),
        ("gone dark", {"": "gone dark"}, []),
    ],
)
def test_a_change_is_told_by_path_and_leads_there(next_state: Any, changed: Any, gone: Any) -> None:
    assert difference(ROOM, next_state) == (changed, gone)
    assert same(applied(ROOM, changed, gone), next_state)
    row = Transition("row", ROOM, "act", next_state)
    reached = WORLD.read(f"<think>hm</think> So: {WORLD.answer(row)} <|end|>", row)
    assert same(reached, next_state)
    assert WORLD.score(reached, row).value == 1


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text("ab/~\n", max_size=3),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text("ab/~", max_size=2), inner, max_size=3)
        | st.lists(st.fixed_dictionaries({"id": st.integers(0, 4), "v": inner}), max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(VALUES, VALUES)
def test_every_change_leads_to_its_next_state(before: Any, then: Any) -> None:
    assert same(applied(before, *difference(before, then)), then)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("nothing", "no JSON object"),
        ('{"set": {"/nowhere/x": 1}, "removed": []}', "no place"),
        ('{"set": {"door": 1}}', "no place"),
        ('{"set": {"/grid/7": 1}}', "no place"),
        ('{"set": {"/door": 1, "/door/open": true}}', "no place"),
        ('{"set": {"/door": 1}, "removed": ["/door"]}', "twice"),
        ('{"set": {}, "removed": [""]}', "no place"),
        ('{"set": {"/x": NaN}}', "finite"),
        ('{"set": {"/x": {1: 2}}}', "no JSON"),
        ('{"set": {"/x": {1, 2}}}', "no JSON"),
        ('{"set": {"/x": b"1"}}', "no JSON"),
        ('{"set": {"/x": (1e400,)}}', "no JSON"),
        ('{"set": {"/x": "\\ud800"}}', "half a character"),
        ('{"set": {"/x": "\\u0007"}}', "no text"),
        (f'{{"set": {{"/x": 0x{"f" * 5000}}}}}', "too long"),
        ('{"set": {}}' + " " * 70_000, "longer than"),
        ('{"set": [], "removed": []}', "by path"),
        ('{"set": {"/x": 1}', "JSON"),
        ('{"set": {}, "removed": []} or {"set": {"/x": ', "JSON"),
    ],
)
def test_a_broken_answer_is_malformed(answer: str, why: str) -> None:
    row = Transition("row", ROOM, "act", ROOM)
    reached = WORLD.read(answer, row)
    assert isinstance(reached, Malformed)
    assert why in reached.reason
    assert WORLD.score(reached, row).value == 0


def test_states_may_hold_the_words_of_answers() -> None:
    state = {"a": {"set": 1, "on": False}, "b": 0}
    for then in ({"a": {"set": 2, "on": True}, "b": 0}, {"a": {"removed": []}, "b": 0}, {"a": 0, "b": {"set": {}}}):
        row = Transition("row", state, "act", then)
        assert WORLD.read(WORLD.answer(row), row) == then


def test_spoiled_answers_are_read_or_malformed_and_never_raise() -> None:
    draw, answer = (
        random.Random(0),
        '{"set": {"/items/lamp/lit": true, "/grid/2": ["."], "/x": {}}, "removed": ["/bag"]}',
    )
    row, read = Transition("row", ROOM, "act", after(bag=[])), 0
    for _ in range(2000):
        text = list(answer)
        for _ in range(draw.randint(1, 5)):
            text[draw.randrange(len(text))] = draw.choice("{}[]\":,/~0 truN'\n")
        reached = WORLD.read("".join(text), row)
        read += not isinstance(reached, Malformed)
        assert 0 <= WORLD.score(reached, row).value <= 1
    assert 20 < read < 1980


def test_the_example_writes_rows_that_read(tmp_path: Path) -> None:
    script = Path(__file__).parents[3] / "docs" / "examples" / "rooms.py"
    subprocess.run([sys.executable, str(script), str(tmp_path / "rows.jsonl"), "4"], check=True)
    rows = read_rows(tmp_path / "rows.jsonl")
    assert {row.world for row in rows} == {"house0", "house1", "house2", "house3"}
    assert all(same(applied(row.state, *difference(row.state, row.next_state)), row.next_state) for row in rows)
    assert {row.kind for row in rows} == {"changed", "unchanged"}


def test_reward_counts_true_and_stated_changes() -> None:
    row = Transition("row", ROOM, "act", after(bag=["coin", "key"], door={"open": True, "a/b~c": 1}))

    def parts(**changes: Any) -> Any:
        return WORLD.score(after(**changes), row).parts

    half = parts(bag=["coin", "key"])
    assert (half["exact"], half["changes"]) == (0, 0.5)
    assert parts(bag=["coin", "key"], grid=[])["changes"] == 0.2  # of bag, door, grid and its two rows
    assert parts(bag=["x"])["changes"] == 0
    still = Transition("row", ROOM, "act", ROOM)
    assert WORLD.score(ROOM, still).value == 1
    assert WORLD.score(after(bag=[]), still).value == 0


def test_a_text_is_compared_by_line() -> None:
    row = Transition("row", "a\nb\nc", "act", "a\nb\nd")
    assert WORLD.score("a\nb\nd", row).value == 1
    assert WORLD.score("a\nb\nc\nd", row).parts["changes"] == 0.5
    assert fields("a\na") == {"\na": 2}


def write(folder: Path, *rows: Any) -> Path:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "rows.jsonl"


def test_rows_in_the_names_of_others_keep_the_score(tmp_path: Path) -> None:
    one = {"observation": '{"x": 1}', "action": {"go": "north"}, "next_observation": {"x": 2}, "score": 3}
    two = {"obs": {"x": 2}, "action": "stop", "next_obs": {"x": 2}, "score": 3, "terminated": True, "task": "maze"}
    text = {"state": "[a room]", "action": "look", "next_state": "dark", "reward": 0.5}
    first, second, third = read_rows(write(tmp_path, one, two, text))
    assert (first.state, first.next_state) == ({"score": 0, "x": 1}, {"score": 3, "x": 2})
    assert (first.action, first.kind, second.world) == ('{"go": "north"}', "changed", "maze")
    assert second.state == {"score": 3, "done": False, "x": 2}
    assert second.next_state == {"score": 3, "done": True, "x": 2}
    assert third.next_state == {"reward": 0.5, "state": "dark"}


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"state": {}, "action": "x"}, "next_state"),
        ({"state": {}, "action": "\x07", "next_state": {}}, "field action"),
        ({"state": {}, "action": "x", "next_state": {}, "done": 1}, "done"),
        ({"state": {}, "action": "x", "next_state": json.loads("[" * 80 + "]" * 80)}, "deep"),
        ({"state": {"a": "\x07"}, "action": "x", "next_state": {}}, "U\\+0007"),
    ],
)
def test_a_wrong_row_is_named(row: Any, why: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"row 1.*{why}"):
        read_rows(write(tmp_path, row))
