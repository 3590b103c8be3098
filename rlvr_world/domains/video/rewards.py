"""What a predicted clip earns: any weighted sum of the metrics, aggregated over frames (RLVR-World, section 5).

Shape legend: N predictions, T frames of each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rlvr_world.config import what

SIGNS = {"mae": -1, "mse": -1, "psnr": 1, "ssim": 1, "lpips": -1, "proprio_mse": -1}
"""How each measure enters the reward: errors and distances against it, similarities for it."""


@dataclass(frozen=True)
class RewardConfig:
    lpips: float = what(1.0, "weight of LPIPS, the perceptual distance (published: 1)")
    mae: float = what(1.0, "weight of the mean absolute error (published: 1)")
    mse: float = what(0.0, "weight of the mean squared error")
    psnr: float = what(0.0, "weight of PSNR, which counts for the prediction", "1/dB")
    ssim: float = what(0.0, "weight of SSIM, which counts for the prediction")
    proprio_mse: float = what(
        0.0, "weight of proprioception's mean squared error, in units of each field's range (paper's PushT: 1)"
    )
    repetition: float = what(0.0, "weight of the share of frames equal, token by token, to the frame before")
    aggregate: Literal["mean", "last", "discount"] = what(
        "mean", "over the frames of a clip: their mean, the last one, or a mean with weights 0.9^k"
    )
    target: Literal["frame", "round_trip"] = what(
        "frame",
        "compare with what the camera saw (published), or with what the tokenizer makes of it: the best reachable",
    )


def reward(measures: Mapping[str, Tensor], config: RewardConfig) -> Tensor:
    """float32 [N] from measures [N, T]: those named in ``SIGNS`` (needed where weighted) and ``repeated`` (0 or 1).

    The repetition penalty is the rate over all frames (paper, Table 3), whatever the aggregate is.
    """
    repeated_NT = measures["repeated"].float()
    quality_NT = torch.zeros_like(repeated_NT)
    for name, sign in SIGNS.items():
        if weight := getattr(config, name):
            quality_NT = quality_NT + sign * weight * measures[name]
    return quality_NT @ frame_weights(repeated_NT.shape[1], config.aggregate) - config.repetition * repeated_NT.mean(1)


def frame_weights(frames: int, aggregate: Literal["mean", "last", "discount"]) -> Tensor:
    """float32 [T] that sum to 1."""
    step = torch.arange(frames, dtype=torch.float32)
    weights = {"mean": step * 0 + 1, "last": (step == frames - 1).float(), "discount": 0.9**step}[aggregate]
    return weights / weights.sum()
