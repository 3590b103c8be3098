"""Finite scalar quantisation: every channel is bounded and rounded to one of a few levels; no codebook is learned.

Mentzer et al. 2024, "Finite Scalar Quantization: VQ-VAE Made Simple". A code is one value per channel in [-1, 1]; its
index counts in mixed radix with the first channel least significant.
Shape legend: d channels of a code, one per level count.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rlvr_world.errors import InputError

PRESETS = {8: (8, 6, 5), 10: (8, 5, 5, 5), 12: (7, 5, 5, 5, 5), 14: (8, 8, 8, 6, 5), 16: (8, 8, 8, 5, 5, 5)}
"""Levels a channel by about how many bits a code holds; the published tokenizers use 12 (4375 codes)."""


def levels_of(preset: int | Sequence[int]) -> tuple[int, ...]:
    """The levels of each channel, from a preset or as given. Raises InputError for others."""
    if isinstance(preset, int):
        if preset not in PRESETS:
            raise InputError(f"FSQ levels: expected one of the presets {sorted(PRESETS)} or a list, got {preset}")
        return PRESETS[preset]
    levels = tuple(preset)
    if not levels or any(not isinstance(level, int) or level < 2 for level in levels):
        raise InputError(f"FSQ levels: expected a list of whole numbers of at least 2, got {list(levels)}")
    return levels


class FSQ(nn.Module):
    """Quantises ``len(levels)`` channels to ``prod(levels)`` codes. It has no weights and no state-dict entries."""

    level: Tensor
    basis: Tensor

    def __init__(self, levels: int | Sequence[int]) -> None:
        super().__init__()
        self.levels = levels_of(levels)
        self.size = math.prod(self.levels)
        # Whole numbers, so that a copy of the model in bfloat16 keeps them exact.
        self.register_buffer("level", torch.tensor(self.levels), persistent=False)
        basis = [math.prod(self.levels[:i]) for i in range(len(self.levels))]
        self.register_buffer("basis", torch.tensor(basis), persistent=False)

    def bound(self, z: Tensor) -> Tensor:
        """``z`` [..., d] squashed so that rounding it reaches each channel's levels and no others; float32 [..., d]."""
        half = (self.level - 1).float() * (1 + 1e-3) / 2
        offset = torch.where(self.level % 2 == 0, 0.5, 0.0)
        return torch.tanh(z.float() + torch.atanh(offset / half)) * half - offset

    def quantize(self, z: Tensor, dim: int = -1) -> tuple[Tensor, Tensor]:
        """Codes like ``z`` (d channels in dimension ``dim``), and int64 indices without that dimension, computed in
        float32 whatever ``z`` is; gradients pass through the rounding as if it were not there."""
        bounded = self.bound(z.movedim(dim, -1))
        rounded = bounded.round()
        centre = self.level // 2
        indices = ((rounded.long() + centre) * self.basis).sum(-1)
        codes = (bounded + (rounded - bounded).detach()) / centre
        return codes.to(z.dtype).movedim(-1, dim), indices

    def codes_of(self, indices: Tensor, dim: int = -1) -> Tensor:
        """float32 codes of ``indices`` [...], the d channels placed in dimension ``dim``. Periodic: an index stands for
        the same code as that index plus any multiple of ``size``."""
        centre = self.level // 2
        digits = indices.unsqueeze(-1) // self.basis % self.level
        return ((digits - centre).float() / centre).movedim(-1, dim)
