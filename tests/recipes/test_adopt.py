"""Published video models, adopted: evaluated, trained from and asked, and as the folders were that they came from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from rlvr_world import cli
from rlvr_world.config import ModelConfig, OptimizerConfig
from rlvr_world.domains.video.layout import Codec
from rlvr_world.models.loading import CODEC, load_model
from rlvr_world.training.learner import Learner
from rlvr_world.training.packing import example, pack
from tests.recipes import published_layout as published

SMALL = ["model.device=cpu", "model.precision=float32", "threads=1", "data.lpips=none", "data.reward.lpips=0"]
FEW = ["data.split.every=3", "eval.rows=1", "eval.runs=1", "eval.valid_rows=1", "data.jittered=0"]
RL = ["sft.steps=0", "rl.steps=1", "rl.prompts=1", "rl.group=2", "rl.minibatches=1", "rl.eval_every=0"]


def adopt(folder: Path, kind: str) -> list[str]:
    """The command that adopts a published folder that was made here."""
    parts = [
        str(published.rt1_world_model(folder / "model", kind)),
        str(folder / "adopted"),
        *("--tokenizer", str(published.visual_tokenizer(folder / "tokenizer", kind))),
        *("--ranges", str(published.action_ranges(folder / "ranges.pth"))),
        *("--recipe", f"rt1_{kind}"),
    ]
    return ["adopt", *parts]


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_an_adopted_model_is_evaluated_trained_and_asked(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    short = ["data.horizon=2"] if kind == "multi" else []  # seven frames take their time
    assert cli.main([*adopt(tmp_path, kind), *short]) == 0
    model = str(tmp_path / "adopted")
    shutil.rmtree(tmp_path / "model")
    shutil.rmtree(tmp_path / "tokenizer")  # everything is inside
    (tmp_path / "ranges.pth").unlink()
    episodes = published.rt1_episodes(tmp_path / "episodes")
    rows = [f"data.path={episodes}", f"data.cache={tmp_path / 'cache'}", *SMALL, *FEW, *short]
    assert cli.main(["eval", model, "--recipe", f"rt1_{kind}", *rows, "--out", str(tmp_path / "result.json")]) == 0
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["slices"]["overall"]["malformed"]["mean"] == 0
    run = ["train", f"rt1_{kind}", "--out", str(tmp_path / "run"), f"model.source={model}", "control.enabled=false"]
    assert cli.main([*run, *rows, *RL]) == 0
    [tokens] = (tmp_path / "cache" / "tokens").glob("*.tokens")
    size = 4 * 2 + 2 * 320 if kind == "single" else 4 * 5 + 2 * (1280 + 3 * 80)
    drawn = tokens.stat().st_size / size
    assert drawn < (20 if kind == "single" else 10), "of the training episode's 10 frames or 8 clips, what was drawn"
    trained = tmp_path / "run" / "rl" / "seed0" / "step-000001"
    before, after = (load_file(Path(f) / "model.safetensors")["lm_head.weight"] for f in (model, trained))
    assert not torch.equal(before, after)
    assert load_model(str(trained))[0].config.codec == load_model(model)[0].config.codec
    given = 4 if kind == "single" else 2
    frames = np.load(episodes / "train_eps_00000000.npz")
    count = 5 if kind == "single" else 3
    np.savez(tmp_path / "question.npz", image=frames["image"][:given], action=frames["action"][:count])
    asked = ["predict", str(trained), str(tmp_path / "question.npz"), "--out", str(tmp_path / "seen")]
    assert cli.main(asked) == 0
    assert Path(capsys.readouterr().out.splitlines()[-1]).is_file()


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_log_probabilities_are_those_of_a_plain_forward(shared: Path, tmp_path: Path, kind: str) -> None:
    assert cli.main(adopt(tmp_path, kind)) == 0
    whole = load_file(shared / "golden" / "given" / "sequences.safetensors")
    name = f"{kind}_real_size"
    low, high = whole[f"{name}.action_ranges"].T.tolist()
    model, tokenizer = load_model(str(tmp_path / "adopted"))
    assert tokenizer is None
    codec = Codec.from_json(getattr(model.config, CODEC), "codec")
    bins = type(codec.actions)(tuple(low), tuple(high)).bins_of(whole[f"{name}.actions"][0, kind == "multi" :].numpy())
    context = whole[f"{name}.context_tokens"][0, 0].long() if kind == "multi" else None
    script = codec.layout.script(whole[f"{name}.tokens"][0].flatten(1).long(), torch.from_numpy(bins), context)
    ids = whole[f"{name}.input_ids"][:1]
    assert (*script.prompt, *script.target_ids()[0]) == tuple(ids[0].tolist())
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    with torch.no_grad():
        logits = plain(ids).logits[0, :-1]
        learner = Learner(model, None, ModelConfig(precision="float32"), OptimizerConfig())
        logps, _ = learner.logps(pack([example(script)]))
        adopted = AutoModelForCausalLM.from_pretrained(tmp_path / "adopted")(ids).logits[0, :-1]
    assert torch.equal(adopted, logits)
    written = torch.tensor([False] * len(script.prompt) + list(script.target_ids()[1]))[1:]
    legal = logits[written][:, : codec.layout.visual].log_softmax(-1)  # masks leave the codes of frames
    expected = legal.gather(1, ids[0, 1:][written][:, None])[:, 0]
    torch.testing.assert_close(logps, expected, atol=2e-4, rtol=1e-5)


def test_what_is_not_adopted_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = published.rt1_world_model(tmp_path / "model", "single")
    episodes = published.rt1_episodes(tmp_path / "episodes", 3, 6)
    rows = [f"data.path={episodes}", f"data.cache={tmp_path / 'cache'}", *SMALL, *FEW]
    start = [f"model.source={model}", *rows, *RL]
    for command in (
        ["eval", str(model), "--recipe", "rt1_single", *rows],
        ["train", "rt1_single", "--out", str(tmp_path / "run"), *start],
        ["predict", str(model), str(episodes / "train_eps_00000000.npz")],
    ):
        assert cli.main(command) == 2
        assert "`rlvr-world adopt` it " in capsys.readouterr().err


def test_what_does_not_belong_together_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = adopt(tmp_path, "single")
    model = ["adopt", str(published.rt1_world_model(tmp_path / "other", "multi")), *command[2:]]
    assert cli.main(model) == 2
    assert "expected 4633 token ids and room for 1654 of them, got 9008 and 8192" in capsys.readouterr().err
    assert not (tmp_path / "adopted").exists()
    torch.save({"low": [0.0]}, tmp_path / "ranges.pth")
    assert cli.main(command) == 2
    assert "ranges.pth: expected a tensor of 2 dimensions, got dict" in capsys.readouterr().err
    (tmp_path / "ranges.json").write_text("[[0, 1, 2]]")
    assert cli.main([str(tmp_path / "ranges.json") if part.endswith(".pth") else part for part in command]) == 2
    assert "ranges.json: expected rows of two numbers" in capsys.readouterr().err


def test_a_new_model_takes_ranges_from_a_file(tmp_path: Path) -> None:
    from rlvr_world.domains.video.codec import read_ranges

    ranges = read_ranges(published.action_ranges(tmp_path / "ranges.pth"), 256)
    assert (ranges.width, ranges.bins) == (13, 256)
    assert np.float32(ranges.high) == pytest.approx(np.float32([high for _, high in published.EXTREMES]), abs=0)
