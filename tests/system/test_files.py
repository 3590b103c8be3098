"""Files that are there whole or not at all, also where several processes write one."""

from __future__ import annotations

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
