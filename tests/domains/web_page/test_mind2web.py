"""The script that makes rows of Mind2Web's files: pages of HTML come as trees, and steps are joined."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rlvr_world.domains.web_page.rows import read_rows

SCRIPT = Path(__file__).resolve().parents[3] / "docs/examples/mind2web.py"

PAGE = """<html backend_node_id="1"><head><title backend_node_id="2">Tock</title></head><body backend_node_id="3">
<div backend_node_id="4"><a backend_node_id="5" aria_label="Home"/><h2 backend_node_id="6"><text
 backend_node_id="7">It's near</text></h2></div><select backend_node_id="8" name="kind">
<option backend_node_id="9" option_selected="true">
<text backend_node_id="10">Dine in</text></option></select><input backend_node_id="11" type="search" placeholder="City"
 input_value="{city}"><button backend_node_id="12"><span backend_node_id="13"><text backend_node_id="14">Search</text>
</span></button><label backend_node_id="15"><input backend_node_id="16" type="checkbox" input_checked="{ticked}"/>
<text backend_node_id="17">Open now</text></label><div backend_node_id="18" role="tab"><text>Map</text></div>
</body></html>"""
TREE = """[1] RootWebArea ''
\t[5] link 'Home'
\t[6] heading "It's near"
\t[8] combobox ''
\t\t[9] option 'Dine in' selected: true
\t[11] searchbox 'City'{city}
\t[12] button 'Search'
\t[16] checkbox '' checked: {ticked}
\t[17] StaticText 'Open now'
\t[18] tab ''
\t\tStaticText 'Map'"""


def mind2web(*files: Path) -> str:
    return subprocess.run(
        [sys.executable, SCRIPT, *files], capture_output=True, text=True, check=True, timeout=60
    ).stdout


def step(op: str, value: str, *ids: str, city: str = "", ticked: str = "false") -> dict[str, Any]:
    candidates = [{"tag": "x", "backend_node_id": one, "attributes": "{}"} for one in ids]
    about = {"action_uid": "u", "raw_html": "<html></html>", "neg_candidates": []}
    page = PAGE.format(city=city, ticked=ticked)
    done = {"op": op, "original_op": op, "value": value}
    return {**about, "cleaned_html": page, "operation": done, "pos_candidates": candidates}


STEPS = [
    step("TYPE", "Bonn", "11"),
    step("CLICK", "", "13", city="Bonn"),  # inside the button, which stands for it
    step("SELECT", "Dine in", "8", city="Bonn"),
    step("CLICK", "", "99", "16", city="Bonn"),  # the first candidate was cleaned away
    step("CLICK", "", city="Bonn", ticked="true"),  # nothing says on what
    step("CLICK", "", "5"),
]


def task(steps: list[dict[str, Any]]) -> dict[str, Any]:
    about = {"annotation_id": "a1", "website": "tock", "domain": "Travel", "confirmed_task": "Book a table"}
    return {**about, "action_reprs": ["..."], "actions": steps}


@pytest.mark.parametrize("multimodal", [False, True])
def test_tasks_and_steps_become_rows(tmp_path: Path, multimodal: bool) -> None:
    records = [task(STEPS)]
    if multimodal:  # a row a step, whose objects are written as JSON
        records = []
        for number, one in enumerate(STEPS):
            about = {key: value for key, value in task([]).items() if key != "actions"}
            found = [json.dumps(candidate) for candidate in one["pos_candidates"]]
            given = {"operation": json.dumps(one["operation"]), "pos_candidates": found}
            records.append({**about, **one, **given, "target_action_index": str(number)})
    (tmp_path / "train_0.json").write_text(json.dumps(records))
    said = mind2web(tmp_path / "train_0.json", tmp_path / "rows.jsonl")
    assert "6 steps, 1 of them on what the page does not show; next: rlvr-world init" in said
    rows = read_rows(tmp_path / "rows.jsonl")
    actions = ["type [11] [Bonn] [0]", "click [12]", "select_option('8', 'Dine in')", "click [16]"]
    assert [row.action for row in rows] == actions  # what follows the step that nobody knows is joined to nothing
    assert rows[0].state.text == TREE.format(city="", ticked="false")
    assert rows[0].next_state.text == TREE.format(city="\n\t\tStaticText 'Bonn'", ticked="false")
    assert [row.kind for row in rows] == ["changed", "unchanged", "unchanged", "changed"]
    assert (rows[3].world, rows[3].state.goal, rows[3].state.episode) == ("tock", "Book a table", "tock/a1")
    assert rows[3].state.previous == rows[2].action
