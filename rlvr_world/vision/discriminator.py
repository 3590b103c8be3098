"""The adversary of tokenizer training: a patch discriminator (Paella's) with a hinge loss and a gradient penalty.

Shape legend: B frames, H height, W width, h w patches.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from rlvr_world.errors import InputError


class PatchDiscriminator(nn.Module):
    """Says of each patch of a frame how real it looks (no sigmoid).

    ``depth`` convolutions of stride 2, ``width`` channels after the first, doubling up to 8 times that; the published
    size is depth 6, width 64 (6,271,105 weights). A 64x64 frame takes at most depth 5.
    """

    def __init__(self, depth: int = 6, width: int = 64) -> None:
        super().__init__()
        self.step = 2**depth
        widths = [3, *(width * 2 ** min(i, 3) for i in range(depth))]
        layers: list[nn.Module] = []
        for i in range(depth):
            layers.append(spectral_norm(nn.Conv2d(widths[i], widths[i + 1], 3, stride=2, padding=1)))
            if i > 0:
                layers.append(nn.InstanceNorm2d(widths[i + 1]))
            layers.append(nn.LeakyReLU(0.2))
        self.body = nn.Sequential(*layers)
        self.head = nn.Conv2d(widths[-1], 1, 1)

    def forward(self, frames_B3HW: Tensor) -> Tensor:
        """[B, 1, h, w], the higher the more real. InputError for frames that leave a single patch."""
        height, width = frames_B3HW.shape[-2:]
        if height <= self.step and width <= self.step:
            wanted = f"frames of more than {self.step} pixels a side"
            raise InputError(f"discriminator depth: expected {wanted}, got {height}x{width}; lower the depth")
        return self.head(self.body(frames_B3HW))


def hinge_loss(real: Tensor, fake: Tensor) -> Tensor:
    """The discriminator's loss from its scores: real ones should pass 1, fake ones should fall below -1."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def gradient_penalty(discriminator: nn.Module, real_B3HW: Tensor) -> Tensor:
    """Mean over frames of (|gradient of the summed scores with respect to the frame| - 1)^2; published weight 10."""
    real_B3HW = real_B3HW.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(discriminator(real_B3HW).sum(), real_B3HW, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()
