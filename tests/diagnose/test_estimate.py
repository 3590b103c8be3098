"""Estimates, held against what small models and runs really take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from rlvr_world import cli
from rlvr_world.config import ModelConfig, RLConfig, SFTConfig
from rlvr_world.diagnose.estimate import _memory, _step, _weights, estimate
from rlvr_world.models.loading import create_model, hollow_model
from rlvr_world.models.lora import add_lora
from rlvr_world.overrides import override
from rlvr_world.recipes import find
from rlvr_world.training.optimizer import adamw
from tests.recipes.published_layout import language_model

SMALL = ModelConfig(hidden=256, layers=4, heads=4, vocabulary=512, precision="float32")
LENGTHS = (300, 100)


def hollow(shape: ModelConfig = SMALL) -> Any:
    return hollow_model(shape, 512, sum(LENGTHS))


@pytest.mark.parametrize("rank", [0, 8])
def test_weights_and_moments_are_those_of_a_learner(rank: int) -> None:
    model: Any = create_model(SMALL, 512)
    if rank:
        model = add_lora(model, rank)
    trained = [p for p in model.parameters() if p.requires_grad]
    counted = _weights(hollow(), rank)
    assert counted == (sum(p.numel() for p in model.parameters()), sum(p.numel() for p in trained))
    model(torch.arange(8)[None]).logits.sum().backward()
    optimizer = adamw(trained, SFTConfig().optimizer)
    optimizer.step()
    moments = sum(t.nbytes for state in optimizer.state.values() for t in state.values() if t.ndim)
    gradients = sum(p.grad.nbytes for p in trained if p.grad is not None)
    shape = ModelConfig(**{**SMALL.__dict__, "lora_rank": rank})
    parts = _memory(hollow(), shape, SFTConfig(), LENGTHS)
    assert parts["gradients and AdamW's moments"] * 1e9 == pytest.approx(moments + gradients, rel=0.01)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_activations_are_what_a_forward_keeps(checkpointing: bool) -> None:
    model, kept = create_model(SMALL, 512).train(), {}
    if checkpointing:
        model.gradient_checkpointing_enable()
    known = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in known:
            kept[place] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model.model(torch.zeros(1, sum(LENGTHS), dtype=torch.int64))
    shape = ModelConfig(**{**SMALL.__dict__, "gradient_checkpointing": checkpointing})
    stage = SFTConfig(forward_tokens=1)
    parts = _memory(hollow(shape), shape, stage, LENGTHS)
    held = sum(kept.values())
    if checkpointing:  # one layer's are made again while it goes backward
        held += sum(LENGTHS) * 4 * (10 * SMALL.hidden + 4 * model.config.intermediate_size)
    assert held == pytest.approx(parts["activations"] * 1e9, rel=0.3)


def counted(work: Callable[[], Any]) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def test_flop_are_those_of_the_products_that_run() -> None:
    model, (prompt, response) = create_model(SMALL, 512), LENGTHS
    ids = torch.zeros(2, prompt + response, dtype=torch.int64)

    def train() -> None:
        hidden = model.model(ids).last_hidden_state[:, prompt:]  # the head is for answers alone
        model.lm_head(hidden).sum().backward()

    tokens, flop = _step(hollow(), SMALL, SFTConfig(batch=2), LENGTHS)
    assert tokens == 2 * (prompt + response)
    assert counted(train) == pytest.approx(flop, rel=0.15)


def test_a_step_of_rl_counts_rollouts_reference_and_update() -> None:
    rl = RLConfig(prompts=3, group=4, kl=0.0)
    tokens, flop = _step(hollow(), SMALL, rl, LENGTHS)
    assert tokens == 2 * 3 * (300 + 4 * 100), "sampled, then trained on, as the log counts them"
    _, more = _step(hollow(), SMALL, RLConfig(prompts=3, group=4, kl=0.1), LENGTHS)
    assert more / flop == pytest.approx(5 / 4)


def test_it_says_what_to_change(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = f"model.source={language_model(tmp_path / 'qwen')}"
    assert cli.main(["estimate", "published-1.5b-binary", source, "--gpus", "8"]) == 0
    said = capsys.readouterr().out
    assert "rl: " in said
    assert "fits" in said
    assert cli.main(["estimate", "rt1_multi", "--memory", "20"]) == 1
    assert "DOES NOT FIT: set model.gradient_checkpointing=true" in capsys.readouterr().out
    assert cli.main(["estimate", "rt1_multi", "--memory", "14", "model.gradient_checkpointing=true"]) == 1
    assert "rl: 127,101,696 parameters, 127,101,696 trained; DOES NOT FIT: lower rl.max_rows" in capsys.readouterr().out
    assert cli.main(["estimate", "rt1_multi", "--memory", "2"]) == 1
    assert "DOES NOT FIT: on several GPUs set model.shard=true; else set model.lora_rank" in capsys.readouterr().out
    assert cli.main(["estimate", "published-1.5b-binary", "model.source=/none"]) == 2


def test_eight_that_share_a_model_out_hold_it_whole_only_to_compute() -> None:
    one, eight = (_memory(hollow(), SMALL, RLConfig(kl=0.1), LENGTHS, of) for of in (1, 8))
    weights = one["weights, float32"]
    for part in ("weights, float32", "gradients and AdamW's moments", "reference model"):
        assert eight[part] == pytest.approx(one[part] / 8)
    assert eight["all of them, gathered"] == weights
    assert "all of them, gathered" not in one


def test_fewer_rows_at_once_make_it_fit() -> None:
    config = override(find("rt1_multi").config(), ["model.gradient_checkpointing=true"])
    assert not estimate(config, 1, 14, 312, 0.3)[0]
    assert estimate(override(config, ["rl.max_rows=128"]), 1, 14, 312, 0.3)[0]
