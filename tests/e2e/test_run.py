"""The real command, at a size of seconds: a whole run, and one that is killed and goes on to the same bytes."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlvr_world.errors import InputError
from rlvr_world.planning.search import replay
from rlvr_world.runs import runner
from tests import tiny

pytest.importorskip("textworld", reason="the demo's rows come from TextWorld: pip install 'rlvr-world[textgame]'")

TINY = f"""{tiny.MODEL} data.env.games=2 data.env.rows_per_game=20 model.vocabulary=320 sft.steps=4
sft.batch=4 sft.save_every=2 sft.eval_every=2 rl.steps=3 rl.prompts=2 rl.group=2 rl.save_every=1
rl.eval_every=3 rl.drop_zero_variance=false data.max_prompt=2000 data.max_response=12
data.reward=task_specific eval.valid_rows=4 eval.rows=4 plan.starts=2 plan.depth=1""".split()
"""So small a model is always wrong: without ``rl.drop_zero_variance`` weight decay and KL are what moves it."""


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "rlvr_world", *map(str, arguments)]


def call(*arguments: object) -> str:
    done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def metrics(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def whole(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("whole") / "run"
    printed = call("train", "demo", "--out", run, *TINY, f"data.cache={cache}")
    (run / "printed").write_text(printed)
    return run


def test_a_run_explains_itself(whole: Path) -> None:
    assert (whole / "report.html").read_text().startswith("<!doctype html>")
    results = {path.stem: json.loads(path.read_text()) for path in (whole / "eval").glob("*.json")}
    for name in ("base", "sft", "rl-seed0", "control-seed0"):
        assert results[name]["slices"]
        test = runner.opened_run(whole).splits.test
        spread = [test[i * len(test) // 4].id for i in range(4)]
        assert [sample["id"] for sample in results[f"samples-{name}"]] == spread
    assert len({results[name]["fingerprint"] for name in ("base", "sft", "rl-seed0", "control-seed0")}) == 1
    steps = {stage: [row["step"] for row in metrics(whole) if row["stage"] == stage] for stage in ("sft", "rl/seed0")}
    assert steps == {"sft": list(range(5)), "rl/seed0": list(range(4))}
    assert not list(whole.rglob(".partial*"))
    assert not [path for path in whole.rglob("*") if path.suffix in (".pt", ".pth", ".bin", ".pkl")]


def test_it_ends_with_planning_and_with_what_to_do_next(whole: Path) -> None:
    planned = {path.relative_to(whole / "planning").as_posix() for path in whole.glob("planning/*/*.json")}
    tasks, models = ("trained-games", "unseen-games"), ("sft", "rl-seed0", "control-seed0")
    assert planned == {f"{task}/{model}.json" for task in tasks for model in models}
    printed = (whole / "printed").read_text()
    rows = ["sft", "rl/seed0", "control/seed0", "*random*", "*no model*", "*real world, 1 deep*"]
    for task in tasks:
        table = printed.partition(f"{task.replace('-', ' ')}: planners from 2 starts in ")[2].split("\n\n")[1]
        assert [row.split(" | ")[0] for row in table.splitlines()[2:]] == [f"| {row}" for row in rows], task
    page = (whole / "report.html").read_text()
    assert "What the models are good for" in page
    said = printed.partition("next: ")[2].splitlines()
    verbs = [next(w for w in ("play", "predict", "plan") if f" {w} {whole}" in line) for line in said[1:]]
    assert verbs == ["play", "predict", "plan"]
    assert str(whole / "report.html") in said[0]
    row = said[2].split()[-1]
    assert json.loads(call("predict", whole, "--row", row).splitlines()[0])


def test_the_page_on_planning_does_what_it_says(whole: Path) -> None:
    """Its Python, in this run."""
    page = (Path(__file__).parents[2] / "docs" / "planning.md").read_text().replace('"runs/demo', f'"{whole}')
    names = dict[str, Any]()
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(block, names)
    trial, task = names["trial"], names["task"]
    assert trial.asked >= len(trial.actions) > 0, "the model is asked before each action"
    assert trial.won or len(trial.actions) == trial.distance + 1
    assert replay(task, trial) == trial.won


def test_without_goals_there_is_no_planning_and_the_run_stands(whole: Path, cache: Path, tmp_path: Path) -> None:
    """Rows of files are no games that could be won."""
    tiny = [one for one in TINY if not one.startswith(("sft.", "rl."))]
    files = [f"data.train={next(cache.rglob('house-train-*.jsonl.gz'))}", "data.source=files"]
    arguments = ("train", "demo", "--out", tmp_path / "run", *tiny, *files, "sft.steps=1", "rl.steps=0")
    done = subprocess.run(command(*arguments), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "planning left out: " in done.stderr
    assert "has no goals" in done.stderr


def test_models_load_with_transformers_alone(whole: Path) -> None:
    for folder in (whole / "base", *whole.glob("*/step-*"), *whole.glob("*/*/step-*")):
        model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
        inputs = tokenizer('{"name": ', return_tensors="pt")
        assert model(input_ids=inputs["input_ids"]).logits.isfinite().all()


def test_a_run_that_is_done_stays_as_it_is(whole: Path) -> None:
    def weights() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in whole.rglob("*.safetensors")}

    before, rows = weights(), (whole / "metrics.jsonl").read_bytes()
    call("resume", whole)
    assert weights() == before
    assert (whole / "metrics.jsonl").read_bytes() == rows


def test_a_run_folder_can_be_evaluated(whole: Path, tmp_path: Path) -> None:
    printed = call("eval", whole, "--out", tmp_path / "result.json")
    assert str(whole / "rl" / "seed0" / "step-000003") in printed
    again, then = (json.loads(p.read_text()) for p in (tmp_path / "result.json", whole / "eval" / "rl-seed0.json"))
    assert then == {"name": "rl/seed0", "model": "step-000003", **again}


def test_a_stage_that_was_extended_is_evaluated_anew(whole: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    before = json.loads((run / "eval" / "rl-seed0.json").read_text())
    stored = json.loads((run / "config.json").read_text())
    stored["rl"]["steps"] += 1
    (run / "config.json").write_text(json.dumps(stored))
    call("resume", run)
    after = json.loads((run / "eval" / "rl-seed0.json").read_text())
    assert (before["model"], after["model"]) == ("step-000003", "step-000004")


def test_a_killed_run_goes_on_to_the_same_bytes(whole: Path, cache: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for arguments, sign in (
        (("train", "demo", "--out", run, *TINY, f"data.cache={cache}"), "sft/step-000002"),
        (("resume", run), "rl/seed0/step-000001"),
    ):
        process = subprocess.Popen(
            command(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
        )
        deadline = time.monotonic() + 120
        while not (run / sign).exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        os.killpg(process.pid, signal.SIGKILL)
        _, said = process.communicate()
        assert process.returncode == -signal.SIGKILL, said.decode()
    assert not (run / "report.html").exists()
    call("resume", run)
    final = sorted(path.relative_to(whole) for path in whole.rglob("*.safetensors"))
    assert len(final) >= 7  # base; SFT, RL and control, each with its optimizer's state
    assert final == sorted(path.relative_to(run) for path in run.rglob("*.safetensors"))
    for path in final:
        assert (run / path).read_bytes() == (whole / path).read_bytes(), path
    assert (run / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    for path in (whole / "eval").glob("*.json"):
        assert (run / "eval" / path.name).read_text() == path.read_text()


@pytest.mark.parametrize("text", ["", '{"recipe": "de', "[]", '{"model_type": "llama"}'])
def test_a_config_that_is_no_runs_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match=r"config\.json: expected the config of a run"):
        runner.resume(tmp_path)
