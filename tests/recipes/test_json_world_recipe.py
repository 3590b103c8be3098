"""Rows of any JSON as a recipe: split by question, asked, checked, trained on, predicted and stepped in a session."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import rlvr_world
from rlvr_world import Imagined, Malformed, Session, cli
from rlvr_world.models.text_tokenizer import train_text_tokenizer
from rlvr_world.overrides import override
from rlvr_world.recipes import find
from rlvr_world.recipes.init import described

TINY = """threads=1 model.device=cpu model.precision=float32 model.vocabulary=400 model.layers=1 model.hidden=32
model.heads=2 sft.steps=60 sft.batch=8 sft.eval_every=0 rl.steps=1 rl.prompts=2 rl.group=2 rl.eval_every=0 eval.rows=3
eval.valid_rows=2 control.enabled=false guards.still_steps=0 guards.flat_steps=0""".split()  # noqa: SIM905


def write_rows(folder: Path) -> Path:
    """A lamp is lit and put out in some rooms; once it is lit the game is won."""
    lines = []
    for number in range(60):
        lit = number % 2 == 1
        state = {"room": f"room {number % 7}", "items": [{"id": "lamp", "lit": not lit}, {"id": f"key {number % 5}"}]}
        after = {**state, "items": [{"id": "lamp", "lit": lit}, state["items"][1]]}
        action = "light lamp" if lit else "douse lamp"
        row = {"state": state, "action": action, "next_state": after, "score": int(lit), "done": lit}
        lines.append(json.dumps({**row, "world": f"house{number % 3}"}) + "\n")
    (folder / "rows.jsonl").write_text("".join(lines))
    return folder / "rows.jsonl"


def test_rows_go_to_a_report_and_a_session(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [f"data.train={write_rows(tmp_path)}", *TINY]
    assert cli.main(["check", "json_world", *given]) == 0, capsys.readouterr()
    assert cli.main(["train", "json_world", *given, "--out", str(tmp_path / "run")]) == 0, capsys.readouterr()
    assert "no change" in (tmp_path / "run/report.html").read_text()
    world = rlvr_world.load(tmp_path / "run")
    state = {"score": 0, "done": False, "room": "room 1", "items": [{"id": "lamp", "lit": False}, {"id": "key 1"}]}
    told = world.predict(state, "light lamp")
    session = Session(Imagined(world, temperature=0.0, attempts=1), horizon=3)
    seen, _ = session.reset(options={"state": json.dumps(state)})
    assert json.loads(seen) == state
    seen, *_, info = session.step("light lamp")
    assert info["malformed"] == told.reason if isinstance(told, Malformed) else json.loads(seen) == told


def opened(tmp_path: Path, *more: str) -> tuple[Any, Any, Any]:
    recipe = find("json_world")
    config = override(recipe.config(), [f"data.train={write_rows(tmp_path)}", *TINY, *more])
    splits = recipe.splits(config)
    tokenizer = train_text_tokenizer(recipe.texts(config, splits), 400)
    return recipe, splits, recipe.domain(config, None, tokenizer, None)  # type: ignore[arg-type]


def test_a_session_is_rewarded_by_the_points_that_the_state_gains(tmp_path: Path) -> None:
    recipe, splits, domain = opened(tmp_path)
    row = next(row for row in splits.train if row.action == "light lamp")
    scene = recipe.scene(None, domain)
    script = scene.script(json.dumps(row.state), row.action)
    assert script == domain.encode(recipe.question({"state": row.state, "action": row.action}))
    answer = domain.encode(row).tail[0].target[:-1]
    [outcome] = scene.follow([(json.dumps(row.state), row.action)], [[answer]])
    assert (outcome.state, outcome.reward, outcome.terminated) == (row.next_state, 1.0, True)
    [lost] = scene.follow([(row.state, row.action)], [[answer[:-2]]])
    assert "malformed" in lost.info


def test_worlds_and_questions_are_held_out_and_given_test_rows_can_be(tmp_path: Path) -> None:
    _, splits, _ = opened(tmp_path, "data.split.worlds=0.3")
    assert len({row.world for row in splits.train}) == 2
    assert len({row.world for row in splits.test}) == 3
    again = f"data.test={write_rows(tmp_path)}"
    with pytest.raises(rlvr_world.InputError, match="leave none to train on"):
        opened(tmp_path, again, "data.deduplicate=true")
    _, splits, _ = opened(tmp_path, again)
    assert len(splits.test) == 60


def test_reasoning_is_what_is_fitted_and_a_teacher_is_told_the_task(tmp_path: Path) -> None:
    file = write_rows(tmp_path)
    rows = [{**json.loads(line), "why": f"hm {n}"} for n, line in enumerate(file.read_text().splitlines())]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = find("json_world")
    config = override(recipe.config(), [f"data.train={file}", *TINY, "data.reasoning_column=why", "sft.reasoning=true"])
    splits = recipe.splits(config)
    assert {row.reasoning[:3] for row in splits.sft} == {"hm "}
    tokenizer = train_text_tokenizer(recipe.texts(config, splits), 400)
    domain, row = recipe.domain(config, None, tokenizer, None), splits.sft[0]  # type: ignore[arg-type]
    assert tokenizer.decode(domain.encode(row).tail[0].target[:-1]) == row.reasoning
    assert domain.taught(row).startswith("You simulate a world")
    assert (domain.graded(domain.answer(row), row), domain.graded("no", row)) == (1, 0)


def test_a_wrong_explanation_shows_both(tmp_path: Path) -> None:
    _, splits, domain = opened(tmp_path)
    row = next(row for row in splits.train if row.action == "light lamp")
    said = domain.explain({**row.next_state, "items": row.state["items"], "room": "cave"}, row)
    assert "- /items/lamp/lit: False -> True" in said
    assert "+ /room: 'room" in said
    assert "  /done: False -> True" in said
    assert "malformed: no" in domain.explain(Malformed("no"), row)


def test_init_writes_what_trains_on_rows(tmp_path: Path, house: Any, capsys: pytest.CaptureFixture[str]) -> None:
    rows, file = write_rows(tmp_path), tmp_path / "mine.args"
    rows.write_text(rows.read_text() + '{"state": 1}\n')
    assert cli.main(["init", str(rows), "--out", str(file)]) == 0, capsys.readouterr()
    seen = capsys.readouterr()
    assert "| test | 6 |" in seen.out
    assert "true answer scores as it should" in seen.out
    assert "left out: 1 rows" in seen.err
    name, *settings = file.read_text().splitlines()
    assert name == "json_world"
    assert {f"data.train={rows}", "data.skip_faulty=true", "sft.batch=4"} < {*settings}
    assert cli.main(["init", str(rows), "--out", str(file)]) == 2
    assert "expected no such file yet" in capsys.readouterr().err
    assert cli.main(["check", f"@{file}"]) == 0
    capsys.readouterr()
    assert cli.main(["inspect", f"@{file}"]) == 0
    seen = capsys.readouterr().out
    assert "| test | 6 | " in seen
    assert "faults: 1\n- " in seen
    assert "/items/lamp/lit: False -> True" in seen
    assert re.search(r"\| answer \| \d+(\.5)? \| [\d.]+ \| \d+ \|", seen)
    assert described(str(house(30)))[0] == "bytesized32"
    (tmp_path / "other.jsonl").write_text('{"x": 1}')
    with pytest.raises(rlvr_world.InputError, match=r"got none; as bytesized32: .*; as miniwob: .*; as json_world: "):
        described(str(tmp_path / "other.jsonl"))
