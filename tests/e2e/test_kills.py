"""Thirty of the random kills of ``kill_anywhere.py``; docs/runs.md has the table of two hundred."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("textworld", reason="the text run plays TextWorld: pip install 'rlvr-world[textgame]'")
pytest.importorskip("diffusers", reason="the video run trains a tokenizer: pip install 'rlvr-world[video]'")
from tests.e2e.kill_anywhere import browser


@pytest.mark.slow
def test_killed_anywhere_and_resumed_to_the_same_bytes(tmp_path: Path) -> None:
    script = Path(__file__).with_name("kill_anywhere.py")
    done = subprocess.run(
        [sys.executable, str(script), "--kills", "30", "--folder", str(tmp_path)],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "30 kills, 0 differing files" in done.stdout
    stages = ["collection", "sft", "rl/seed0", "evaluation", "tokenizer", *["web collection"] * browser()]
    for stage in stages:
        assert f"| {stage} | {30 // len(stages)} |" in done.stdout
