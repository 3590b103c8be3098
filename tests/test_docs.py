"""What the README and the pages show: commands that parse, settings that there are, sentences that are said, and an
example that scores its own right answers.

Whole runs of the example are in tests/e2e/test_own_recipe.py, of the README's code in test_one_script.py and
test_predict.py, of docs/planning.md in test_run.py, of docs/reproduce.md in test_reproduce.py.
"""

from __future__ import annotations

import inspect
import re
import shlex
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rlvr_world import InputError, Recipe, cli, recipes
from rlvr_world.cli.parser import config_of
from rlvr_world.models.text_tokenizer import train_text_tokenizer
from rlvr_world.overrides import override
from rlvr_world.recipes.embedded import env_settings
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


PAGES = [DOCS.parent / "README.md", *sorted(DOCS.rglob("*.md"))]


def commands(page: Path) -> list[str]:
    """The lines of a page's shell blocks that call this program, without what is piped into them."""
    text = re.sub(r"\\\n\s*", "", page.read_text())
    lines = [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    return [line[line.index("rlvr-world ") :] for line in lines if re.match(r"(.*\| |\S+=\S+ )?rlvr-world ", line)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_parses_and_its_settings_are_there(page: Path, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "docs").symlink_to(DOCS)
    (tmp_path / "login.py").touch()
    (tmp_path / "mine.args").write_text("json_world\ndata.train=rows.jsonl\n")
    monkeypatch.chdir(tmp_path)
    for command in commands(page):
        given = shlex.split(command, comments=True)[1:]
        ends = [place for place, one in enumerate(given) if re.match(r"\d?[<>|&]", one)]
        given = [one.replace("…", "x") for one in given[: ends[0] if ends else None]]
        if "--help" in given or given[0].isupper():
            continue
        args = cli.parse(given)
        recipe = getattr(args, "recipe", None)
        if recipe and not recipe.isupper() and (recipe in recipes.recipes() or Path(recipe).is_file()):
            config_of(args)
        elif world := getattr(args, "world", ""):
            override(env_settings(world), args.settings)


def test_commands_are_found() -> None:
    assert sum(len(commands(page)) for page in PAGES) > 60


def test_every_page_has_its_place() -> None:
    placed = re.findall(r": ([\w/]+\.md)$", (DOCS.parent / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(placed) == sorted(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md"))


def test_sentences_of_the_help_page_are_said() -> None:
    code = "".join(path.read_text() for path in sorted((DOCS.parent / "rlvr_world").rglob("*.py")))
    code = re.sub(r'"\s*\n\s*f?"', "", code)  # a sentence may stand on two lines
    headings = [line for line in (DOCS / "faq.md").read_text().splitlines() if line.startswith("### ")]
    said = [words for line in headings for words in re.findall(r"`([^`]+)`", line)]
    assert len(said) > 12
    assert [words for words in said if words not in code] == []


def test_two_intervals_are_no_link() -> None:
    """Where the second bracket is not escaped, `make docs` looks for a page of that name and stops."""
    for page in PAGES:
        assert "] [" not in re.sub(r"(?s)```.*?```|`[^`]*`", "", page.read_text()), page


def test_paragraphs_are_short() -> None:
    """At most five lines each."""
    for page in PAGES:
        parts = re.sub(r"(?s)```.*?```", "", page.read_text()).split("\n\n")
        assert [part for part in parts if part.count("\n") >= 5 and part.lstrip()[:1] not in "|-1:"] == [], page
