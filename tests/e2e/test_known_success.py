"""Real success that a user knows, beside what a model of recorded episodes imagines, at the smallest size."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from rlvr_world.cli import main
from rlvr_world.domains.video.readers.npz import write_npz
from tests import tiny

TRAIN = f"""{tiny.MODEL} {tiny.FRAMES} data.source=npz data.frame_skip=1 data.action_pool=1 data.context=1
data.split.kind=every_nth data.split.every=3 data.tokenizer.widths=32,32 data.tokenizer.steps=2 data.tokenizer.batch=2
data.tokenizer.patch_width=32 sft.steps=2 sft.batch=4 sft.eval_every=0 rl.steps=0 eval.rows=2 eval.runs=1
control.enabled=false""".split()
POLICIES = """
import numpy as np
def up(seen):
    assert seen.instruction in ("push the door", "pull the door")
    return np.ones((len(seen.pixels), 2))
def still(seen):
    return np.zeros((len(seen.pixels), 2))
def bright(frames):
    return frames.mean((1, 2, 3)) > np.median(frames.mean((1, 2, 3)))
"""
TASK = {"steps": 3, "starts": {"push the door": "*push*", "pull the door": ["*pull*", "e_eps_99*"]}}
REAL = {"up": [9, 10], "still": [1, 10], "random": 0.25, "gone": 1}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of eighteen episodes, of which each third is held out."""
    root, draw = tmp_path_factory.mktemp("known"), np.random.default_rng(0)
    (root / "episodes").mkdir()
    for n in range(18):
        arrays = {"image": draw.integers(0, 255, (6, 16, 16, 3), np.uint8), "action": draw.normal(size=(6, 2))}
        told = "push the door" if n % 2 else "pull the door"
        write_npz(root / "episodes" / f"e_eps_{n:08d}.npz", {**arrays, "instruction": told})
    (root / "own.py").write_text(POLICIES)
    asked = ["train", "robot", "--out", str(root / "run"), f"data.path={root}/episodes", f"data.cache={root}/cache"]
    assert main([*asked, *TRAIN]) == 0
    return root


def asked(root: Path, tasks: object, *more: str) -> list[str]:
    (root / "rates.json").write_text(json.dumps(tasks))
    own = f"{root}/own.py"
    specs = ["--policy", f"up={own}:up", "--policy", f"still={own}:still", "--policy", "random=random"]
    given = ["--real", str(root / "rates.json"), "--judge", f"{own}:bright", "--starts", "3", *specs]
    return ["policy-eval", str(root / "run"), *given, *more]


@pytest.mark.slow
def test_imagined_success_beside_what_is_known(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(asked(run, {"door": {**TASK, "real": REAL}})) == 0
    said = capsys.readouterr().out
    assert "push the door, pull the door: success at the last of 3 steps, 6 starts" in said
    assert "| up | 90 [60, 98] |" in said
    assert "| random | 25 |" in said
    assert "| a perfect model (19 of 20 times) | ? (?) |" in said  # nobody says of how many episodes a rate is
    folder = run / "run" / "policies" / "door"
    told = json.loads((folder / "report.json").read_text())
    assert np.shape(told["success"]["sft"]) == (3, 6)
    assert [*told["agreement"]] == ["sft", "sft, any step"]
    assert {"report.md", "scatter.png", "film-0.gif"} <= {file.name for file in folder.iterdir()}
    kept = {file: file.stat().st_mtime_ns for file in folder.glob("imagined-*.npz")}
    assert len(kept) == 2
    counted = {"door": {**TASK, "real": {**REAL, "random": [1, 4]}}}
    model = next((run / "run" / "sft").glob("step-*"))
    assert main(asked(run, counted)) == 0
    assert "? (?)" not in capsys.readouterr().out
    assert {file: file.stat().st_mtime_ns for file in folder.glob("imagined-*.npz")} == kept  # rates cost no episode
    assert main(["policy-eval", str(model), *asked(run, counted)[2:], "--only", "door"]) == 0  # a model without a run
    assert "| policy | real | model |" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tasks", "more", "words"),
    [
        ("door", (), "expected tasks in JSON, and a --policy NAME=SPEC, got 'door'"),
        ({"door": {**TASK, "real": REAL, "colour": 1}}, (), "task door: expected the keys steps, at least 1, starts"),
        ({"door": {**TASK, "steps": True, "real": REAL}}, (), "task door: expected the keys steps, at least 1, starts"),
        ({"door": {**TASK, "real": {**REAL, "up": 1.5}}}, (), r"real, up: expected a rate from 0 to 1, or \[succ.*1.5"),
        ({"door": {**TASK, "real": {**REAL, "up": [3, 2]}}}, (), "real, up: expected a rate from 0 to 1"),
        ({"door": {**TASK, "real": {**REAL, "up": [0.5, 2]}}}, (), "real, up: expected a rate from 0 to 1"),
        ({"door": {**TASK, "real": {"up": 1}}}, (), "real: expected success of up, still, random, got"),
        (
            {"door": {**TASK, "starts": {"go": "x*"}, "real": REAL}},
            (),
            "starts of 'go', 'x\\*': expected 3 of 6 test episodes, such as .*got 0",
        ),
        (
            {"door": {**TASK, "real": REAL}},
            ("--starts", "4"),
            "expected 4 of 6 test episodes, such as .* lower --starts.*got 3",
        ),
        ({"door": {**TASK, "real": REAL}}, ("--controls",), "--real: expected no --controls or --lookahead"),
        ({"door": {**TASK, "real": REAL}}, ("--lookahead", "4"), "--real: expected no --controls or --lookahead"),
        ({"door": {**TASK, "real": REAL}}, ("--judge", "learned"), "expected policies and a judge that need no simul"),
        ({"door": {**TASK, "real": REAL}}, ("--policy", "up=clone:4"), "expected policies and a judge that need no"),
        ({"door": {**TASK, "real": REAL}}, ("--only", "window"), r"got \['window'\] and 3"),
    ],
)
def test_what_is_refused(
    run: Path, tasks: object, more: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(asked(run, tasks, *more)) == 2
    assert re.search(words, err := capsys.readouterr().err)
    assert len(err.strip().splitlines()) == 1
