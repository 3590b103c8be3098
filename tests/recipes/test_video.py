"""Video recipes: a whole run on a moving square, its models and errors, and the published sizes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlvr_world.config import Config
from rlvr_world.diagnose.studies import study_actions
from rlvr_world.domains.video.codec import relate_rows
from rlvr_world.domains.video.layout import VideoLayout
from rlvr_world.domains.video.reconstruction import _unchanged
from rlvr_world.domains.video.splits import parts
from rlvr_world.errors import InputError
from rlvr_world.models.loading import create_model, load_model
from rlvr_world.overrides import override
from rlvr_world.recipes import find
from rlvr_world.runs import runner
from rlvr_world.runs.checkpoints import latest
from rlvr_world.runs.replay import replay
from tests import tiny

TINY = f"""{tiny.FRAMES} threads=1 data.source=npz data.frame_skip=1 data.action_pool=1 data.test_every=3
data.split.test=0.3 data.split.valid=0.3 data.tokenizer.widths=32,32 data.tokenizer.steps=4
data.tokenizer.batch=2 data.tokenizer.patch_width=32 data.tokenizer.save_every=2
data.tokenizer.eval_every=2 model.hidden=32 model.layers=1 model.heads=2 model.precision=float32
sft.steps=3 sft.batch=4 sft.save_every=2 sft.eval_every=0 rl.seeds=0 rl.steps=2 rl.prompts=2 rl.group=4
rl.eval_every=0 rl.save_every=1 eval.rows=5 eval.runs=2""".split()
KINDS = {
    "pusht": [],
    "pusht_multi": ["data.horizon=2", "data.context_back=2", "data.tokenizer.segment=3", "data.tokenizer.reach=4"],
}


def write_square(folder: Path, episodes: int = 12, frames: int = 9) -> None:
    """A bright square that goes where the action says, and feels where it is."""
    folder.mkdir()
    for episode in range(episodes):
        rng = np.random.default_rng(episode)
        image, place = np.full((frames, 16, 16, 3), 240, np.uint8), rng.integers(2, 10, 2)
        action = rng.integers(-2, 3, (frames, 2)).astype(np.float32)
        felt = []
        for t in range(frames):
            y, x = place
            image[t, y : y + 4, x : x + 4] = (200, 40, 40)
            felt.append(place.copy())
            place = np.clip(place + action[t].astype(int), 0, 12)
        np.savez_compressed(
            folder / f"square_eps_{episode:08d}.npz", image=image, action=action, proprio=np.float32(felt)
        )


def config(tmp_path: Path, recipe: str, *changes: str) -> Config:
    if not (tmp_path / "square").exists():
        write_square(tmp_path / "square")
    given = [f"data.path={tmp_path / 'square'}", f"data.cache={tmp_path / 'cache'}"]
    return override(override(find(recipe).config(), [*TINY, *KINDS[recipe], *given]), changes)


@pytest.mark.parametrize(
    ("recipe", "changes"),
    [
        ("pusht", []),
        ("pusht_multi", []),
        ("pusht", ["data.kind=multi_step", "data.context=2", "data.horizon=3", "data.proprio=true"]),
    ],
)
def test_from_episodes_to_a_report(tmp_path: Path, recipe: str, changes: list[str]) -> None:
    settings = config(tmp_path, recipe, *changes)
    page = runner.train(settings, tmp_path / "run").read_text()
    assert "data:image/png;base64," in page
    for name in ("sft", "rl-seed0", "control-seed0"):
        result = json.loads((tmp_path / "run" / "eval" / f"{name}.json").read_text())
        overall = result["slices"]["overall"]
        assert {"mae", "mse", "psnr", "ssim", "repetition", "repetition_all"} <= set(overall["parts"])
        assert set(overall["baselines"]) == {"copy last frame", "tokenizer round trip"}
        assert overall["malformed"]["mean"] == 0
        assert overall["rows"] == 5
        assert result["protocol"]["domain"] == "video"
    table = json.loads((tmp_path / "run" / "tokenizer" / "reconstruction.json").read_text())
    assert table["metrics"]["mse"]["mean"] > 0
    assert 0 < table["code_usage"] <= 1
    assert table["restless"] is None or 0 <= table["restless"] <= 1
    answers = study_actions(tmp_path / "run", actions=2, rows=4)
    assert set(answers) == {"sft", "rl/seed0"}
    model, tokenizer = load_model(str(latest(tmp_path / "run" / "rl" / "seed0")))
    assert tokenizer is None
    assert model.config.codec["layout"]["kind"] == settings.data.kind


def test_a_stopped_run_goes_on_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = config(tmp_path, "pusht", "control.enabled=false", "data.proprio=true")
    runner.train(settings, tmp_path / "whole")
    write = runner.Log.write
    for stage, step in (("tokenizer", 3), ("sft", 3), ("rl/seed0", 2)):

        def stop(self: Any, name: str, counters: Any, *rest: Any, at: tuple[str, int] = (stage, step)) -> Any:
            row = write(self, name, counters, *rest)
            if (name, counters.step) == at:
                raise KeyboardInterrupt
            return row

        with monkeypatch.context() as cut:
            cut.setattr(runner.Log, "write", stop)
            with pytest.raises(KeyboardInterrupt):
                runner.train(settings, tmp_path / "cut")
    runner.resume(tmp_path / "cut")
    for stage in ("tokenizer", "sft", "rl/seed0"):
        one, two = (latest(tmp_path / name / stage) for name in ("whole", "cut"))
        assert one is not None
        assert two is not None
        for file in one.rglob("*.safetensors"):
            assert file.read_bytes() == (two / file.relative_to(one)).read_bytes(), file
    results = [json.loads((tmp_path / name / "eval" / "rl-seed0.json").read_text()) for name in ("whole", "cut")]
    assert results[0] == results[1]
    assert results[0]["slices"]["overall"]["parts"]["proprio_mse"]["mean"] >= 0


def test_what_does_not_fit_is_said_in_one_sentence(tmp_path: Path) -> None:
    settings = config(tmp_path, "pusht", "control.enabled=false", "rl.steps=0")
    with pytest.raises(InputError, match=r"data\.path: data\.source=npz reads episodes; say where"):
        runner.train(override(settings, ["data.path="]), tmp_path / "none")
    with pytest.raises(InputError, match=r"none of its \d+ episodes is long enough for a clip of 21 frames"):
        runner.train(override(settings, ["data.context=20"]), tmp_path / "long")
    runner.train(settings, tmp_path / "run")
    model = latest(tmp_path / "run" / "sft")
    bare = tmp_path / "bare"
    shutil.copytree(model, bare, ignore=shutil.ignore_patterns("world"))
    with pytest.raises(InputError, match=r"data\.tokenizer\.source: a video model needs its visual tokenizer"):
        runner.evaluate_model(str(bare), settings)
    other = override(settings, ["data.tokenizer.levels=5,5", "sft.steps=1"])
    runner.train(other, tmp_path / "other")
    wrong = override(settings, [f"data.tokenizer.source={latest(tmp_path / 'other' / 'tokenizer')}"])
    with pytest.raises(InputError, match=r"tokenizer: its codebooks have 25 .* vocabulary has 1000"):
        runner.evaluate_model(str(model), wrong)


def test_few_episodes_can_be_looked_at_although_they_cannot_be_split(tmp_path: Path) -> None:
    write_square(tmp_path / "few", episodes=2)
    shares = ("data.split.valid=0.01", "data.split.test=0.01")
    settings = config(tmp_path, "pusht", f"data.path={tmp_path / 'few'}", *shares)
    with pytest.raises(InputError, match="of 2 episodes none falls into valid and test"):
        find("pusht").splits(settings)
    assert "- 2 episodes, 18 frames" in find("pusht").inspect(settings, tmp_path / "look")


def test_recipes_are_listed_and_text_is_trained_without_the_extra() -> None:
    code = (
        "import sys; sys.modules['diffusers'] = sys.modules['av'] = None\n"
        "from rlvr_world import cli; from rlvr_world.diagnose import studies; from rlvr_world.runs import runner\n"
        "from rlvr_world.recipes import config_of, find\n"
        "assert find('demo').config().recipe == 'demo' and config_of('pusht').data.height == 32\n"
        "sys.exit(cli.main(['recipes']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "rt1_single" in done.stdout


def test_other_units_are_refused(tmp_path: Path) -> None:
    settings = config(tmp_path, "pusht", "control.enabled=false", "rl.steps=0", "sft.steps=1")
    runner.train(settings, tmp_path / "run")
    for file in sorted((tmp_path / "square").glob("*.npz")):
        arrays = dict(np.load(file))
        np.savez_compressed(file, **{**arrays, "action": arrays["action"] * 100})
    parts.cache_clear()
    with pytest.raises(InputError, match=r"square/square_eps_\d+: step \d+: field \d is .* lie outside the range"):
        runner.evaluate_model(str(latest(tmp_path / "run" / "sft")), settings)


@pytest.mark.parametrize(
    ("recipe", "layout", "parameters"),
    [
        ("rt1_single", VideoLayout("single_step", 4375, 320, 13, context=4), 120_381_696),
        ("rt1_multi", VideoLayout("multi_step", 4375, 80, 13, 4375, 1280, horizon=7), 127_101_696),
    ],
)
def test_published_models_have_the_published_sizes(recipe: str, layout: VideoLayout, parameters: int) -> None:
    with torch.device("meta"):
        model = create_model(replace(find(recipe).config().model, context=layout.max_length), layout.vocabulary)
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_ordered_embeddings_are_near_where_codes_are_and_keep_their_scale() -> None:
    model = create_model(replace(find("pusht").config().model, context=8), 64)
    before = model.get_input_embeddings().weight.detach().clone()
    relate_rows(model, 4, torch.linspace(-1, 1, 32)[:, None], seed=0)
    after = model.get_input_embeddings().weight.detach()
    rest = torch.ones(64, dtype=torch.bool)
    rest[4:36] = False
    assert torch.equal(after[rest], before[rest])
    rows = after[4:36]
    near, far = (rows[1:] - rows[:-1]).norm(dim=1).mean(), (rows[16:] - rows[:16]).norm(dim=1).mean()
    assert near < 0.7 * far
    assert rows.std() == pytest.approx(before.std().item(), rel=0.2)


def test_restless_tokens_are_those_that_change_where_no_pixel_does() -> None:
    frames = torch.zeros(2, 3, 4, 4)
    frames[1, 0, 0, 3] = 1.0  # in the place at the upper right
    tokens = torch.tensor([[5, 5, 5, 5], [5, 9, 7, 5]])
    same_pixels, same_tokens = _unchanged(frames, tokens, (2, 2))
    assert same_pixels.tolist() == [[True, False, True, True]]
    assert (same_pixels & ~same_tokens).tolist() == [[False, False, True, False]]


def test_a_proper_reward_is_not_divided_by_the_spread_of_its_group() -> None:
    recipe = find("rope")
    with pytest.raises(InputError, match=r"rl\.advantage: with data\.reward\.proper expected none or batch"):
        recipe.check_config(
            override(recipe.config(), ["data.reward.proper=true", "data.lpips=none", "data.reward.lpips=0"])
        )


def test_rl_goes_on_from_its_own_frames(tmp_path: Path) -> None:
    """A run of three frames a clip, whose RL clips go on from up to two others."""
    write_square(tmp_path / "square")
    settings = [*TINY, "data.kind=multi_step", "data.context=1", "data.horizon=2", "data.closed_loop=2", "data.path="]
    settings[-1] += str(tmp_path / "square")
    config = override(find("pusht").config(), settings)
    config = replace(config, rl=replace(config.rl, eval_every=1), control=replace(config.control, enabled=False))
    splits = find("pusht").splits(config)
    assert {len(row.next_state.steps) for row in (*splits.rl_epoch(0, 0), *splits.closed_loop)} == {6}
    assert {len(row.next_state.steps) for row in (*splits.sft, *splits.valid, *splits.test)} == {2}
    runner.train(config, tmp_path / "run")
    logged = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert sum(line["stage"] == "rl/seed0" and "eval/overall/mae" in line for line in logged) >= 2
    assert "bit for bit the kept one" in replay(tmp_path / "run", "0/1/0")
    shutil.rmtree(tmp_path / "run/rl/seed0/step-000001")
    with pytest.raises(InputError, match="begins in imagination, so make it again: add --redo 1"):
        replay(tmp_path / "run", "1/0/0")
    assert "1 steps trained again; bit for bit the kept one" in replay(tmp_path / "run", "1/0/0", redo=1)
    with pytest.raises(InputError, match=r"data\.closed_loop: expected 0 with a compressive tokenizer, got 1"):
        find("pusht_multi").check_config(override(find("pusht_multi").config(), [*TINY, "data.closed_loop=1"]))
