"""The drawer and PushT from nothing to a table of policies, at the smallest size, by the command line."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from rlvr_world.cli import main

TINY = """data.env.episodes=24 data.env.size=16 data.height=16 data.width=16 data.lpips=none
data.reward.lpips=0 data.tokenizer.widths=16,16 data.tokenizer.groups=8 data.tokenizer.latent=8 data.tokenizer.steps=8
data.tokenizer.batch=4 data.tokenizer.patch_width=16 data.tokenizer.save_every=8 data.tokenizer.eval_every=0
data.split.kind=every_nth data.split.every=5 sft.steps=4 sft.batch=4 sft.eval_every=0 model.layers=1 model.hidden=32
model.heads=2 model.device=cpu rl.steps=0 data.closed_loop=0 control.enabled=false eval.rows=2 eval.runs=1"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "needs", "length", "tasks"),
    [
        ("drawer", "metaworld", 8, {"open": "open the drawer", "close": "close the drawer"}),
        ("pusht_home", "gym_pusht", 40, {"home": "push the T home"}),
    ],
)
def test_a_world_with_tasks_from_nothing_to_a_table(
    recipe: str, needs: str, length: int, tasks: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if find_spec(needs) is None:
        pytest.skip(f"{needs} is not installed")
    (tmp_path / "own.py").write_text("def green(frames):\n    return frames[..., 1].mean((1, 2)) > 110\n")
    run = tmp_path / "run"
    settings = [f"data.cache={tmp_path}/cache", f"data.env.length={length}", *TINY.split()]
    assert main(["train", recipe, "--out", str(run), *settings]) == 0
    asked = ["policy-eval", str(run), "--starts", "3", "--judge", f"{tmp_path}/own.py:green", "--controls"]
    asked += ["--policy", "two=clone:2:20", "--policy", "wild=noisy:0.5:random"]
    assert main(asked) == 0
    said = capsys.readouterr().out
    looks = ["real, changed look"] * (recipe == "drawer")
    for task, instruction in tasks.items():
        told = json.loads((run / "policies" / task / "report.json").read_text())
        assert [*told["success"]] == ["real", "real, round trips", *looks, "sft", "sft, real actions"]
        assert all(len(outcomes) == 2 for outcomes in told["success"].values())
        assert f"{instruction}: success at the last of 7 steps, 3 starts" in said
    assert main([*asked, "--only", "gone"]) == 2
    assert f"expected a recipe with trials(), some of {', '.join(tasks)}, sft" in capsys.readouterr().err
