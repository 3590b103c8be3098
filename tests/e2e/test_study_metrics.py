"""RL of a video run rewarded by one metric alone, for each, and what that does to all of them: ``study metrics``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from rlvr_world import cli, recipes
from rlvr_world.overrides import override
from rlvr_world.recipes import video_recipe
from rlvr_world.runs import runner
from rlvr_world.runs.checkpoints import latest


def read(file: Path) -> Any:
    return json.loads(file.read_text())


def test_each_metric_is_a_reward_of_its_own() -> None:
    rewarded = recipes.find("pusht").rewarded_by(recipes.find("pusht").config())
    assert [*rewarded] == ["mae", "mse", "psnr", "ssim", "lpips"]
    plain = override(recipes.find("pusht").config(), ["data.lpips=none", "data.reward.lpips=0"])
    assert [*recipes.find("pusht").rewarded_by(plain)] == ["mae", "mse", "psnr", "ssim"], (
        "what is not measured, is none"
    )
    weights = {name: {**vars(one.data.reward)} for name, one in rewarded.items()}
    assert [[name for name in rewarded if weights[metric][name]] for metric in rewarded] == [[one] for one in rewarded]
    assert not any(one["repetition"] or one["proprio_mse"] for one in weights.values())


def test_rl_by_one_metric_is_tested_on_all(
    video: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, metrics = Path(shutil.copytree(video.run, tmp_path / "run")), ("psnr", "lpips")
    stored = read(run / "config.json")
    stored["data"]["lpips"] = "vgg"  # which the likelihood start does without
    stored["rl"] |= {"prompts": 1, "group": 2, "eval_every": 0}
    stored["eval"] |= {"rows": 1, "valid_rows": 1}
    (run / "config.json").write_text(json.dumps(stored))
    monkeypatch.setattr(video_recipe, "METRICS", metrics)
    assert cli.main(["study", "metrics", str(run), "--steps", "1"]) == 0
    picture = Path(capsys.readouterr().out.splitlines()[-1])
    assert picture.read_bytes().startswith(b"\x89PNG")
    told = read(picture.with_name("changes.json"))
    assert (told["rewards"], told["metrics"]) == ([*metrics], [*metrics])
    for metric, changes in zip(metrics, told["relative_change"], strict=True):
        own = picture.parent / metric
        config = runner.stored_config(own)
        assert {name: getattr(config.data.reward, name) for name in metrics} == {
            name: float(name == metric) for name in metrics
        }
        assert (config.sft.steps, config.rl.steps, config.control.enabled) == (0, 1, False)
        assert config.model.source == str(latest(run / "sft"))
        old, new = (read(own / "eval" / f"{name}.json")["slices"]["overall"]["parts"] for name in ("base", "rl-seed0"))
        assert changes == [
            pytest.approx((new[name]["mean"] - old[name]["mean"]) / old[name]["mean"]) for name in metrics
        ]
        assert any(changes)
    weights = {file: file.stat().st_mtime_ns for file in picture.parent.rglob("*.safetensors")}
    assert cli.main(["study", "metrics", str(run), "--steps", "1"]) == 0
    assert weights == {file: file.stat().st_mtime_ns for file in picture.parent.rglob("*.safetensors")}
