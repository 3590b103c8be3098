"""What a predicted clip earns: any weighted sum of the metrics, aggregated over frames (RLVR-World, section 5).

Shape legend: N predictions, T frames of each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from rlvr_world.domains.video.config import RewardConfig

SIGNS = {"mae": -1, "mse": -1, "psnr": 1, "ssim": 1, "lpips": -1, "proprio_mse": -1}
"""How each measure enters the reward: errors and distances against it, similarities for it."""


def reward(measures: Mapping[str, Tensor], config: RewardConfig) -> Tensor:
    """float32 [N] from measures [N, T]: those in ``SIGNS``, where they have a weight, and ``repeated`` (0 or 1), whose
    penalty is the rate over all frames (paper, Table 3), whatever the aggregate is."""
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
