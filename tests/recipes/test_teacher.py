"""Rejection sampling against a real HTTP server on this machine: what verifies is kept, and reads back as SFT rows."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from rlvr_world.config import ModelConfig, OptimizerConfig, SFTConfig
from rlvr_world.domains.splits import WorldSplitRule
from rlvr_world.domains.text_game.config import PromptStyle
from rlvr_world.domains.text_game.prompt import build_answer, build_prompt
from rlvr_world.domains.text_game.rows import read_rows
from rlvr_world.domains.web_page.rows import read_rows as read_pages
from rlvr_world.errors import InputError
from rlvr_world.models.loading import create_model, save_model
from rlvr_world.models.text_tokenizer import train_text_tokenizer
from rlvr_world.recipes import chat as module
from rlvr_world.recipes import find
from rlvr_world.recipes.teacher import Teacher as Asked
from rlvr_world.recipes.teacher import teach
from rlvr_world.training.learner import Learner
from rlvr_world.training.sft import SFT
from tests.recipes.published_layout import page_record, parquet

OPENED = {"name": "door (ID: 1)", "uuid": 1, "type": "Door", "properties": {"isShut": False}, "contains": []}
RIGHT = f"The final answer is: {json.dumps({'modified': [OPENED], 'removed': [], 'score': {}})}"
WRONG = 'The final answer is: {"modified": [], "removed": [], "score": {}}'


def row(number: int, opens: bool) -> dict[str, Any]:
    def state(door: dict[str, Any]) -> dict[str, Any]:
        return {"objects": [door], "max_UUID": 2, "lastAction": f"open {number}"}

    shut = state({**OPENED, "properties": {"isShut": True}})
    after = state(OPENED) if opens else shut
    score = {"score": 0, "gameOver": False, "gameWon": False}
    return {
        "current_state": shut, "action_state": after, "tick_state": after, "current_score_state": score,
        "next_score_state": score, "game": "house", "state_id": number,
    }  # fmt: skip


class Teacher(BaseHTTPRequestHandler):
    """Right about `open 1`; about `open 2` only when asked a second time; never about others."""

    asked: list[str]
    busy: list[int]
    late: str
    """The row whose answer is refused after all others have come."""

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        number = request["messages"][0]["content"].split("open ")[-1].split()[0].strip("'\".")
        type(self).asked.append(number)
        right = number == "1" or (number == "2" and self.asked.count("2") > 1)
        message = {"reasoning_content": f"Thinking of {number}. ", "content": RIGHT if right else WRONG}
        if number == type(self).late:
            time.sleep(1)
            self.send_error(400)
            return
        if type(self).busy:
            self.send_error(type(self).busy.pop())
            return
        self.send_response(200 if request["model"] == "r1" else 404)
        self.end_headers()
        usage = {"prompt_tokens": 90, "completion_tokens": 10, "total_tokens": 100}
        self.wfile.write(json.dumps({"choices": [{"message": message}], "usage": usage}).encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the test's output quiet."""


@pytest.fixture
def server() -> Iterator[str]:
    Teacher.asked, Teacher.busy, Teacher.late = [], [], ""
    http = ThreadingHTTPServer(("127.0.0.1", 0), Teacher)
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{http.server_port}/v1"
    http.shutdown()
    thread.join()
    http.server_close()


def config(tmp_path: Path) -> Any:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row(n, opens=n < 4)) + "\n" for n in range(1, 50)))
    recipe = find("bytesized32").config()
    style = PromptStyle(instructions=True, rules=False)
    data = replace(recipe.data, train=str(rows), test=str(rows), split=WorldSplitRule(valid=0.02), style=style)
    return replace(recipe, data=data, sft=replace(recipe.sft, reasoning=True))


def test_only_changed_rows_are_asked_and_only_verified_answers_kept(server: str, tmp_path: Path) -> None:
    out = tmp_path / "kept.jsonl"
    assert teach(config(tmp_path), out, Asked("r1", server, samples=2)) == (2, 3)
    assert sorted(Teacher.asked) == ["1", "2", "2", "3", "3"]
    kept = sorted(read_rows(out, "answer"), key=lambda t: t.action)  # they are asked at once, and written as they come
    assert [(t.action, t.kind, t.world) for t in kept] == [
        ("open 1", "changed", "house"),
        ("open 2", "changed", "house"),
    ]
    assert kept[1].reasoning == "Thinking of 2. \n</think>\n\n" + RIGHT
    original = read_rows(tmp_path / "rows.jsonl")
    assert [(t.state, t.next_state) for t in kept] == [(t.state, t.next_state) for t in original[:2]]
    assert teach(config(tmp_path), out, Asked("r1", server)) == (0, 0), "no row is asked again, right or wrong"
    (tmp_path / "kept.wrong.jsonl").unlink()
    assert teach(config(tmp_path), out, Asked("r1", server)) == (0, 1)


def test_a_server_that_refuses_is_a_sentence(server: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"teacher r2 at .*404.*check the url"):
        teach(config(tmp_path), tmp_path / "kept.jsonl", Asked("r2", server))


def test_a_busy_server_is_asked_again_and_its_cost_told(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(module.time, "sleep", waited.append)
    Teacher.busy = [503, 429, 500]
    asked = Asked("r1", server, at_once=1)
    assert teach(config(tmp_path), tmp_path / "kept.jsonl", asked) == (1, 3)
    assert [wait for wait in waited if wait] == [1.0, 2.0, 4.0]
    assert asked.tokens == [100, 100, 100]
    Teacher.busy = [429] * 6
    with pytest.raises(InputError, match=r"got HTTPStatusError: .*429"):
        teach(config(tmp_path), tmp_path / "other.jsonl", Asked("r1", server, at_once=1))


def test_answers_that_came_are_kept_where_a_row_before_them_fails(server: str, tmp_path: Path) -> None:
    Teacher.late = "1"
    out = tmp_path / "kept.jsonl"
    with pytest.raises(InputError, match="400"):
        teach(config(tmp_path), out, Asked("r1", server, samples=2))
    assert [t.action for t in read_rows(out, "answer")] == ["open 2"]
    Teacher.late = ""
    assert teach(config(tmp_path), out, Asked("r1", server, samples=2)) == (1, 1), "3 was wrong and is not asked again"


def test_a_line_that_was_cut_off_is_asked_again(server: str, tmp_path: Path) -> None:
    out = tmp_path / "kept.jsonl"
    teach(config(tmp_path), out, Asked("r1", server, samples=2))
    whole = out.read_bytes()
    out.write_bytes(whole[:-9])
    assert teach(config(tmp_path), out, Asked("r1", server, samples=2)) == (1, 1)
    assert out.read_bytes() == whole


def test_a_share_of_unchanged_rows_is_asked_too(server: str, tmp_path: Path) -> None:
    _, every = teach(config(tmp_path), tmp_path / "all.jsonl", Asked("r1", server, unchanged=1.0))
    _, some = teach(config(tmp_path), tmp_path / "some.jsonl", Asked("r1", server, unchanged=0.5))
    assert 10 < some < every
    assert {t.kind for t in read_rows(tmp_path / "some.jsonl", "answer")} == {"changed", "unchanged"}


def test_web_rows_are_asked_and_video_is_refused(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = [page_record(n, f"click [3] where [3] is link 'open {n % 2} '") for n in range(20)]
    file = parquet(tmp_path / "rows.parquet", records)
    settings = find("webarena-published").config()
    settings = replace(settings, data=replace(settings.data, train=str(file), test=str(file)))
    right = records[0]["reward_model"]["ground_truth"]
    monkeypatch.setattr(sys.modules[__name__], "RIGHT", f"It is clicked.\n{right}")
    kept, asked = teach(settings, tmp_path / "kept.jsonl", Asked("r1", server))
    assert 0 < kept < asked
    rows = read_pages(tmp_path / "kept.jsonl", "published", "answer", any_action=True)
    assert {row.prompt for row in rows} <= {record["prompt"][0]["content"] for record in records[1::2]}
    assert all(row.reasoning.endswith(f"It is clicked.\n{right}") for row in rows)
    with pytest.raises(InputError, match="recipe pusht: a teacher writes text"):
        teach(find("pusht").config(), tmp_path / "kept.jsonl", Asked("r1", server))


def test_a_model_loaded_here_teaches_what_it_knows(tmp_path: Path) -> None:
    settings = config(tmp_path)
    style = PromptStyle(instructions=False, rules=False, literals="json")
    model_settings = replace(settings.model, precision="float32", device="cpu")
    settings = replace(settings, data=replace(settings.data, style=style, max_response=200), model=model_settings)
    rows = [row for row in read_rows(settings.data.train) if row.kind == "changed"]
    tokenizer = train_text_tokenizer(
        [build_prompt(r, style, None) + build_answer(r, False) for r in rows], 600, "fields"
    )
    learner = Learner(
        create_model(ModelConfig(hidden=32, layers=1, heads=2, context=512), len(tokenizer), tokenizer),
        tokenizer,
        model_settings,
        OptimizerConfig(1e-2),
    )
    domain = find("bytesized32").domain(settings, learner.model, tokenizer, None)
    stage = SFT(learner, SFTConfig(batch=len(rows)), domain.encode, rows, seed=0)
    for step in range(100):
        stage.step(step, 0.5)
    save_model(learner.model, tokenizer, tmp_path / "model")
    out = tmp_path / "kept.jsonl"
    kept, asked = teach(settings, out, Asked(str(tmp_path / "model"), samples=4))
    assert (kept, asked) == (3, 3)
    assert [t.action for t in read_rows(out, "answer")] == ["open 1", "open 2", "open 3"]
