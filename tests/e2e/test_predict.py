"""A trained model in use: loaded from a run or a folder copied elsewhere, asked in Python and on the command line."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rlvr_world
from rlvr_world import InputError, Malformed, cli
from rlvr_world.runs.folder import last_model


def test_text_and_pages_are_predicted_right(text: Any, web: Any) -> None:
    for row, state in zip(text.rows, text.world.predict_rows(text.rows), strict=True):
        assert state == row.next_state
    for row, state in zip(web.rows, web.world.predict_rows(web.rows), strict=True):
        assert state.text == row.next_state.text
        assert state.previous == row.action


def test_the_next_state_is_not_looked_at_and_rows_do_not_matter_to_each_other(case: Any) -> None:
    states, actions = [row.state for row in case.rows], [row.action for row in case.rows]
    together = case.world.predict(states, actions)
    known = case.world.predict_rows(case.rows)
    assert all(map(case.same, together, known))
    assert case.same(case.world.predict(states[0], actions[0]), together[0])


def test_samples_are_named_by_their_seed(case: Any) -> None:
    row = case.rows[0]
    samples = case.world.predict(row.state, row.action, n=3, temperature=3.0, seed=1)
    again = case.world.predict(row.state, row.action, n=3, temperature=3.0, seed=1)
    assert len(samples) == 3
    assert all(map(case.same, samples, again))
    others = [case.world.predict(row.state, row.action, n=3, temperature=3.0, seed=seed) for seed in range(2, 6)]
    assert not all(all(map(case.same, samples, other)) for other in others)
    with pytest.raises(InputError, match="n of at least 1"):
        case.world.predict(row.state, row.action, n=0)


def test_a_step_starts_from_what_was_predicted(case: Any) -> None:
    """Sessions go on from an imagined state: it has to be a state that can be asked about."""
    row = case.rows[0]
    state = case.world.predict(row.state, row.action)
    after = case.world.predict(state, row.action)
    assert isinstance(after, Malformed | type(row.state))


def test_a_model_copied_elsewhere_has_all_it_needs(case: Any, tmp_path: Path) -> None:
    """Neither its run, its rows, its episodes nor its visual tokenizer are where they were."""
    copy = Path(shutil.copytree(last_model(case.run), tmp_path / "model"))
    hidden = case.run.parent.with_name(case.run.parent.name + "-away")
    states, actions = [row.state for row in case.rows], [row.action for row in case.rows]
    if hasattr(states[0], "read"):
        states = [state.read() for state in states]
    expected = case.world.predict(states, actions)
    case.run.parent.rename(hidden)
    try:
        got = rlvr_world.load(copy).predict(states, actions)
    finally:
        hidden.rename(case.run.parent)
    assert all(map(case.same, got, expected))


def test_a_model_that_no_run_saved_is_refused(text: Any, tmp_path: Path) -> None:
    shutil.copytree(last_model(text.run), tmp_path / "m", ignore=shutil.ignore_patterns("world"))
    with pytest.raises(InputError, match="it has no folder world"):
        rlvr_world.load(tmp_path / "m")
    (tmp_path / "r").mkdir()
    shutil.copy(text.run / "config.json", tmp_path / "r")
    with pytest.raises(InputError, match=r"holds no trained model yet"):
        rlvr_world.load(tmp_path / "r")


def test_the_verb_predicts_a_row_and_lines_of_json(
    text: Any, web: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    row = text.rows[1]
    assert cli.main(["predict", str(text.run), "--row", row.id]) == 0
    shown = capsys.readouterr().out
    assert json.loads(shown) == json.loads(text.world.recipe.shown(row.next_state))
    question = {"state": json.loads(text.world.recipe.shown(row.state)), "action": row.action}
    (tmp_path / "asked.jsonl").write_text(f"{json.dumps(question)}\n\n{json.dumps(question)}\n")
    assert cli.main(["predict", str(text.run), str(tmp_path / "asked.jsonl")]) == 0
    assert capsys.readouterr().out == shown * 2
    page = {"state": web.rows[0].state.text, "action": web.rows[0].action}
    (tmp_path / "page.jsonl").write_text(json.dumps(page))
    assert cli.main(["predict", str(web.run), str(tmp_path / "page.jsonl"), "--samples", "2"]) == 0
    assert capsys.readouterr().out == f"{web.rows[0].next_state.text}\n" * 2


def test_the_verb_writes_pictures(video: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = video.rows[0]
    assert cli.main(["predict", str(video.run), "--row", row.id, "--out", str(tmp_path)]) == 0
    [file] = capsys.readouterr().out.splitlines()
    assert Path(file).read_bytes().startswith(b"\x89PNG")
    np.savez(tmp_path / "asked.npz", image=row.state.read(), action=row.action)
    assert cli.main(["predict", str(video.run), str(tmp_path / "asked.npz"), "--out", str(tmp_path / "b")]) == 0
    [other] = capsys.readouterr().out.splitlines()
    assert Path(other).read_bytes() == Path(file).read_bytes()


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ("not json", "line 1: expected JSON"),
        ('{"state": {"objects": []}}', "action"),
        ('{"state": 7, "action": "look"}', "state"),
        ('{"state": {"objects": [{"name": "x"}]}, "action": "look"}', "uuid"),
    ],
)
def test_a_question_that_does_not_read_is_one_sentence(
    question: str, words: str, text: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "asked.jsonl").write_text(question)
    assert cli.main(["predict", str(text.run), str(tmp_path / "asked.jsonl")]) == 2
    said = capsys.readouterr().err.strip()
    assert words in said
    assert len(said.splitlines()) == 1


def test_frames_of_another_kind_are_refused(video: Any) -> None:
    row = video.rows[0]
    with pytest.raises(InputError, match=r"field state: expected frames uint8"):
        video.world.predict(row.state.read().astype(np.float32), row.action)
    with pytest.raises(InputError, match=r"actions: expected \[steps, \d+\] numbers"):
        video.world.predict(row.state, row.action[:, :1])


def test_encode_without_a_next_state_asks_the_same(case: Any) -> None:
    for row in case.rows:
        asked = case.world.domain.encode(replace(row, next_state=None))
        assert asked.prompt == case.world.domain.encode(row).prompt
        assert all(getattr(segment, "target", None) is None for segment in asked.tail)


def test_weights_are_those_of_the_checkpoint(text: Any) -> None:
    again = rlvr_world.load(last_model(text.run))
    pairs = zip(text.world.learner.model.parameters(), again.learner.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


README = (Path(__file__).parents[2] / "README.md").read_text()
USE = README.partition("## Use a trained model")[2].partition("\n## ")[0]


def test_the_readme_runs_on_a_text_a_web_and_a_video_run(text: Any, web: Any, video: Any) -> None:
    code = USE.partition("```python\n")[2].partition("```")[0]
    assert '"runs/demo"' in code
    names: dict[str, Any] = {}
    exec(code.replace('"runs/demo"', repr(str(text.run))), names)
    assert len(names["samples"]) == 4
    assert isinstance(names["state"], Malformed | type(text.rows[0].state))
    of_page, of_frames = re.findall(r"^- (?:Web|Video): `(world\.predict\(.*?)`", USE, re.MULTILINE)
    assert "RootWebArea 'Shop'" in eval(of_page, {"world": web.world})  # noqa: S307
    row = video.rows[0]
    frames = eval(of_frames, {"world": video.world, "frames": row.state.read(), "actions": row.action})  # noqa: S307
    assert frames.shape == row.next_state.read().shape
