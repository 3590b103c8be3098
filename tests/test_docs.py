"""The example of docs/bring_your_own_world.md scores its own right answers, and is what the page shows.

Whole runs of it are in tests/e2e/test_own_recipe.py.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from types import ModuleType

import pytest

from rlvr_world import InputError, Recipe, recipes
from rlvr_world.models.text_tokenizer import train_text_tokenizer
from rlvr_world.types import Write

DOCS = Path(__file__).resolve().parents[1] / "docs"
SCRIPT, PAGE = DOCS / "examples" / "grid.py", DOCS / "bring_your_own_world.md"


@pytest.fixture(scope="module")
def grid() -> ModuleType:
    module = inspect.getmodule(type(recipes.find(str(SCRIPT))))
    assert module is not None
    return module


def test_the_page_shows_the_script() -> None:
    script, page = SCRIPT.read_text(), PAGE.read_text()
    blocks = [block.partition("```")[0].strip() for block in page.split("```python\n")[1:]]
    assert len(blocks) == 3
    assert all(block in script for block in blocks)
    imports = [line for line in script.splitlines() if line.startswith(("import ", "from "))]
    assert [line for line in imports if line not in page] == ["from __future__ import annotations"]
    assert len(page.splitlines()) <= 160


def test_the_page_names_every_method_of_a_recipe() -> None:
    page = PAGE.read_text()
    methods = {name: value for name, value in vars(Recipe).items() if inspect.isfunction(value)}
    named = {f"`{name}({', '.join([*inspect.signature(value).parameters][1:])})`" for name, value in methods.items()}
    assert {signature for signature in named if signature not in page} == set()


def test_right_answers_score_the_maximum(grid: ModuleType) -> None:
    world = grid.Grid(train_text_tokenizer([], vocab_size=259))
    for row in grid.rows(grid.GridConfig()):
        write = world.encode(row).tail[0]
        assert isinstance(write, Write)
        assert write.target is not None
        prediction = world.decode([write.target[:-1]], row)
        assert world.score(prediction, row).value == 1
        assert world.advance(row.state, row.action, prediction) == row.next_state


def test_wrong_settings_and_questions_are_one_sentence(grid: ModuleType) -> None:
    for settings in ({"size": 1}, {"size": 27}, {"walls": 400}):
        with pytest.raises(InputError, match=r"data\.size"):
            grid.GridConfig(**settings)
    for state in ([3], [3, "x"], [3, 26], [1.0, 2], "ab", 7):
        with pytest.raises(InputError, match="expected a state"):
            grid.recipe.question({"state": state, "action": "north"})
    for action in ("up", ["north"]):
        with pytest.raises(InputError, match="an action of north"):
            grid.recipe.question({"state": [3, 4], "action": action})
    assert grid.recipe.question({"state": [3, 4], "action": "north"}).state == (3, 4)
