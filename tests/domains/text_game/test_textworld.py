import gzip
import json
import os
import subprocess
import sys
from collections import defaultdict
from dataclasses import replace
from importlib import metadata, util
from pathlib import Path

import pytest

from rlvr_world.domains.text_game.config import TextWorldSpec
from rlvr_world.domains.text_game.envs import textworld as world
from rlvr_world.domains.text_game.envs.textworld import collect_rows, collect_splits, game_rows
from rlvr_world.domains.text_game.rows import has_changed, read_rows
from rlvr_world.errors import InputError

needs_textworld = pytest.mark.skipif(not util.find_spec("textworld"), reason="the extra textgame is not installed")
SPEC = TextWorldSpec(games=12, rows_per_game=16)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """Small games, and larger ones with doors."""
    folder = tmp_path_factory.mktemp("worlds")
    large = replace(SPEC, games=4, rows_per_game=60, rooms=4, objects=8, quest_length=4, seed=1)
    return [row for spec in (SPEC, large) for row in load(collect_rows(spec, folder))]


def load(path: Path) -> list[dict]:
    with gzip.open(path) as lines:
        return [json.loads(line) for line in lines]


def effect(row: dict) -> tuple[list, dict]:
    return row["tick_state"]["objects"], row["next_score_state"]


@needs_textworld
def test_next_state_and_score_follow_from_state_and_action(rows: list[dict]) -> None:
    answers = defaultdict(set)
    for row in rows:
        question = [row["current_state"]["objects"], row["current_score_state"], row["action_state"]["lastAction"]]
        answers[json.dumps(question)].add(json.dumps(effect(row)))
    assert len(answers) == len(rows), "a question was asked twice"
    assert all(len(found) == 1 for found in answers.values())


@needs_textworld
def test_the_goal_command_and_nothing_else_wins(rows: list[dict]) -> None:
    for row in rows:
        before = row["current_state"]["objects"]
        goal = before[-1]["properties"]["command"]
        reached = row["tick_state"]["lastAction"] == goal and row["tick_state"]["objects"] != before
        assert row["next_score_state"] == {"score": int(reached), "gameOver": reached, "gameWon": reached}
    assert any(row["next_score_state"]["gameWon"] for row in rows)


@needs_textworld
def test_states_are_consistent(rows: list[dict]) -> None:
    for row in rows:
        for state in (row["current_state"], row["tick_state"]):
            objects = state["objects"]
            names = [obj["name"] for obj in objects]
            held = [name for obj in objects for name in obj["contains"]]
            assert len(held) == len(set(held)), "a thing is in two places"
            assert set(held) == {o["name"] for o in objects if o["type"] not in ("Room", "Door", "Goal")}
            assert [obj["name"].rpartition(" (ID: ")[2] for obj in objects] == [f"{obj['uuid']})" for obj in objects]
            mentioned = [v for o in objects for k, v in o["properties"].items() if k not in ("state", "command")]
            assert set(mentioned) <= set(names)
            assert state["max_UUID"] > max(obj["uuid"] for obj in objects)
    assert any(o["type"] == "Door" for row in rows for o in row["current_state"]["objects"])
    assert any(len(row["tick_state"]["objects"]) < len(row["current_state"]["objects"]) for row in rows), "none eaten"


@needs_textworld
def test_going_takes_an_exit_whose_door_is_open(rows: list[dict]) -> None:
    moves = [row for row in rows if row["action_state"]["lastAction"].startswith("go ")]
    for row in moves:
        before = {obj["name"]: obj for obj in row["current_state"]["objects"]}
        here = next(obj for obj in before.values() if "agent (ID: 0)" in obj["contains"])["properties"]
        way = row["action_state"]["lastAction"].removeprefix("go ")
        door = before.get(here.get(f"{way} door"), {"properties": {"state": "open"}})
        there = next(obj["name"] for obj in row["tick_state"]["objects"] if "agent (ID: 0)" in obj["contains"])
        free = way in here and door["properties"]["state"] == "open"
        assert (there == here[way]) if free else (row["tick_state"]["objects"] == row["current_state"]["objects"])
    assert moves


@needs_textworld
def test_the_row_reader_reads_them_and_half_change(tmp_path: Path) -> None:
    transitions = read_rows(collect_rows(SPEC, tmp_path))
    assert len({t.world for t in transitions}) == SPEC.games
    changed = sum(has_changed(t.state, t.next_state) for t in transitions) / len(transitions)
    assert 0.4 < changed < 0.6


@needs_textworld
def test_same_spec_same_bytes_and_the_second_call_generates_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = replace(SPEC, games=3)
    first = collect_rows(spec, tmp_path / "a")
    code = (
        "import sys; from rlvr_world.domains.text_game.envs.textworld import *\n"
        "collect_rows(TextWorldSpec(games=3, rows_per_game=16), sys.argv[1])"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "b")], check=True, env=os.environ | {"PYTHONHASHSEED": "7"}
    )
    assert (tmp_path / "b" / first.name).read_bytes() == first.read_bytes()
    assert [path.name for path in first.parent.iterdir()] == [first.name]
    monkeypatch.setattr(world, "game_rows", None)
    assert collect_rows(spec, tmp_path / "a") == first
    with pytest.raises(TypeError):
        collect_rows(replace(spec, seed=9), tmp_path / "a")
    assert len(list(first.parent.iterdir())) == 1, "a failed collection left a file behind"


@needs_textworld
def test_splits_share_no_game_and_more_games_keep_the_earlier_ones(tmp_path: Path) -> None:
    files = collect_splits(replace(SPEC, games=9), tmp_path, valid_games=2, test_games=2)
    games = {name: {row["game"] for row in load(path)} for name, path in files.items()}
    assert {name: len(found) for name, found in games.items()} == {"train": 9, "valid": 2, "test": 2}
    assert len(set.union(*games.values())) == 13
    last = [row for row in load(files["train"]) if row["game"] == "house-0010"]
    assert list(game_rows(SPEC, 10)) == last


def test_importing_the_package_does_not_import_textworld() -> None:
    code = "import sys, rlvr_world.domains.text_game.envs.textworld; sys.exit('textworld' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_missing_textworld_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(InputError, match=r"rlvr-world\[textgame\]"):
        collect_rows(SPEC, tmp_path)


@pytest.mark.parametrize("change", [{"games": 0}, {"changed_share": 1.5}, {"split": "dev"}])
def test_bad_specs_are_refused(change: dict) -> None:
    with pytest.raises(InputError, match=next(iter(change))):
        replace(SPEC, **change)
