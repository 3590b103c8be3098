"""The discriminator: the published size, its losses by hand, what a penalty's gradient reaches."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rlvr_world.errors import InputError
from rlvr_world.vision.discriminator import PatchDiscriminator, gradient_penalty, hinge_loss


def test_the_published_size() -> None:
    with torch.device("meta"):
        discriminator = PatchDiscriminator()
    assert sum(weight.numel() for weight in discriminator.parameters()) == 6_271_105
    convolutions = [layer for layer in discriminator.body if isinstance(layer, nn.Conv2d)]
    assert [layer.out_channels for layer in convolutions] == [64, 128, 256, 512, 512, 512]
    assert sum(isinstance(layer, nn.InstanceNorm2d) for layer in discriminator.body) == 5


def test_a_score_a_patch() -> None:
    assert PatchDiscriminator(depth=3, width=8)(torch.rand(2, 3, 32, 40)).shape == (2, 1, 4, 5)


def test_convolutions_have_spectral_norm_one() -> None:
    discriminator = PatchDiscriminator(depth=2, width=8)
    for _ in range(60):  # each forward in training mode is one step of power iteration
        discriminator(torch.rand(1, 3, 16, 16))
    for layer in discriminator.body:
        if isinstance(layer, nn.Conv2d):
            assert torch.linalg.matrix_norm(layer.weight.flatten(1), ord=2).item() == pytest.approx(1, abs=0.02)


def test_hinge_by_hand() -> None:
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, 0.0, 1.0, 0.5])
    assert hinge_loss(real, fake).item() == pytest.approx((0 + 0.5 + 2) / 3 + (0 + 1 + 2 + 1.5) / 4)


def test_gradient_penalty_by_hand() -> None:
    class Linear(nn.Module):
        def forward(self, frames: torch.Tensor) -> torch.Tensor:
            return 3 * frames[:, :1, :1, :1] + 4 * frames[:, 1:2, :1, :1]

    assert gradient_penalty(Linear(), torch.rand(2, 3, 4, 4)).item() == pytest.approx((5 - 1) ** 2)


def test_the_penalty_trains_the_discriminator_and_leaves_the_frames_alone() -> None:
    discriminator, frames = PatchDiscriminator(depth=2, width=8), torch.rand(2, 3, 16, 16, requires_grad=True)
    gradient_penalty(discriminator, frames).backward()
    assert frames.grad is None
    for name, weight in discriminator.named_parameters():
        if name.endswith("original"):
            assert weight.grad is not None, name
            assert weight.grad.abs().max() > 0, name


def test_frames_too_small_for_the_depth() -> None:
    with pytest.raises(InputError, match="more than 64 pixels a side, got 64x64; lower the depth"):
        PatchDiscriminator()(torch.rand(1, 3, 64, 64))
