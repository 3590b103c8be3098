"""What frames tell of numbers that somebody knows, such as places: a small network that looks at nothing but where each
of its features is strongest (spatial softmax, arXiv 1509.06113), so that a dot of three pixels is placed after seconds.

Shape legend: N frames, H height, W width, C features, K numbers.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIDE, FEATURES, STEPS, BATCH = 32, 8, 400, 64


class _Places(nn.Module):
    def forward(self, features_NCHW: Tensor) -> Tensor:
        weight, axis = (8 * features_NCHW).flatten(2).softmax(-1).view_as(features_NCHW), torch.linspace(-1, 1, SIDE)
        return torch.cat([weight.sum(2) @ axis, weight.sum(3) @ axis], 1)


def fit_probe(frames_N3HW: Tensor, known_NK: Tensor, seed: int) -> Callable[[Tensor], Tensor]:
    """What tells float32 [N, K] from frames float32 [N, 3, H, W] in [0, 1]; the same for the same frames and seed."""
    mean_K, spread_K = known_NK.mean(0), known_NK.std(0).clamp_min(1e-6)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        look = (nn.Conv2d(3, FEATURES, 3, padding=1), nn.GELU(), nn.Conv2d(FEATURES, FEATURES, 3, padding=1), _Places())
        network = nn.Sequential(*look, nn.Linear(2 * FEATURES, 64), nn.GELU(), nn.Linear(64, len(mean_K)))
        small, wanted = _small(frames_N3HW), (known_NK - mean_K) / spread_K
        optimizer = torch.optim.AdamW(network.parameters())
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, STEPS)
        for _ in range(STEPS):
            drawn = torch.randint(len(small), (BATCH,))
            optimizer.zero_grad()
            F.mse_loss(network(small[drawn]), wanted[drawn]).backward()
            optimizer.step()
            schedule.step()
    return torch.no_grad()(lambda frames: network(_small(frames)) * spread_K + mean_K)


def _small(frames_N3HW: Tensor) -> Tensor:
    return F.interpolate(frames_N3HW, (SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True) - 0.5
