"""How far predicted frames are from what happened: MAE, MSE, PSNR, SSIM and LPIPS, a number a frame.

Conventions are those of the paper's evaluation (piqa and lpips): pictures in [0, 1], PSNR in dB with 1e-8 added to the
MSE (80 dB at most), SSIM with an 11-tap Gaussian window of deviation 1.5 and no padding, per colour channel.
Shape legend: N predictions, M true clips, T frames, B pictures, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from rlvr_world.errors import InputError
from rlvr_world.vision.config import SMALLEST
from rlvr_world.vision.lpips import LPIPS

LOWER_IS_BETTER = frozenset({"mae", "mse", "lpips"})
WINDOW = SMALLEST["none"]
"""Taps of SSIM's window: the fewest pixels a side that a picture must have."""


@dataclass(frozen=True)
class TruthFeatures:
    """Clips, such as what happened, and what they look like to the perceptual trunk: computed once, compared often."""

    frames: Tensor
    """float32 [M, T, 3, H, W] in [0, 1]."""
    features: tuple[Tensor, ...]
    """The trunk's activations, each [M * T, C, h, w]; empty without LPIPS."""
    row: Tensor
    """int64 [N]: the clip that each prediction is compared with, or is; ``[0]`` lets all share the only one."""

    def rows(self, index: Tensor) -> TruthFeatures:
        """The same clips for predictions of several groups: prediction n is compared with clip ``index[n]``."""
        return replace(self, row=index.to(self.frames.device))


class FrameMetrics:
    """Measures predictions against the truth, with the trunk's work on the truth done once.

    ``lpips`` None leaves LPIPS out; a function is asked for it when something is first measured, so that a model that
    only predicts needs no weights of it. ``chunk`` bounds how many pictures are worked on at once (memory alone).
    """

    def __init__(self, lpips: LPIPS | Callable[[], LPIPS | None] | None, chunk: int = 32):
        self._given = lpips
        self.perceptual = lpips is not None
        self.chunk = chunk

    @cached_property
    def lpips(self) -> LPIPS | None:
        return self._given if self._given is None or isinstance(self._given, LPIPS) else self._given()

    @torch.no_grad()
    def truth(self, frames: Tensor) -> TruthFeatures:
        """What happened: float32 [T, 3, H, W], or [M, T, 3, H, W] for several clips (``TruthFeatures.rows``)."""
        clips = frames[None] if frames.ndim == 4 else frames
        height, width = clips.shape[-2:]
        if min(height, width) < WINDOW:
            wanted = f"frames of at least {WINDOW} x {WINDOW} pixels"
            raise InputError(f"SSIM: expected {wanted}, got {height} x {width}; use larger ones")
        features: tuple[Tensor, ...] = ()
        if self.lpips is not None:
            parts = [self.lpips.features(part) for part in clips.flatten(0, 1).split(self.chunk)]
            features = tuple(torch.cat(layer) for layer in zip(*parts, strict=True))
        return TruthFeatures(clips, features, torch.arange(len(clips), device=clips.device))

    @torch.no_grad()
    def measure(self, predicted: Tensor | TruthFeatures, truth: TruthFeatures) -> dict[str, Tensor]:
        """mae, mse, psnr, ssim and, with a trunk, lpips: each float32 [N, T], on the frames' device.

        ``predicted`` is float32 [N, T, 3, H, W] in [0, 1], the caller clamps; or clips that the trunk has seen. Raises
        InputError for other shapes than those of ``truth``.
        """
        steps, shape = truth.frames.shape[1], truth.frames.shape[1:]
        if isinstance(predicted, Tensor):
            predicted = TruthFeatures(predicted, (), torch.arange(len(predicted), device=predicted.device))
        got = [len(predicted.row), *predicted.frames.shape[1:]]
        if got[1:] != [*shape] or len(truth.row) not in (1, got[0]):
            wanted = f"predictions [N, *{list(shape)}] for {len(truth.row)} rows of truth"
            raise InputError(f"frame metrics: expected {wanted}, got {got}; see TruthFeatures.rows")
        first_N2 = torch.stack([predicted.row, truth.row.expand(got[0])], 1) * steps
        places_B2 = (first_N2[:, None] + torch.arange(steps, device=first_N2.device)[:, None]).flatten(0, 1)
        parts = []
        for at, to in (part.T for part in places_B2.split(self.chunk)):
            pictures = predicted.frames.flatten(0, 1)[at]
            part = pixel_metrics(pictures, truth.frames.flatten(0, 1)[to])
            if self.lpips is not None:
                features = [layer[at] for layer in predicted.features] or self.lpips.features(pictures)
                part["lpips"] = self.lpips.distance(features, [layer[to] for layer in truth.features])
            parts.append(part)
        return {name: torch.cat([part[name] for part in parts]).view(-1, steps) for name in parts[0]}


def pixel_metrics(predicted: Tensor, real: Tensor) -> dict[str, Tensor]:
    """mae, mse, psnr and ssim, each [B], of pictures [B, 3, H, W] in [0, 1]."""
    difference = predicted - real
    mae, mse = difference.abs().mean((1, 2, 3)), difference.square().mean((1, 2, 3))
    return {"mae": mae, "mse": mse, "psnr": -10 * torch.log10(mse + 1e-8), "ssim": ssim(predicted, real)}


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004, K1 = 0.01, K2 = 0.03), [B], of pictures [B, 3, H, W] in [0, 1]."""
    rows, columns = _window(a.shape[2]).to(a), _window(a.shape[3]).to(a)
    mean_a, mean_b, aa, bb, ab = (rows @ x @ columns.T for x in (a, b, a * a, b * b, a * b))
    product, squares = mean_a * mean_b, mean_a.square() + mean_b.square()
    brightness = (2 * product + 0.01**2) / (squares + 0.01**2)
    contrast = (2 * (ab - product) + 0.03**2) / (aa + bb - squares + 0.03**2)
    return (brightness * contrast).mean((1, 2, 3))


def _window(size: int) -> Tensor:
    """Matrix [size - 10, size] that blurs a row of pixels without padding: far faster than convolving one channel."""
    offset = torch.arange(size) - torch.arange(size - WINDOW + 1)[:, None] - WINDOW // 2
    taps = torch.exp(-offset.square() / (2 * 1.5**2)) * (offset.abs() <= WINDOW // 2)
    return taps / taps.sum(1, keepdim=True)
