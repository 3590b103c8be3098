"""The house as docs/architecture.md draws it: what imports what, the walls, and how large things may be.

`python tests/test_architecture.py` draws the page's diagram and its column of imports again.

Imports are read, not run: absolute ones, wherever they stand, functions included, and `import_module("rlvr_world...")`.
Those under TYPE_CHECKING count for walls and for the diagram, because a type that is named is known. They do not
count for circles, and neither do those inside functions: none of them happens while a module is imported.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "rlvr_world"
PAGE = ROOT / "docs" / "architecture.md"
ROOMS = {path.parent.name for path in (ROOT / PACKAGE).glob("*/*.py")}
NOUNS = {"types", "errors", "config", "overrides", "scoring"}
"""Modules beside the rooms, which every room may import."""
ABOVE = {"sampling", "training", "evaluation", "runs", "diagnose", "recipes", "sessions", "planning", "policies", "cli"}
WALLS = {
    "domains": ABOVE,
    "vision": ABOVE | {"domains", "models"},
    "training": {"domains", "runs"},
    "planning": ABOVE - {"recipes", "sessions", "planning"} | {"domains", "models", "vision"},
    "policies": ABOVE - {"recipes", "sessions", "policies"} | {"domains", "models", "vision"},
    **{
        room: {"domains"}
        for room in ("sampling", "evaluation", "runs", "diagnose", "sessions", "cli", "models", "system")
    },
}
"""What each room must not import. Only ``recipes`` imports domains."""
CONSTRUCTORS = {"vision/frame_tokenizer.py: __init__", "vision/compressive_tokenizer.py: __init__"}
"""Their fields are those of published config files."""
MOST_LINES, LONGEST_FILE, MOST_PARAMETERS = 26_910, 350, 7


@dataclass(frozen=True)
class Import:
    """One import statement's target, as it is written."""

    name: str
    line: int
    relative: bool = False
    late: bool = False
    """Inside a function, or for type checkers alone."""


def imports(source: str) -> Iterator[Import]:
    """Every import of a module, wherever it stands."""

    def walk(node: ast.AST, late: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, False, late) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = f"{node.module}." if node.module else ""
            yield from (Import(base + alias.name, node.lineno, node.level > 0, late) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from (
                Import(str(a.value), node.lineno, False, True) for a in node.args if isinstance(a, ast.Constant)
            )
        inside = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        typed = node.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test) else []
        for child in ast.iter_child_nodes(node):
            yield from walk(child, late or inside or child in typed)

    yield from walk(ast.parse(source), False)


def room_of(name: str) -> str:
    """The room of a module, or of what is imported from one; "" of what lies beside the rooms and of other packages."""
    package, _, rest = name.partition(".")
    first = rest.partition(".")[0]
    return first if package == PACKAGE and first in ROOMS else ""


def broken_walls(modules: Mapping[str, str]) -> list[str]:
    """Every import through a wall, in sources by module name."""
    found = []
    for module, source in modules.items():
        own = room_of(module)
        for one in imports(source):
            if one.relative:
                found.append(f"{module}, line {one.line}: a relative import")
            if room_of(one.name) in WALLS.get(own, set()):
                found.append(f"{module}, line {one.line}: {own} imports {one.name}")
            if not own and room_of(one.name) == "domains":
                found.append(f"{module}, line {one.line}: only recipes import domains")
    return found


def graph(modules: Mapping[str, str]) -> dict[str, list[str]]:
    """Which rooms each room imports."""
    found: dict[str, set[str]] = {room: set() for room in sorted(ROOMS)}
    for module, source in modules.items():
        if own := room_of(module):
            found[own] |= {room_of(one.name) for one in imports(source)} - {own, ""}
    return {room: sorted(others) for room, others in found.items()}


def circles(modules: Mapping[str, str]) -> list[list[str]]:
    """Modules that import each other in a circle while they are imported; a package is imported before its modules."""
    needs: dict[str, set[str]] = {module: set() for module in modules}
    for module, source in modules.items():
        for one in imports(source):
            parts = [] if one.late else one.name.split(".")
            *packages, named = [n for i in range(len(parts)) if (n := ".".join(parts[: i + 1])) in modules] or [module]
            needs[module] |= {named, *(p for p in packages if not module.startswith(f"{p}."))} - {module}

    def reached(start: str) -> set[str]:
        seen, todo = set[str](), [start]
        while todo:
            new = needs[todo.pop()] - seen
            seen |= new
            todo += new
        return seen

    reach = {module: reached(module) for module in modules}
    tied = {frozenset(other for other in reach[m] if m in reach[other]) for m in modules if m in reach[m]}
    return sorted(map(sorted, tied))


def diagram(arrows: Mapping[str, list[str]]) -> str:
    """A mermaid flowchart, without the arrows that follow from others."""

    def below(room: str) -> set[str]:
        return set(arrows[room]).union(*(below(other) for other in arrows[room]))

    lines = ["flowchart TD"]
    for room, others in arrows.items():
        implied = set[str]().union(*(below(other) for other in others))
        lines += [f"    {room} --> {other}" for other in others if other not in implied]
    return "\n".join(lines)


def drawn_again(page: str, arrows: Mapping[str, list[str]]) -> str:
    """The page with its diagram, and the column of imports in its table of rooms, as ``arrows`` say."""
    page = re.sub(r"(?s)(```mermaid\n).*?(\n```)", lambda m: m[1] + diagram(arrows) + m[2], page)
    for room, others in arrows.items():
        row = rf"(?m)^(\| `{room}/` \|.*\|)[^|\n]*\|$"
        page = re.sub(row, lambda m, others=others: f"{m[1]} {', '.join(others) or 'none'} |", page)
    return page


def sources() -> dict[str, str]:
    """The package's modules by name."""
    files = {path: path.relative_to(ROOT).with_suffix("") for path in sorted((ROOT / PACKAGE).rglob("*.py"))}
    return {".".join(name.parts).removesuffix(".__init__"): path.read_text() for path, name in files.items()}


def product() -> dict[str, str]:
    """What is shipped: code, and the page that reports are made of, with its script."""
    files = [p for suffix in ("py", "html", "js") for p in sorted((ROOT / PACKAGE).rglob(f"*.{suffix}"))]
    return {path.relative_to(ROOT / PACKAGE).as_posix(): path.read_text() for path in files}


def test_walls_stand() -> None:
    assert broken_walls(sources()) == []


@pytest.mark.parametrize(
    ("module", "source", "said"),
    [
        ("sampling.engine", "from rlvr_world.domains.video.domain import VideoDomain", "sampling imports"),
        ("domains.video.domain", "def f():\n    import rlvr_world.sampling.engine", "line 2: domains imports"),
        ("vision.blocks", "if TYPE_CHECKING:\n    from rlvr_world.domains import video", "vision imports"),
        ("training.grpo", "from rlvr_world import runs", "training imports"),
        ("cli.use", "import_module('rlvr_world.domains.video')", "cli imports"),
        ("scoring", "from rlvr_world.domains.splits import SplitRule", "only recipes import domains"),
        ("training.sft", "from . import grpo", "a relative import"),
    ],
)
def test_a_wrong_import_is_found(module: str, source: str, said: str) -> None:
    [fault] = broken_walls({f"{PACKAGE}.{module}": source})
    assert said in fault


def test_a_right_import_is_let_through() -> None:
    good = "from rlvr_world.models.head import Model\nfrom rlvr_world import vision, types\nimport torch"
    assert broken_walls({f"{PACKAGE}.domains.video.domain": good}) == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circles(sources()) == []


def test_a_circle_is_found() -> None:
    there = {"rlvr_world.a": "from rlvr_world.b import c", "rlvr_world.b": "import rlvr_world.a"}
    assert circles(there) == [["rlvr_world.a", "rlvr_world.b"]]
    package = {"rlvr_world.p": "from rlvr_world.p.m import x", "rlvr_world.p.m": "from rlvr_world.p import y"}
    assert circles(package) == [["rlvr_world.p", "rlvr_world.p.m"]]
    assert circles({**package, "rlvr_world.p.m": "import rlvr_world.q", "rlvr_world.q": "import torch"}) == []
    through = {**package, "rlvr_world.p.m": "import rlvr_world.q", "rlvr_world.q": "import rlvr_world.p.n"}
    assert circles(through) == [["rlvr_world.p", "rlvr_world.p.m", "rlvr_world.q"]]
    late = {"rlvr_world.a": "def f():\n    import rlvr_world.b", "rlvr_world.b": "import rlvr_world.a"}
    assert circles(late) == []


def test_rooms_are_in_layers() -> None:
    arrows = graph(sources())
    while free := {room for room, others in arrows.items() if not set(others) & arrows.keys()}:
        arrows = {room: others for room, others in arrows.items() if room not in free}
    assert not arrows, f"these rooms import each other: {arrows}"


def test_nothing_else_lies_beside_the_rooms() -> None:
    beside = {path.stem for path in (ROOT / PACKAGE).glob("*.py")}
    assert beside == NOUNS | {"__init__", "__main__"}


def test_files_are_short_and_the_whole_is_bounded() -> None:
    lines = {name: text.count("\n") for name, text in product().items()}
    assert {name: count for name, count in lines.items() if count > LONGEST_FILE} == {}
    whole = sum(lines.values())
    assert whole <= MOST_LINES, f"{whole} lines"


def test_functions_have_few_parameters() -> None:
    many = set()
    for name, text in product().items():
        for node in ast.walk(ast.parse(text)) if name.endswith(".py") else ():
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                if sum(argument.arg not in ("self", "cls") for argument in given) > MOST_PARAMETERS:
                    many.add(f"{name}: {node.name}")
    assert many == CONSTRUCTORS


def test_the_page_is_drawn_from_the_imports() -> None:
    page, arrows = PAGE.read_text(), graph(sources())
    assert set(re.findall(r"(?m)^\| `(\w+)/` \|", page)) == ROOMS
    assert drawn_again(page, arrows) == page, "draw it again with: python tests/test_architecture.py"
    assert drawn_again(page, {**arrows, "system": ["vision"], "vision": []}) != page


if __name__ == "__main__":
    PAGE.write_text(drawn_again(PAGE.read_text(), graph(sources())))
