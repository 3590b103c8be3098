"""What a user meets who gives the command something wrong: one sentence, exit code 2, nothing left behind."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

RECIPE = "bytesized32"


def state(shut: bool, last_action: str) -> dict[str, Any]:
    door = {"name": "door (ID: 1)", "uuid": 1, "type": "Door", "properties": {"isShut": shut}, "contains": []}
    agent = {"name": "agent (ID: 0)", "uuid": 0, "type": "Agent", "properties": {}, "contains": []}
    texts = {"observation": "", "look": "", "inventory": "", "taskDesc": "Open the door."}
    return {**texts, "lastAction": last_action, "objects": [agent, door], "max_UUID": 2}


def rows(count: int = 40) -> list[dict[str, Any]]:
    score = {"score": 0, "gameOver": False, "gameWon": False}
    return [
        {
            "current_state": state(True, ""),
            "action_state": state(False, f"open door {number}"),
            "tick_state": state(False, f"open door {number}"),
            "current_score_state": score,
            "next_score_state": score,
            "game": "house",
            "state_id": number,
        }
        for number in range(count)
    ]


def write(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_bytes(gzip.compress("".join(json.dumps(record) + "\n" for record in records).encode()))
    return path


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """The settings that name good row files."""
    good = write(tmp_path / "good.jsonl.gz", rows())
    return [f"data.train={good}", f"data.test={good}"]


def refuse(arguments: list[str], *words: str, out: Path) -> None:
    """Run the command and check that it refuses in one sentence that has ``words``, leaving no run at ``out``."""
    done = subprocess.run(
        [sys.executable, "-m", "rlvr_world", *arguments], capture_output=True, text=True, timeout=300, check=False
    )
    said = done.stderr.strip()
    assert done.returncode == 2, done.stderr + done.stdout
    assert len(said.splitlines()) == 1, said
    assert said.startswith("rlvr-world: ")
    assert all(word in said for word in words), said
    assert not out.exists()


def train(tmp_path: Path, settings: list[str], *words: str) -> None:
    out = tmp_path / "run"
    refuse(["train", RECIPE, "--out", str(out), *settings], *words, out=out)


def test_a_missing_file(tmp_path: Path, files: list[str]) -> None:
    train(tmp_path, [f"data.train={tmp_path / 'gone.jsonl.gz'}", files[1]], "gone.jsonl.gz", "no such file")


def test_an_unknown_setting_names_the_nearest(tmp_path: Path, files: list[str]) -> None:
    train(tmp_path, [*files, "rl.stesp=3"], "'rl.stesp'", "'rl.steps'")


def test_a_model_folder_without_its_tokenizer(tmp_path: Path, files: list[str]) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    model = tmp_path / "model"
    shape = LlamaConfig(vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    LlamaForCausalLM(shape).save_pretrained(model)
    train(tmp_path, [*files, f"model.source={model}"], str(model), "tokenizer")
    refuse(["eval", str(model), "--recipe", RECIPE, *files], str(model), "tokenizer", out=tmp_path / "run")


def test_eval_takes_no_setting_that_would_do_nothing(tmp_path: Path, files: list[str]) -> None:
    draws = ["eval", str(tmp_path), "--recipe", RECIPE, *files, "eval.samples=4"]
    refuse(draws, "eval.samples", "eval.temperature=1 eval.runs=N", out=tmp_path / "run")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_recipe_on_a_machine_without_one(tmp_path: Path, files: list[str]) -> None:
    train(tmp_path, [*files, "model.device=cuda"], "cuda", "GPU")


def test_a_device_that_no_run_uses(tmp_path: Path, files: list[str]) -> None:
    train(tmp_path, [*files, "model.device=mps"], "one of auto, cpu, cuda", "'mps'", "Apple's mps is not used")


def test_a_run_folder_that_is_taken_is_left_alone(tmp_path: Path, files: list[str]) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "config.json").write_text("{}")
    done = subprocess.run(
        [sys.executable, "-m", "rlvr_world", "train", RECIPE, "--out", str(out), *files],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert str(out) in done.stderr
    assert "resume" in done.stderr
    assert [path.name for path in out.iterdir()] == ["config.json"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train"], ["RECIPE"]),
        (["train", "demo", "--steps", "3"], ["--steps", "a.b=c"]),
        (["resume", "run", "rl.steps=3"], ["rl.steps=3"]),
        (["fly"], ["fly"]),
    ],
)
def test_a_command_that_does_not_parse(arguments: list[str], words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rlvr_world", *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert all(word in done.stderr for word in words), done.stderr
    assert "Traceback" not in done.stderr


def test_help_comes_without_torch() -> None:
    """Help must be quick: torch alone takes seconds to import."""
    code = "import sys, rlvr_world.cli as c; c.build_parser().format_help(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False"
