"""Rows of games that a checkout holds, played exhaustively in processes of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlvr_world import cli
from rlvr_world.domains.text_game.prompt import Rules
from rlvr_world.domains.text_game.rows import read_rows
from tests.recipes.published_layout import TOY_GAME, gpt_simulator


def test_every_possible_action_is_taken_once_from_each_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkout, folder = gpt_simulator(tmp_path / "checkout"), tmp_path / "rows"
    assert cli.main(["collect", "bytesized32", str(folder), f"checkout={checkout}"]) == 0
    said = capsys.readouterr()
    assert f"running the Python code of 1 games in {checkout / 'data' / 'games'}" in said.err
    assert said.out == f"{folder}\n", "what a game prints is no row"
    train, test = (read_rows(folder / f"{part}.jsonl.gz") for part in ("train", "test"))
    rows = sorted([*train, *test], key=lambda row: int(row.id.rpartition("/")[2]))
    bake, look = "bake oven (ID: 2)", "look"
    assert [row.action for row in rows] == [
        *[bake, "take yourself", "look at oven", look],  # "look around" is "look"; the playthrough's action is last
        *[look, "look at oven", "take yourself", bake],
        *[look, "look at oven", "take yourself", bake],
    ]
    assert [row.id.rpartition("/")[2] for row in test] == ["1", "5"]
    assert [row.kind == "changed" for row in rows] == [row.action == bake for row in rows[:8]] + [True] * 4
    baked = [row for row in rows if row.action == bake]
    assert [(row.state.next_uuid, row.next_state.next_uuid) for row in baked] == [(3, 4), (3, 4), (4, 5)]
    assert [row.next_state.objects[-1]["name"] for row in baked] == ["bread (ID: 3)", "bread (ID: 3)", "bread (ID: 4)"]
    heats = [row.next_state.objects[2]["properties"]["heat"] for row in baked]
    assert heats[0] == heats[1], "a deviation takes nothing from the random numbers of those after it"
    assert [row.next_state.score["gameWon"] for row in baked] == [False, False, True]
    assert Rules.load(folder / "rules.json").for_game("toy") == ("objects", "actions", "scores")


def test_what_is_there_is_kept_and_what_is_no_checkout_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "there").mkdir()
    assert cli.main(["collect", "bytesized32", str(tmp_path / "there")]) == 0
    for given, words in (
        (f"checkout={tmp_path}", "expected a checkout of GPT-simulator with sampled_states.json"),
        (f"checkout={gpt_simulator(tmp_path / 'checkout')} games=chess", "games: chess is none of those in"),
        (f"checkout={tmp_path / 'checkout'} python=/none", "python=/none: it does not start"),
    ):
        assert cli.main(["collect", "bytesized32", str(tmp_path / "new"), *given.split()]) == 2
        assert words in capsys.readouterr().err
    gpt_simulator(tmp_path / "checkout", TOY_GAME + "\nf'{'\n")
    assert cli.main(["collect", "bytesized32", str(tmp_path / "new"), f"checkout={tmp_path / 'checkout'}"]) == 2
    assert "game toy: it does not run (SyntaxError" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
