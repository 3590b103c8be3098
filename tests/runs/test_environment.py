"""A run says what it was made with."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from rlvr_world.runs.cards import environment, write_environment


def test_it_names_versions_machine_threads_and_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["rlvr-world", "train", "demo"])
    said = environment()
    assert said["torch"].startswith(torch.__version__.partition("+")[0])
    assert said["threads"] == torch.get_num_threads()
    assert said["command"] == "rlvr-world train demo"
    assert {"rlvr_world", "commit", "python", "transformers", "system", "processor", "cores", "gpu"} <= set(said)


def test_a_resumed_run_keeps_what_it_began_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_environment(tmp_path)
    first = (tmp_path / "environment.json").read_bytes()
    monkeypatch.setattr(sys, "argv", ["rlvr-world", "resume", "RUN"])
    write_environment(tmp_path)
    assert (tmp_path / "environment.json").read_bytes() == first
    assert json.loads(first)["python"]
