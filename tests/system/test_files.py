"""Files that are there whole or not at all, also where several processes write one."""

from __future__ import annotations

import subprocess
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from rlvr_world.system.files import write_whole


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (taken := tmp_path / "taken").mkdir()
    (taken / "inside").touch()
    with pytest.raises(OSError, match="taken"):
        write_whole(taken, "new")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_processes_that_write_one_file_do_not_meet(tmp_path: Path) -> None:
    with ProcessPoolExecutor(2, get_context("fork")) as pool:
        for done in [pool.submit(_write, tmp_path / "file", letter) for letter in "ab"]:
            done.result()
    content = (tmp_path / "file").read_text()
    assert content in ("a" * 100_000, "b" * 100_000)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def _write(file: Path, letter: str) -> None:
    for _ in range(50):
        write_whole(file, letter * 100_000)


def test_what_a_killed_writer_left_goes_with_the_next_write(tmp_path: Path) -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    for writer in (child.pid, 1):  # one is gone, one runs and may still write
        (tmp_path / f".file.{writer}.partial").write_text("half")
    (tmp_path / f".other.{child.pid}.partial").write_text("half")
    write_whole(tmp_path / "file", "whole")
    assert {path.name for path in tmp_path.iterdir()} == {"file", ".file.1.partial", f".other.{child.pid}.partial"}
