"""Rows in every layout, and what is wrong with a row said with its place."""

import json

import pyarrow
import pyarrow.parquet
import pytest

from rlvr_world.domains.web_page.change import Change, write_change
from rlvr_world.domains.web_page.rows import change_kind, read_rows
from rlvr_world.domains.web_page.tree import Node, Page
from rlvr_world.errors import InputError

BEFORE, AFTER = "[1] RootWebArea 'A'\n\t[2] button 'b'", "[1] RootWebArea 'A'\n\t[2] button 'b' focused: True"
ROW = {"observation": BEFORE, "action": "click [2]", "next_observation": AFTER}
FOCUS = Change(updated=("[2] button 'b' focused: True",))
LABEL = Change(updated=("[2] button 'b' focused: True", "[1] RootWebArea 'A'"))


def published_record():
    prompt = (
        "You are an agent. URL: none here.\nNow the task:\nURL: http://a/\n OBJECTIVE: Press it\n"
        " PREVIOUS ACTION: None\n"
        f" CURRENT OBSERVATION: {BEFORE}\n CURRENT ACTION: click [2]\n \n Please give the result directly."
    )
    return {
        "task_id": 7,
        "step_idx": 2,
        "previous_actions": ["None"],
        "next_state_acctree": AFTER,
        "prompt": [{"role": "user", "content": prompt}],
        "reward_model": {"ground_truth": write_change(LABEL)},
        "answer": "It gets the focus.\n\n" + write_change(LABEL),
    }


def write(path, records):
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(records))
    else:
        path.write_text("\n".join(map(json.dumps, records)))
    return path


def test_our_rows(tmp_path):
    more = {"task": "click-test", "seed": 3, "step": 1, "url": "http://a/", "goal": "g", "error": "it moved"}
    row = read_rows(write(tmp_path / "rows.jsonl", [ROW | more]))[0]
    assert (row.id, row.kind, row.world) == ("rows.jsonl:1 click-test/3/1", "changed", "click-test")
    assert (row.state.url, row.state.goal, row.state.episode) == ("http://a/", "g", "click-test/3")
    assert (row.next_state.change, row.next_state.text, row.next_state.error) == (FOCUS, AFTER, "it moved")


def test_wma_rows(tmp_path):
    webarena = {"observation": BEFORE, "current_action": "click [2] where [2] is tab", "next_state_acctree": AFTER,
                "objective": "g", "task_id": 0, "step_idx": 1, "previous_actions": ["None", "hover [1]"]}  # fmt: skip
    mind2web = {"website": "shop", "cleaned_accessibility_tree": BEFORE, "action": "click [2]",
                "cleaned_next_accessibility_tree": AFTER, "confirmed_task": "g", "previous_actions": []}  # fmt: skip
    rows = read_rows(write(tmp_path / "wma.json", [webarena, mind2web]))
    assert [(r.next_state.change, r.state.goal, r.state.previous) for r in rows] == [
        (FOCUS, "g", "hover [1]"),
        (FOCUS, "g", ""),
    ]
    assert rows[1].world == "shop"


def test_browsergym_steps_are_joined_within_their_episode(tmp_path):
    def step(seed, number, page, action, error=""):
        return {"task_name": "t", "task_seed": seed, "step": number, "axtree_txt": page, "action": action,
                "goal": "g", "last_action_error": error}  # fmt: skip

    records = [
        step(1, 0, BEFORE, "click('2')"),
        step(1, 1, AFTER, "click('9')", "it moved"),
        step(2, 0, BEFORE, "click('2')"),
        step(1, 2, AFTER, "noop()", "no such element"),
        step(2, 2, AFTER, "noop()"),  # step 1 is missing
    ]
    rows = read_rows(write(tmp_path / "steps.jsonl", records))
    assert [row.id for row in rows] == ["steps.jsonl:1 t/1/0", "steps.jsonl:2 t/1/1"]
    assert [row.next_state.change for row in rows] == [FOCUS, Change()]
    assert [row.next_state.error for row in rows] == ["it moved", "no such element"]
    assert [row.kind for row in rows] == ["changed", "unchanged"]
    assert [row.state.previous for row in rows] == ["", "click('2')"]
    assert rows[0].state.episode == "t/1"
    with pytest.raises(InputError, match=r"row 1.*step"):
        read_rows(write(tmp_path / "stepless.jsonl", [{"axtree_txt": BEFORE, "action": "noop()"}]))


def test_published_layout(tmp_path):
    file = write(tmp_path / "train.parquet", [published_record()])
    aligned, published = read_rows(file)[0], read_rows(file, "published", "answer")[0]
    assert aligned.next_state.change == FOCUS
    assert published.next_state.change == LABEL
    assert published.reasoning.startswith("It gets")
    assert (published.state.text, published.action, published.state.url) == (BEFORE, "click [2]", "http://a/")
    assert (published.kind, published.world, published.state.goal) == ("changed", "7", "Press it")


def test_published_label_of_other_rows(tmp_path):
    assert (
        read_rows(write(tmp_path / "a.jsonl", [ROW]), "published")[0].next_state.change.updated
        == (
            "[2] button 'b' focused: True",
            "[1] RootWebArea 'A'",
        )[::1]
    )


def test_kinds():
    page = Page("", tuple(Node(str(i), "link 'x'") for i in range(30)))
    assert change_kind(Change(), page) == "unchanged"
    assert change_kind(Change(updated=("x",) * 14), page) == "changed"
    assert change_kind(Change(new=("x",) * 40), page) == "changed"
    assert change_kind(Change(updated=("x",) * 8, deleted=("x",) * 12), page) == "navigation"
    assert change_kind(Change(deleted=("x",) * 5), Page("", page.nodes[:5])) == "changed"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"observation": "<html>"}, "row 2, field observation: line 1"),
        ({"next_observation": ""}, "row 2, field next_observation"),
        ({"action": "click 2"}, "row 2, field action"),
        ({"action": 7}, "row 2, field action: expected a string"),
    ],
)
def test_bad_rows(tmp_path, change, field):
    with pytest.raises(InputError, match=field):
        read_rows(write(tmp_path / "rows.jsonl", [ROW, ROW | change]))


def test_missing_columns_and_files(tmp_path):
    with pytest.raises(InputError, match="row 1: expected the column next_observation"):
        read_rows(write(tmp_path / "rows.jsonl", [{"observation": BEFORE, "action": "click [2]"}]))
    with pytest.raises(InputError, match="no such file"):
        read_rows(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match="at least one"):
        read_rows(write(tmp_path / "empty.jsonl", []))
    record = published_record() | {"prompt": [{"role": "user", "content": "hello"}]}
    with pytest.raises(InputError, match="row 1, field prompt"):
        read_rows(write(tmp_path / "x.parquet", [record]))


def test_real_rows(shared):
    real = read_rows(shared / "data/web/real.jsonl.gz")
    assert len(real) == 100
    assert {row.kind for row in real} == {"unchanged", "changed", "navigation"}
    for row in read_rows(shared / "data/web/generated.jsonl.gz"):
        assert bool(row.next_state.change) == (row.kind != "unchanged")
