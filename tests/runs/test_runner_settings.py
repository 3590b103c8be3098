"""Numbers of the config that no stage could work with are refused before anything is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlvr_world.errors import InputError
from rlvr_world.evaluation.evaluate import spread
from rlvr_world.overrides import override
from rlvr_world.recipes import Splits, find
from rlvr_world.runs import look, runner
from rlvr_world.runs.jobs import Run
from rlvr_world.types import Transition


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("sft.save_every=0", "sft.save_every: expected at least 1, got 0"),
        ("rl.save_every=0", "rl.save_every: expected at least 1, got 0"),
        ("eval.runs=0", "eval.runs: expected at least 1, got 0"),
        ("seed=-1", "seed: expected at least 0, got -1"),
        ("data.env.seed=-1", "data.env.seed: expected at least 0, got -1"),
        ("sft.batch=0", "sft.batch: expected at least 1, got 0"),
        ("rl.max_rows=0", "rl.max_rows: expected at least 1, got 0"),
        ("eval.valid_rows=0", "eval.valid_rows: expected at least 1, got 0"),
        ("model.source=nobody/nothing", "model nobody/nothing: "),
        ("eval.max_rows=-3", "eval.max_rows: expected at least 1, got -3"),
        ("sft.steps=-1", "sft.steps: expected at least 0, got -1"),
        ("rl.steps=-1", "rl.steps: expected at least 0, got -1"),
        ("checkpoints.keep=0", "checkpoints.keep: expected at least 1, got 0"),
        ("rl.group=1", "rl.group: expected at least 2, got 1"),
    ],
)
def test_one_sentence_before_anything_is_made(setting: str, said: str, tmp_path: Path, house: Any) -> None:
    files = [f"data.train={house(9)}", f"data.test={house(9)}"]
    recipe = "demo" if setting.startswith("data.env") else "bytesized32"
    config = override(find(recipe).config(), [setting, *(files if recipe != "demo" else [])])
    with pytest.raises(InputError) as error:
        runner.train(config, tmp_path / "run")
    assert str(error.value).startswith(said)
    assert not (tmp_path / "run").exists()


def test_every_recipe_keeps_to_them() -> None:
    from rlvr_world.recipes import recipes

    for config in recipes().values():
        said = ""
        try:
            look.at_settings(config())
        except InputError as error:
            said = str(error)
        lacks = ("is not installed", "weights of a network", "the hub", "no GPU")
        assert not said or any(one in said for one in lacks), "what a machine lacks is no number"


def test_validation_is_on_rows_from_all_over_the_split(tmp_path: Path) -> None:
    rows = [Transition(str(number), None, "", None) for number in range(10)]
    recipe = find("demo")

    def validated(count: int) -> list[str]:
        config = override(recipe.config(), [f"eval.valid_rows={count}"])
        run = Run(tmp_path, config, recipe, Splits(rows, rows, rows, rows), None)  # type: ignore[arg-type]
        return [row.id for row in run.validated]

    assert validated(4) == ["0", "2", "5", "7"]
    assert validated(99) == [row.id for row in rows]


def test_fewer_test_rows_are_from_all_over_the_split_too() -> None:
    rows = [Transition(str(number), None, "", None) for number in range(10)]
    assert [row.id for row in spread(rows, 3)] == ["0", "3", "6"]
    assert spread(rows, 0) is spread(rows, 10) is rows
