"""Processes that torchrun starts make the run of one: killed on two, resumed on one and three; and how they fail."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from rlvr_world import cli
from rlvr_world.overrides import override
from rlvr_world.runs import runner
from tests.conftest import free_port
from tests.recipes import test_video

GRID = Path(__file__).resolve().parents[2] / "docs" / "examples" / "grid.py"
TINY = [
    *("data.size=8", "data.walls=8", "data.test=40", "data.valid=8", "model.hidden=96", "model.layers=1"),
    *("model.heads=2", "model.device=cpu", "model.precision=float32", "threads=1", "sft.steps=8", "sft.batch=16"),
    *("sft.save_every=4", "sft.eval_every=4", "rl.steps=6", "rl.prompts=5", "rl.group=4", "rl.save_every=2"),
    *("rl.eval_every=3", "rl.minibatches=2", "control.enabled=false"),
]
BUG = f"""
import os
import sys
from importlib.util import module_from_spec, spec_from_file_location

spec = spec_from_file_location("grid", {str(GRID)!r})
sys.modules["grid"] = grid = module_from_spec(spec)
spec.loader.exec_module(grid)
score = grid.Grid.score


def broken(self, prediction, transition):
    frame, callers = sys._getframe(), set()
    while frame:
        callers, frame = callers | {{frame.f_code.co_name}}, frame.f_back
    if os.environ.get("RANK") == "1" and "scored" in callers:
        raise KeyError("a bug of mine")
    return score(self, prediction, transition)


grid.Grid.score = broken
recipe = grid.recipe
"""

ROUNDED = 5e-6
"""Of the grid world: AdamW makes steps of gradients that are hardly more than rounding. 2e-6 on one processor, below
1e-6 on others."""


def ranks(count: int, *arguments: object) -> subprocess.Popen[str]:
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", count, "--master-port", free_port()]
    return subprocess.Popen(
        [*map(str, start), "-m", "rlvr_world", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def moved(one: Path, many: Path, stage: str) -> dict[str, float]:
    """By how much each of the last weights of a stage differs."""
    [file] = max((one / stage).glob("step-*")).glob("*.safetensors")
    expected, got = load_file(file), load_file(many / file.relative_to(one))
    return {name: (expected[name] - got[name]).abs().max().item() for name in expected}


def assert_same_run(one: Path, many: Path, bound: float = 1e-6) -> None:
    """The same tokens were drawn and the same numbers told; weights differ by rounding alone."""
    for stage in ("sft", "rl/seed0"):
        assert max(moved(one, many, stage).values()) < bound, stage
        for file in (one / stage / "rollouts").glob("*.jsonl.gz"):
            kept, made = (
                [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
                for path in (file, many / file.relative_to(one))
            )
            for name in ("id", "row", "ids", "stream", "value", "written"):
                assert [row[name] for row in kept] == [row[name] for row in made], (file.name, name)
    rows, same = ((run / "metrics.jsonl").read_text().splitlines() for run in (one, many))
    assert [json.loads(row)["stage"] for row in rows] == [json.loads(row)["stage"] for row in same]
    for row, other in zip(rows, same, strict=True):
        numbers, others = ({k: v for k, v in json.loads(text).items() if k != "stage"} for text in (row, other))
        assert numbers == pytest.approx(others, rel=1e-3, abs=1e-4)
    for file in (one / "eval").glob("*.json"):
        result, other = (json.loads(path.read_text()) for path in (file, many / "eval" / file.name))
        for one_of in (result, other) if isinstance(result, dict) else ():
            one_of.pop("checkpoint", None)  # the bytes of the weights
        assert result == other


def test_killed_on_two_ranks_and_resumed_on_one_and_on_three(tmp_path: Path) -> None:
    one, two, three = (tmp_path / name for name in ("one", "two", "three"))
    pairs = (given.split("=") for given in TINY)
    long = [*(f"{k}={v}" for k, v in pairs if k not in ("sft.steps", "rl.steps")), "sft.steps=150", "rl.steps=0"]
    assert cli.main(["train", str(GRID), "--out", str(tmp_path / "start"), *long]) == 0
    given = [*TINY, f"model.source={tmp_path / 'start/sft/step-000150'}", "sft.optimizer.learning_rate=1e-4"]
    given.append("rl.optimizer.learning_rate=3e-5")
    assert cli.main(["train", str(GRID), "--out", str(one), *given]) == 0
    spread = [row["zero_variance"] for row in map(json.loads, (one / "metrics.jsonl").open()) if "zero_variance" in row]
    assert min(spread) < 1  # RL has something to learn: of rounding alone AdamW would make whole steps
    process, deadline = ranks(2, "train", GRID, "--out", two, *given), time.monotonic() + 200
    while not (two / "rl/seed0/step-000002").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    for worker in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        os.kill(int(worker), signal.SIGKILL)
    assert process.wait(200) == 1
    assert not (two / "report.html").exists()
    shutil.copytree(two, three)
    assert cli.main(["resume", str(two)]) == 0
    assert_same_run(one, two, ROUNDED)
    said, _ = (process := ranks(3, "resume", three)).communicate(timeout=200)
    assert process.returncode == 0, said
    assert said.count("report: ") == 1
    assert_same_run(one, three, ROUNDED)


def test_a_bug_on_one_rank_ends_all_and_is_the_one_that_is_told(tmp_path: Path) -> None:
    (tmp_path / "bug.py").write_text(BUG)
    few = ["sft.steps=4", "sft.eval_every=0", "rl.eval_every=0"]
    settings = [given for given in TINY if not given.startswith(("sft.steps", "sft.eval", "rl.eval"))] + few
    started, process = time.monotonic(), ranks(2, "train", tmp_path / "bug.py", "--out", tmp_path / "run", *settings)
    said, _ = process.communicate(timeout=200)
    assert process.returncode == 1
    assert "[rank1]: RuntimeError: row" in said
    assert "a bug of mine" in said
    assert "[rank0]: " not in said
    cause = said.partition("Root Cause")[2]
    assert "rank      : 1" in cause
    assert (tmp_path / "run/faults/rl-seed0-000000/fault.json").is_file()
    assert time.monotonic() - started < 100


def test_video_with_its_visual_tokenizer_on_two_ranks(tmp_path: Path) -> None:
    one, two, same = (tmp_path / name for name in ("one", "two", "same"))
    alone = test_video.config(tmp_path, "pusht", "control.enabled=false")
    given = [*test_video.TINY, f"data.path={tmp_path / 'square'}", f"data.cache={tmp_path / 'a'}"]
    process = ranks(2, "train", "pusht", "--out", two, *given, "control.enabled=false")
    said, _ = process.communicate(timeout=200)
    assert process.returncode == 0, said
    runner.train(override(alone, ["sft.steps=0", "rl.steps=0"]), one)
    differs = moved(one, two, "tokenizer")
    # What is added before a batch norm has no gradient but rounding, which AdamW makes whole steps of.
    free = {"encoder.conv_out.bias", "quant_linear.bias", "quant_norm.running_mean"}
    assert max(n for name, n in differs.items() if name not in free) < 1e-5, differs
    runner.train(override(alone, [f"data.tokenizer.source={two / 'world' / 'visual_tokenizer'}"]), same)
    log = two / "metrics.jsonl"
    log.write_text("".join(line for line in log.read_text().splitlines(True) if '"stage": "tokenizer"' not in line))
    assert_same_run(same, two)
