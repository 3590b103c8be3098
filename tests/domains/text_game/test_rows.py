"""Reading text-game rows: real rows, the parquet layout, and one clear sentence for each kind of broken input."""

import copy
import gzip
import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlvr_world.domains.text_game.rows import GameState, differs, has_changed, read_rows
from rlvr_world.errors import InputError

DATA = Path(__file__).resolve().parents[3] / "../shared/data/bytesized32"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="no shared/data/bytesized32 beside the checkout")

SCORE = {"score": 0, "gameOver": False, "gameWon": False}


def thing(uuid, contains=(), **properties):
    return {
        "name": f"thing {uuid}",
        "uuid": uuid,
        "type": "Thing",
        "properties": properties,
        "contains": list(contains),
    }


def state(objects, max_uuid=3, last_action="look"):
    text = {"observation": "", "look": "", "inventory": "", "taskDesc": ""}
    return {**text, "lastAction": last_action, "objects": objects, "max_UUID": max_uuid}


def row():
    before, after = [thing(0, ["thing 1"]), thing(1, isOn=False)], [thing(0, ["thing 1"]), thing(1, isOn=True)]
    return {
        "current_state": state(before, last_action="older"),
        "action_state": state(after, last_action="turn on"),
        "tick_state": state(after, last_action="turn on"),
        "current_score_state": dict(SCORE),
        "next_score_state": {"score": 0.5, "gameOver": True, "gameWon": True},
        "game": "lamp",
        "state_id": 7,
    }


def write(path, *rows):
    with gzip.open(path, "wt") if path.suffix == ".gz" else path.open("w") as out:
        out.writelines(json.dumps(r) + "\n" for r in rows)
    return path


def parquet_row(uuid_base_line="The current game UUID base is 9\n"):
    source = row()
    game_state = lambda key, score: json.dumps({"game_state": [*source[key]["objects"], source[score]]})  # noqa: E731
    prompt = (
        f"Task Description:\nWash it.\nThe current game UUID base is 4\nTask Description:\nLight.\n{uuid_base_line}"
    )
    return {
        "data_source": "llm_simulator",
        "prompt": [{"role": "user", "content": prompt}],
        "reward_model": {"style": "rule", "ground_truth": game_state("tick_state", "next_score_state")},
        "extra_info": {
            "split": "test",
            "index": 0,
            "data_state": game_state("current_state", "current_score_state"),
            "data_action": "turn on",
        },
        "answer": "It is lit. The final answer is: {}",
    }


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_a_row_becomes_a_transition(tmp_path, name):
    got = read_rows(write(tmp_path / name, row(), row()))[1]
    assert got.id == f"{name}:2 lamp/7"
    assert (got.action, got.kind, got.world, got.reasoning) == ("turn on", "changed", "lamp", "")
    assert got.state == GameState((thing(0, ["thing 1"]), thing(1, isOn=False)), SCORE, next_uuid=3)
    assert got.next_state.objects[1]["properties"] == {"isOn": True}
    assert got.next_state.score == {"score": 0.5, "gameOver": True, "gameWon": True}


@needs_data
def test_real_rows_have_the_official_labels_and_survive_as_they_are():
    rows = read_rows(DATA / "test.jsonl.gz")
    with gzip.open(DATA / "test.jsonl.gz") as lines:
        sources = [json.loads(line) for line in lines]
    assert Counter(r.kind for r in rows) == {"changed": 801, "unchanged": 1047}
    assert len(rows) == len(sources)
    for got, source in zip(rows, sources, strict=True):
        assert list(got.state.objects) == source["current_state"]["objects"]
        assert list(got.next_state.objects) == source["tick_state"]["objects"]
        assert got.action == source["tick_state"]["lastAction"]
        steps = [tuple(source[key]["objects"]) for key in ("current_state", "action_state", "tick_state")]
        score = source["current_score_state"], source["next_score_state"]
        states = [GameState(objects, SCORE, 0) for objects in steps]
        action_or_tick = has_changed(states[0], states[1]) or has_changed(states[1], states[2])
        assert (got.kind == "changed") == (action_or_tick or score[0] != score[1])


def test_what_counts_as_changed():
    base = GameState((thing(0, ["a", "b"], heat=1), thing(1)), SCORE, 2)
    with_objects = lambda *objects: GameState(objects, SCORE, 2)  # noqa: E731
    assert not has_changed(base, copy.deepcopy(base))
    assert not has_changed(base, with_objects(thing(1), thing(0, ["b", "a"], heat=1)))
    assert has_changed(base, with_objects(thing(0, ["a"], heat=1), thing(1)))
    assert has_changed(base, with_objects(thing(0, ["a", "b"], heat=2), thing(1)))
    assert has_changed(base, with_objects(thing(0, ["a", "b"], heat=1)))
    assert has_changed(base, with_objects(*base.objects, thing(2)))
    assert has_changed(base, GameState(base.objects, {**SCORE, "gameOver": True}, 2))
    assert differs(thing(0), {**thing(0), "name": "other"})


def test_equal_objects_are_shared_between_rows(tmp_path):
    first, second = read_rows(write(tmp_path / "rows.jsonl", row(), row()))
    assert first.state.objects[0] is second.next_state.objects[0]


def test_parquet_gives_the_same_states(tmp_path):
    pq.write_table(pa.Table.from_pylist([parquet_row()]), tmp_path / "test-00000-of-00001.parquet")
    (got,) = read_rows(tmp_path, reasoning_column="answer")
    (same,) = read_rows(write(tmp_path / "rows.jsonl", row()))
    assert (got.state.objects, got.state.score) == (same.state.objects, same.state.score)
    assert (got.next_state.objects, got.next_state.score) == (same.next_state.objects, same.next_state.score)
    assert (got.action, got.kind, got.world) == ("turn on", "changed", "Light.")
    assert got.state.next_uuid == 9, "the last UUID base of the prompt is the row's, the first an example's"
    assert got.reasoning == "It is lit. The final answer is: {}"


def test_parquet_without_a_uuid_base_counts_on_from_the_largest(tmp_path):
    record = parquet_row()
    record["prompt"][0]["content"] = "Predict."
    pq.write_table(pa.Table.from_pylist([record]), tmp_path / "rows.parquet")
    assert read_rows(tmp_path / "rows.parquet")[0].state.next_uuid == 2


BROKEN = {
    "current_state.objects: expected a list, got {}": lambda r: r["current_state"].update(objects={}),
    "tick_state.objects[1].uuid: expected an integer, got True": lambda r: r["tick_state"]["objects"][1].update(
        uuid=True
    ),
    "contains: expected a list of names, got [1]": lambda r: r["tick_state"]["objects"][0].update(contains=[1]),
    "properties: expected an object, got 'red'": lambda r: r["current_state"]["objects"][0].update(properties="red"),
    "objects[1]: expected an object, got 4": lambda r: r["current_state"]["objects"].__setitem__(1, 4),
    "expected each uuid once, got 0": lambda r: r["current_state"]["objects"].append(thing(0)),
    "current_score_state.gameWon: expected true or false, got no such key": lambda r: r["current_score_state"].pop(
        "gameWon"
    ),
    "next_score_state.score: expected a number, got '1'": lambda r: r["next_score_state"].update(score="1"),
    "current_state.max_UUID: expected an integer, got 2.5": lambda r: r["current_state"].update(max_UUID=2.5),
    "action_state.lastAction: expected a string, got None": lambda r: r["action_state"].update(lastAction=None),
    "expected the keys game, state_id, got only current_state": lambda r: [r.pop("game"), r.pop("state_id")],
}


@pytest.mark.parametrize("message", BROKEN)
def test_a_broken_row_is_refused_with_file_row_and_field(tmp_path, message):
    broken = json.loads(json.dumps(row()))
    BROKEN[message](broken)
    path = write(tmp_path / "rows.jsonl", row(), broken)
    with pytest.raises(InputError) as caught:
        read_rows(path)
    assert message in str(caught.value)
    assert f"{path}, row 2" in str(caught.value)


@pytest.mark.parametrize("line", ["{", "[]", '"text"', '{"a": NaN}'])
def test_a_line_that_is_no_json_object_is_refused(tmp_path, line):
    (tmp_path / "rows.jsonl").write_text(json.dumps(row()) + "\n" + line + "\n")
    with pytest.raises(InputError, match="row 2"):
        read_rows(tmp_path / "rows.jsonl")


def test_bad_bytes_are_refused(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(b'{"game": "\xff"}\n')
    with pytest.raises(InputError, match="row 1"):
        read_rows(tmp_path / "rows.jsonl")


def test_bad_files_are_refused(tmp_path):
    whole = write(tmp_path / "whole.jsonl.gz", *[row()] * 50).read_bytes()
    files = {
        "cut.jsonl.gz": (whole[: len(whole) // 2], "cut off or damaged"),
        "plain.jsonl.gz": (b"{}\n", "cut off or damaged"),
        "empty.jsonl": (b"\n", "at least one"),
        "rows.csv": (b"a,b\n", "ends in .jsonl"),
        "bad.parquet": (b"PAR1", "whole parquet file"),
    }
    for name, (content, message) in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=message):
            read_rows(tmp_path / name)
    with pytest.raises(InputError, match="no such file"):
        read_rows(tmp_path / "absent.jsonl")


def test_bad_parquet_is_refused(tmp_path):
    record = parquet_row()
    record["extra_info"]["data_state"] = json.dumps({"game_state": [thing(0)]})
    pq.write_table(pa.Table.from_pylist([record]), tmp_path / "rows.parquet")
    with pytest.raises(InputError, match=r"row 1, field extra_info.data_state.game_state: expected the score as last"):
        read_rows(tmp_path / "rows.parquet")
    pq.write_table(pa.table({"prompt": ["a"], "answer": ["b"]}), tmp_path / "rows.parquet")
    with pytest.raises(InputError, match="columns reward_model, extra_info, got only prompt, answer"):
        read_rows(tmp_path / "rows.parquet")


def test_a_folder_must_hold_one_split(tmp_path):
    with pytest.raises(InputError, match="a folder with row files"):
        read_rows(tmp_path)
    for split in ("train", "test"):
        pq.write_table(pa.Table.from_pylist([parquet_row()]), tmp_path / f"{split}-00000-of-00001.parquet")
    with pytest.raises(InputError, match="one split, got test, train"):
        read_rows(tmp_path)


def test_reasoning_column(tmp_path):
    path = write(tmp_path / "rows.jsonl", {**row(), "thoughts": "First, the lamp."})
    assert read_rows(path, reasoning_column="thoughts")[0].reasoning == "First, the lamp."
    with pytest.raises(InputError, match=r"'answer', got only current_state, .*thoughts"):
        read_rows(path, reasoning_column="answer")
