"""Text-game recipes: rules in the prompts of a model from scratch, and rows that SFT and RL share out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rlvr_world.models.loading import load_model, world_of
from rlvr_world.overrides import override
from rlvr_world.recipes import find
from rlvr_world.runs import runner
from rlvr_world.runs.jobs import model_jobs
from rlvr_world.types import Transition

TINY = """model.vocabulary=400 model.layers=1 model.hidden=32 model.heads=2 model.precision=float32 model.device=cpu
sft.batch=4 sft.eval_every=0 rl.prompts=2 rl.group=2 rl.eval_every=0 data.max_response=10 data.split.valid=0.2
eval.rows=2 eval.valid_rows=2 guards.still_steps=0 guards.flat_steps=0 threads=1""".split()  # noqa: SIM905


def test_a_model_from_scratch_reads_rules(house: Any, tmp_path: Path) -> None:
    rows, file = house(30), tmp_path / "rules.json"
    games = [f"house-{n}" for n in range(3)]
    kinds = ("object_rules", "action_rules", "score_rules")
    file.write_text(json.dumps({kind: {game: f"The {kind} of {game}." for game in games} for kind in kinds}))
    named = [f"data.train={rows}", f"data.test={rows}", f"data.rules={file}", "data.style.rules=true"]
    config = override(find("bytesized32").config(), [*TINY, *named, "sft.steps=1", "rl.steps=0"])
    runner.train(config, tmp_path / "run")
    file.unlink()  # what a model needs goes with it
    model = tmp_path / "run" / "sft" / "step-000001"
    recipe = find("bytesized32")
    domain = recipe.domain(override(config, ["data.rules="]), *load_model(str(model)), world_of(str(model)))
    row = recipe.splits(config).test[0]
    prompt = load_model(str(model))[1].decode(domain.encode(row).prompt)
    assert f"The action_rules of {row.world}." in prompt


def test_the_control_fits_the_rows_that_rl_draws_from(house: Any, tmp_path: Path) -> None:
    rows = house(40)
    settings = [f"data.train={rows}", f"data.test={rows}", "data.split.sft=0.5", "sft.steps=1", "rl.steps=1"]
    config = override(find("bytesized32").config(), [*TINY, *settings, "rl.seeds=0"])
    runner.train(config, tmp_path / "run")
    run = runner.opened_run(tmp_path / "run")
    sft, rl, control = (job.open()[0] for job in model_jobs(run, str(tmp_path / "run" / "base")))

    def names(found: Any) -> set[str]:
        return {row.id for row in found if isinstance(row, Transition)}

    assert names(run.splits.sft)
    assert sft.rows == len(run.splits.sft)
    assert control.rows == rl.rows == len(run.splits.train)
    assert not names(run.splits.sft) & names(rl.epoch_rows(0))
    assert names(run.splits.control) == names(rl.epoch_rows(0))


def test_test_rows_whose_question_is_new_are_slices_of_their_own(house: Any, house_records: Any) -> None:
    records = house_records(8)
    for number, record in enumerate(records):
        record["current_state"]["objects"][1]["properties"]["knocks"] = -number  # questions of their own
    files = [f"data.train={house(records[:6])}", f"data.test={house(records[4:])}"]

    def kinds(*settings: str) -> list[str]:
        config = override(find("bytesized32").config(), [*files, *settings])
        return [row.kind for row in find("bytesized32").splits(config).test]

    assert kinds() == ["changed"] * 2 + ["changed, new, new changed"] * 2
    assert kinds("data.deduplicate=true") == ["changed"] * 4
