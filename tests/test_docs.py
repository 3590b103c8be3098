"""The example of docs/bring_your_own_world.md runs, scores its own right answers, and is what the page shows."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from rlvr_world.models.text_tokenizer import train_text_tokenizer
from rlvr_world.types import Write

DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.fixture(scope="module")
def grid() -> ModuleType:
    spec = importlib.util.spec_from_file_location("grid", DOCS / "examples" / "grid.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_shows_the_script():
    script = (DOCS / "examples" / "grid.py").read_text()
    page = (DOCS / "bring_your_own_world.md").read_text()
    blocks = [block.partition("```")[0].strip() for block in page.split("```python\n")[1:]]
    assert len(blocks) == 3
    assert all(block in script for block in blocks)


def test_right_answers_score_the_maximum(grid):
    world = grid.Grid(train_text_tokenizer([], vocab_size=259))
    for row in grid.rows():
        write = world.encode(row).tail[0]
        assert isinstance(write, Write)
        assert write.target is not None
        assert world.score(world.decode([write.target[:-1]], row), row).value == 1


def test_the_example_runs(grid, capsys):
    grid.main(sft_steps=2, rl_steps=1)
    assert "| SFT + RL |" in capsys.readouterr().out
