"""LPIPS (Zhang et al. 2018, v0.1 linear heads): how far apart two pictures are to a trained eye; 0 for equal ones.

Five activations of an ImageNet trunk are normalised over channels; their squared differences, weighted by a learnt head
per channel, are averaged over positions and added up. Shape legend: B pictures, H height, W width, C channels,
h and w the height and width of a feature map.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlvr_world.errors import InputError
from rlvr_world.vision.config import SMALLEST

Backbone = Literal["vgg", "alex"]

HEADS: dict[Backbone, tuple[int, ...]] = {"vgg": (64, 128, 256, 512, 512), "alex": (64, 192, 384, 256, 256)}
"""Channels of the five activations that are compared."""
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's red, green and blue in [0, 1]: what the trunks were trained on. LPIPS states the same for [-1, 1]."""


class LPIPS(nn.Module):
    """The perceptual distance, frozen: gradients reach the pictures and stop at the weights.

    A new one has random weights; ``lpips_weights.load_lpips`` gives the trained ones. After
    ``lpips.trunk.to(torch.bfloat16)`` the costly part runs, and features are kept, in bfloat16; distances are summed
    in float32 all the same.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, backbone: Backbone):
        super().__init__()
        self.backbone: Backbone = backbone
        self.trunk = nn.ModuleList(_vgg16() if backbone == "vgg" else _alexnet())
        self.heads = nn.ParameterList(torch.full((channels,), 1 / channels) for channels in HEADS[backbone])
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(DEVIATION).view(3, 1, 1), persistent=False)
        # Faster: in bfloat16 on a CPU nearly twice. Some of torch's own annotations leave this argument out.
        self.trunk.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.requires_grad_(False).eval()

    def features(self, frames: Tensor) -> list[Tensor]:
        """Five activations [B, C, h, w] of unit length over C, in the trunk's type, of frames [B, 3, H, W] in [0, 1].
        Raises InputError for other shapes, and for pictures too small for the trunk."""
        least = SMALLEST[self.backbone]
        if frames.ndim != 4 or frames.shape[1] != 3 or min(frames.shape[2:]) < least:
            wanted, got = f"RGB pictures [B, 3, H, W] of at least {least} pixels a side", list(frames.shape)
            raise InputError(f"LPIPS {self.backbone}: expected {wanted}, got {got}; enlarge them or leave LPIPS out")
        x = ((frames - self.mean) / self.deviation).to(next(self.trunk.parameters()).dtype)
        features = []
        for stage in self.trunk:
            x = stage(x)
            features.append(F.normalize(x, dim=1, eps=1e-10))
        return features

    def distance(self, features_a: Sequence[Tensor], features_b: Sequence[Tensor]) -> Tensor:
        """float32 [B]: the distance of each picture in a to its fellow in b, or to the only one if b has just one."""
        layers = zip(features_a, features_b, self.heads, strict=True)
        return torch.stack([(a - b).float().square().mean((2, 3)) @ head.float() for a, b, head in layers]).sum(0)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """float32 [B]: the distance of frames a [B, 3, H, W] to b (the same shape, or one picture), all in [0, 1]."""
        return self.distance(self.features(a), self.features(b))


def _vgg16() -> list[nn.Sequential]:
    stages, width = [], 3
    for index, (channels, convolutions) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))):
        layers: list[nn.Module] = [nn.MaxPool2d(2)] if index else []
        for _ in range(convolutions):
            layers += [nn.Conv2d(width, channels, 3, padding=1), nn.ReLU(inplace=True)]
            width = channels
        stages.append(nn.Sequential(*layers))
    return stages


def _alexnet() -> list[nn.Sequential]:
    pool = nn.MaxPool2d(3, stride=2)
    return [
        nn.Sequential(nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(inplace=True)),
        nn.Sequential(pool, nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(inplace=True)),
        nn.Sequential(pool, nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(inplace=True)),
        nn.Sequential(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(inplace=True)),
        nn.Sequential(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(inplace=True)),
    ]
