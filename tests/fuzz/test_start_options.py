"""Whatever options a session is begun with: it begins, or an InputError says why not; never another exception."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlvr_world.errors import InputError
from rlvr_world.overrides import override
from rlvr_world.recipes import find
from rlvr_world.sessions.session import Session
from tests.recipes.test_video import KINDS, config, write_square
from tests.test_corruptions import web_rows

NAMES = ("row", "state", "game", "task", "episode", "window", "seed")
ODD: list[Any] = [
    *(None, True, False, 0, 5, -1, 10**30, 2.5, float("nan"), float("inf"), "", "x", "²", "9" * 5000, "house-0002"),
    *([], [1], {}, (), ("a",), b"x", object(), {"a": {}}, np.zeros((2, 3)), np.zeros((4, 4, 3), np.uint8)),
    *("[" * 100_000, "5", "{}", '{"objects": [], "score": 5}', '{"objects": [{}]}', "\ud83d", "a\nb"),
    *({"objects": []}, {"objects": 5}, {"objects": [], "score": {"score": "x"}}, {"objects": [], "game": [1]}),
    *({"observation": 5}, {"observation": "[1] RootWebArea 'a'"}, {"observation": "[1] a", "goal": []}),
    *({"pixels": 5}, {"pixels": np.zeros((4, 4, 3), np.uint8), "agent_pos": [1, [2]]}, {"pixels": [[1], [2, 3]]}),
    *({"pixels": np.zeros((0, 4, 3), np.uint8)}, {"pixels": np.zeros((4, 4, 3), np.uint8), "agent_pos": "x"}),
]


def drawn(rng: random.Random, deep: int = 0) -> Any:
    """One of the odd values, or several of them in one another."""
    kind = rng.randrange(4) if deep < 3 else 0
    if kind == 1:
        return [drawn(rng, deep + 1) for _ in range(rng.randrange(3))]
    if kind == 2:
        keys = ("objects", "score", "next_uuid", "game", "observation", "url", "previous", "pixels", "agent_pos", "a")
        return {key: drawn(rng, deep + 1) for key in rng.sample(keys, rng.randrange(4))}
    return rng.choice(ODD)


def begun(world: Any, options: Any) -> bool:
    try:
        Session(world).reset(seed=1, options=options)
    except InputError:
        return False
    return True


def odd_options(count: int) -> Iterator[dict[str, Any]]:
    yield from ({name: value} for name in NAMES for value in ODD)
    rng = random.Random(0)
    for _ in range(count):
        yield {name: drawn(rng) for name in rng.sample(NAMES, rng.randint(1, 3))}


@pytest.fixture
def games_of_files(house: Any, tmp_path: Path) -> Any:
    given = [f"data.train={house(12)}", f"data.test={house(12)}"]
    return find("bytesized32").scene(override(find("bytesized32").config(), given), None)  # type: ignore[arg-type]


@pytest.fixture
def games() -> Any:
    pytest.importorskip("textworld", reason="its games come from TextWorld: pip install 'rlvr-world[textgame]'")
    return find("demo").scene(override(find("demo").config(), ["data.env.games=3"]), None)  # type: ignore[arg-type]


@pytest.fixture
def real_games() -> Any:
    pytest.importorskip("textworld", reason="its games come from TextWorld: pip install 'rlvr-world[textgame]'")
    return find("demo").real(override(find("demo").config(), ["data.env.games=3"]))


@pytest.fixture
def pages(tmp_path: Path) -> Any:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in web_rows()))
    given = ["data.source=files", *(f"data.{name}={tmp_path / 'rows.jsonl'}" for name in ("train", "test"))]
    return find("miniwob").scene(override(find("miniwob").config(), given), None)  # type: ignore[arg-type]


def video(name: str, folder: Path) -> Any:
    write_square(folder / "square")
    settings, recipe = config(folder, name), find(name)
    first = recipe.first_stage(settings)
    assert first
    return recipe.scene(settings, recipe.rehearse(settings, recipe.splits(settings), first.open()))


@pytest.mark.parametrize("kind", ["games_of_files", "games", "real_games", "pages", *KINDS])
def test_a_session_begins_or_says_why_not(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    world = video(kind, tmp_path) if kind in KINDS else request.getfixturevalue(kind)
    assert begun(world, {})
    assert not begun(world, [("row", 5)])
    assert len({begun(world, options) for options in odd_options(400)}) == 2
