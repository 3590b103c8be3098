from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from rlvr_world.domains.video.config import RewardConfig
from rlvr_world.domains.video.rewards import reward

MEASURES = {
    "mae": torch.tensor([[0.1, 0.2], [0.0, 0.0]]),
    "mse": torch.tensor([[0.01, 0.04], [0.0, 0.0]]),
    "psnr": torch.tensor([[20.0, 14.0], [80.0, 80.0]]),
    "ssim": torch.tensor([[0.8, 0.6], [1.0, 1.0]]),
    "lpips": torch.tensor([[0.3, 0.5], [0.0, 0.0]]),
    "proprio_mse": torch.tensor([[0.02, 0.04], [0.0, 0.0]]),
    "repeated": torch.tensor([[0.0, 1.0], [0.0, 0.0]]),
}
NOTHING = RewardConfig(lpips=0, mae=0)


def test_default_is_the_published_reward() -> None:
    assert reward(MEASURES, RewardConfig()).tolist() == pytest.approx([-(0.15 + 0.4), 0.0])


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"mse": 1.0}, -0.025),
        ({"psnr": 0.1}, 1.7),
        ({"ssim": 1.0}, 0.7),
        ({"proprio_mse": 2.0}, -0.06),
        ({"repetition": 0.5}, -0.25),
        ({"mae": 1.0, "aggregate": "last"}, -0.2),
        ({"mae": 1.0, "aggregate": "discount"}, -(0.1 + 0.9 * 0.2) / 1.9),
        ({"repetition": 0.5, "aggregate": "last"}, -0.25),  # the rate, whatever the aggregate
    ],
)
def test_each_weight_and_aggregate(change: dict[str, Any], expected: float) -> None:
    assert reward(MEASURES, replace(NOTHING, **change))[0].item() == pytest.approx(expected)


def test_a_measure_without_weight_is_not_needed() -> None:
    without = {name: m for name, m in MEASURES.items() if name not in ("lpips", "proprio_mse")}
    assert reward(without, replace(NOTHING, mae=1.0))[0].item() == pytest.approx(-0.15)
    with pytest.raises(KeyError, match="lpips"):
        reward(without, RewardConfig())
