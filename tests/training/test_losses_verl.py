"""Losses, their gradients and KL estimates against verl's own functions; skipped where verl is not installed.

verl 0.9 excludes the transformers that the rest is tested with, so this runs in an environment of its own.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from rlvr_world.training.advantages import rollout_weights
from rlvr_world.training.losses import kl_estimate, policy_loss

core = pytest.importorskip("verl.trainer.ppo.core_algos", reason="verl is not installed")

LENGTHS = torch.tensor([5, 1, 9, 4])
ROLLOUT = torch.arange(4).repeat_interleave(LENGTHS)
LONGEST = 12
MODES = {"token": "token-mean", "sequence": "seq-mean-token-mean", "constant": "seq-mean-token-sum-norm"}


def settings(low: float, high: float, constant: bool) -> Any:
    """verl's actor config as far as losses read it. Its dual clip, which we do not offer, is put out of reach."""
    config = object.__new__(pytest.importorskip("verl.workers.config").ActorConfig)  # its checks want a whole trainer
    fields = {"clip_ratio": 0.2, "clip_ratio_low": low, "clip_ratio_high": high, "clip_ratio_c": 1e9}
    sizes = {"loss_scale_factor": LONGEST} if constant else {}
    for name, value in {**fields, "global_batch_info": sizes}.items():
        object.__setattr__(config, name, value)
    return config


def padded(flat_T: Tensor) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(flat_T.split(LENGTHS.tolist())), batch_first=True)


@pytest.fixture
def tokens() -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities now and then, and the advantage of each token's rollout; ratios from 0.5 to 2."""
    generator = torch.Generator().manual_seed(0)
    old_T = -3 * torch.rand(len(ROLLOUT), generator=generator)
    logp_T = old_T + 0.7 * (2 * torch.rand(len(ROLLOUT), generator=generator) - 1)
    return logp_T, old_T, torch.randn(4, generator=generator)[ROLLOUT]


@pytest.mark.parametrize("aggregation", MODES)
@pytest.mark.parametrize(("low", "high"), [(0.2, 0.2), (0.2, 0.28), (0.05, 0.4)])
@pytest.mark.parametrize("whole", [False, True])
def test_policy_losses(tokens: tuple[Tensor, ...], aggregation: Any, low: float, high: float, whole: bool) -> None:
    if whole and aggregation != "sequence":
        pytest.skip("verl's GSPO has one aggregation")
    logp_T, old_T, advantage_T = tokens
    ours, theirs = logp_T.clone().requires_grad_(), logp_T.clone().requires_grad_()
    loss_T, _ = policy_loss(ours, old_T, advantage_T, low, high, ROLLOUT if whole else None)
    loss = (rollout_weights(LENGTHS, aggregation, LONGEST)[ROLLOUT] * loss_T).sum()
    loss.backward()
    mask = padded(torch.ones(len(ROLLOUT)))
    function = core.compute_policy_loss_gspo if whole else core.compute_policy_loss_vanilla
    expected, _ = function(
        padded(old_T),
        padded(theirs),
        padded(advantage_T),
        mask,
        loss_agg_mode=MODES[aggregation],
        config=settings(low, high, aggregation == "constant"),
    )
    expected.backward()
    torch.testing.assert_close(loss, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
def test_kl_estimates(tokens: tuple[Tensor, ...], kind: Any) -> None:
    logp_T, reference_T, _ = tokens
    far_T = torch.cat([reference_T[:-2], torch.tensor([30.0, -30.0])])
    ours, theirs = logp_T.clone().requires_grad_(), logp_T.clone().requires_grad_()
    mine, other = kl_estimate(ours, far_T, kind), core.kl_penalty_forward(theirs, far_T, kind)
    torch.testing.assert_close(mine, other)
    mine.sum().backward()
    other.sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)
