"""Muon for the matrices of a model and AdamW for the rest, as one optimizer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rlvr_world import recipes
from rlvr_world.config import OptimizerConfig
from rlvr_world.errors import InputError
from rlvr_world.overrides import override
from rlvr_world.runs import checkpoints
from rlvr_world.runs.checkpoints import Counters
from rlvr_world.runs.look import at_settings
from rlvr_world.training.learner import Learner
from tests.e2e.test_ranks import GRID
from tests.runs.test_checkpoint import stage_of

MUON = OptimizerConfig(1e-2, weight_decay=0.0, kind="muon")


def test_a_step_of_a_matrix_is_orthogonal_and_as_large_as_one_of_adamw(learner_of: Callable[..., Learner]) -> None:
    learner = learner_of(optimizer=MUON)
    before = {name: p.detach().clone() for name, p in learner.model.named_parameters()}
    stage_of("sft", learner).step(0, 0.0)
    steps = {name: before[name] - p.detach() for name, p in learner.model.named_parameters()}
    matrices = {name: step for name, step in steps.items() if step.ndim == 2 and "embed" not in name}
    assert len(matrices) == 7 * learner.model.config.num_hidden_layers
    for name, step in matrices.items():
        assert 0.3 * 2e-3 < step.square().mean().sqrt() < 1.3 * 2e-3, name  # less where the gradient has less rank
        values = torch.linalg.svdvals(step)
        assert values[3] > 0.5 * values[0], name  # of AdamW's first step, all +-1, one rules
    for name in steps.keys() - matrices.keys():
        assert steps[name].abs().max() == pytest.approx(1e-2, rel=0.01), name


def test_muon_goes_on_from_a_checkpoint_as_if_never_stopped(tmp_path: Path, learner_of: Callable[..., Learner]) -> None:
    one, other = learner_of(optimizer=MUON), learner_of(optimizer=MUON)
    stage_of("sft", one).step(0, 0.25)
    other.restore(checkpoints.save(tmp_path, one, Counters(1)))
    for learner in (one, other):
        stage_of("sft", learner).step(1, 0.5)
    for (ours, _), (theirs, _) in zip(one.trainable, other.trainable, strict=True):
        assert torch.equal(ours, theirs)


def test_muon_is_refused_where_it_has_no_matrices_to_train() -> None:
    config = override(recipes.config_of(str(GRID)), ["sft.optimizer.kind=muon"])
    at_settings(config)
    with pytest.raises(InputError, match=r"sft\.optimizer\.kind: expected adamw for adapters \(model\.lora_rank\)"):
        at_settings(replace(config, model=replace(config.model, lora_rank=4)))
    video = override(recipes.config_of("pusht"), ["data.tokenizer.optimizer.kind=muon"])
    with pytest.raises(InputError, match="expected adamw for a visual tokenizer, got muon"):
        at_settings(video)
