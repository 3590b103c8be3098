"""The README's script steps a text game, a page and a video, imagined and real, as it stands; so does its first one a
text game."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from rlvr_world import InputError, recipes
from rlvr_world.overrides import override
from rlvr_world.runs import runner

README = (Path(__file__).parents[2] / "README.md").read_text()
SCRIPT = next(block for block in README.split("```python\n") if block.startswith("import sys")).partition("```")[0]
STEPS = README.partition("## Step it")[2].partition("```python\n")[2].partition("```")[0]
SMALL = """threads=1 model.device=cpu model.layers=1 model.hidden=32 model.heads=2 rl.steps=0 sft.steps=2 sft.batch=4
eval.rows=2 eval.valid_rows=2 sft.eval_every=0"""
WORLDS = {
    "demo": "data.env.games=2 data.env.rows_per_game=12 model.vocabulary=320 data.max_prompt=2000 data.max_response=8",
    "miniwob": """data.env.site=folder data.env.episodes=6 data.env.steps=2 model.vocabulary=320 data.max_response=8
    sft.pretrain_steps=0 data.max_prompt=900""",
    "pusht": """data.env.episodes=40 data.env.length=20 data.env.size=16 data.height=16 data.width=16 data.frame_skip=4
    data.action_pool=2 data.test_every=8 data.split.test=0.3 data.split.valid=0.3 data.lpips=none data.reward.lpips=0
    data.tokenizer.widths=16,16 data.tokenizer.groups=8 data.tokenizer.latent=8 data.tokenizer.steps=4
    data.tokenizer.batch=4 data.tokenizer.patch_width=16 data.tokenizer.save_every=4 data.tokenizer.eval_every=0""",
}


@pytest.mark.parametrize(
    ("recipe", "package"), [("demo", "textworld"), ("miniwob", "playwright"), ("pusht", "gym_pusht")]
)
def test_it_runs_as_it_stands(
    recipe: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip(package)
    settings = [*SMALL.split(), *WORLDS[recipe].split(), f"data.cache={tmp_path / 'cache'}"]
    if recipe == "miniwob":
        (tmp_path / "site").mkdir()
        for name in ("one", "two", "three"):
            body = f"<button onclick=\"this.textContent = 'Went'\">{name}</button><input><a href='one.html'>first</a>"
            (tmp_path / "site" / f"{name}.html").write_text(f"<!doctype html><title>{name}</title>{body}")
        settings.append(f"data.env.path={tmp_path / 'site'}")
    try:
        runner.train(override(recipes.find(recipe).config(), settings), tmp_path / "run")
    except InputError as error:
        pytest.skip(str(error)) if "no Chromium" in str(error) else pytest.fail(str(error))
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["script", str(tmp_path / "run")])
    names: dict[str, Any] = {}
    exec(SCRIPT, names)
    lines = capsys.readouterr().out.splitlines()
    assert 1 <= len(lines) <= 4
    assert lines[0].startswith("0 ")
    assert len(SCRIPT.splitlines()) <= 30
    assert names["real"].state is not None
    names["imagined"].reset(seed=1, options={"state": names["real"].state})  # as a fork into a model does
    assert str(names["imagined"].world.observe(names["imagined"].state)) == str(names["seen"])
    if recipe == "demo":
        exec(STEPS.replace('"runs/demo"', repr(str(tmp_path / "run"))), names)
        lines = capsys.readouterr().out.splitlines()
        assert lines
        assert all(line.endswith(("as it happened", "otherwise")) for line in lines)
