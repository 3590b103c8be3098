"""Whatever stands in a file of rows, a codec or a config: it reads, or one sentence says why not."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlvr_world.domains.text_game.rows import read_rows as read_games
from rlvr_world.domains.video.actions import fit_ranges
from rlvr_world.domains.video.layout import Codec, VideoLayout
from rlvr_world.domains.web_page.rows import read_rows as read_pages
from rlvr_world.domains.web_page.tree import parse_page
from rlvr_world.errors import InputError
from rlvr_world.overrides import from_json, override, to_json
from rlvr_world.recipes import find

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FEW = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def paths(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands in a JSON value."""
    if at:
        yield at
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from paths(inner, (*at, key))


@st.composite
def spoiled(draw: st.DrawFn, sound: Any) -> Any:
    """A JSON value with one or two places replaced by anything, or removed."""
    value = copy.deepcopy(sound)
    for _ in range(draw(st.integers(1, 2))):
        *before, last = draw(st.sampled_from(sorted(paths(value), key=repr)))
        inner = value
        for key in before:
            inner = inner[key]
        if draw(st.booleans()):
            inner[last] = draw(ANYTHING)
        else:
            del inner[last]
        if not list(paths(value)):
            break
    return value


def reads(read: Callable[[], Any], *words: str) -> None:
    try:
        read()
    except InputError as error:
        said = " ".join(str(error).split())
        assert said
        assert all(word in said for word in words), said


DOOR = {"name": "door (ID: 1)", "uuid": 1, "type": "Door", "properties": {"isShut": True}, "contains": ["key"]}
STATE = {"lastAction": "look", "objects": [DOOR], "max_UUID": 2}
SCORE = {"score": 0, "gameOver": False, "gameWon": False}
GAME = {
    "current_state": STATE, "action_state": STATE, "tick_state": STATE, "current_score_state": SCORE,
    "next_score_state": SCORE, "game": "house", "state_id": 0,
}  # fmt: skip
PAGE = "[1] RootWebArea 'Shop'\n\t[2] link 'Cart'"
STEP = {
    "observation": PAGE,
    "action": "click [2]",
    "next_observation": PAGE,
    "task": "buy",
    "previous_actions": ["go_back"],
}


@pytest.mark.parametrize(("read", "sound"), [(read_games, GAME), (read_pages, STEP)])
def test_rows(read: Any, sound: Any, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"

    @FEW
    @given(spoiled(sound))
    def run(row: Any) -> None:
        file.write_text(json.dumps(row) + "\n")
        reads(lambda: read(file), "rows.jsonl")

    file.write_text(json.dumps(sound) + "\n")
    assert len(read(file)) == 1
    run()


@pytest.mark.parametrize("read", [read_games, read_pages])
def test_files_of_bytes(read: Any, tmp_path: Path) -> None:
    @FEW
    @given(st.binary(max_size=60), st.sampled_from([".jsonl", ".jsonl.gz", ".json", ".parquet"]))
    def run(data: bytes, ending: str) -> None:
        (tmp_path / f"rows{ending}").write_bytes(data)
        reads(lambda: read(tmp_path / f"rows{ending}"), f"rows{ending}")

    run()


@FEW
@given(st.text(max_size=200) | st.text("[]12 'ab\n\t:\\\"", max_size=200))
def test_pages(text: str) -> None:
    reads(lambda: parse_page(text), "line")


def codec() -> dict[str, Any]:
    layout = VideoLayout("single_step", visual=8, tokens=4, action_width=2, horizon=1, action_bins=4)
    actions = fit_ranges([[[0.0, 1.0], [1.0, 2.0]]], "minmax", bins=4)  # type: ignore[list-item]
    return json.loads(json.dumps(asdict(Codec(layout, actions, "abc", (16, 16)))))


@FEW
@given(spoiled(codec()))
def test_codecs(data: Any) -> None:
    reads(lambda: Codec.from_json(data, "config.json: codec"), "")


CONFIG = find("demo").config()


@FEW
@given(spoiled(to_json(CONFIG)))
def test_configs(data: Any) -> None:
    reads(lambda: from_json(CONFIG, data, "config.json"))


NAMES = ["rl.steps", "rl.seeds", "model.device", "guards.limits", "rl.kl", "sft.reasoning", "rl.x", ""]


@FEW
@given(st.sampled_from(NAMES), st.text(max_size=20))
def test_settings(name: str, text: str) -> None:
    reads(lambda: override(CONFIG, [f"{name}={text}"]))
