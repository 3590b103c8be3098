"""What a visual tokenizer trains on: short segments of training episodes, cropped and recoloured.

Shape legend: B segments, T frames of a segment, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from rlvr_world.domains.video.augmentation import jitter
from rlvr_world.domains.video.episodes import Clip, Episodes
from rlvr_world.domains.video.token_cache import read_frames
from rlvr_world.errors import InputError
from rlvr_world.vision.config import VisualTokenizerConfig

ASPECT = (0.8, 1.12)
"""Width over height of a random crop, in units of the frame's own (published: 1.0 to 1.4 at 320 x 256)."""


@dataclass(frozen=True)
class Segments:
    """The segments of a step: a function of its number, so that a stopped run goes on with the same ones."""

    episodes: Episodes
    chosen: Sequence[int]
    """Training episodes."""
    size: tuple[int, int]
    """Height and width in pixels."""
    stride: int
    """Steps between neighbouring frames."""
    config: VisualTokenizerConfig
    seed: int
    fit: str = "squash"

    def __post_init__(self) -> None:
        longest = max(self.episodes.lengths[e] for e in self.chosen)
        if longest < self._span:
            got = f"its longest training episode has {longest} frames, a segment of the tokenizer spans {self._span}"
            mend = "lower data.tokenizer.segment, data.tokenizer.reach or data.frame_skip"
            raise InputError(f"{self.episodes.name}: {got}; {mend}")

    @property
    def _span(self) -> int:
        return (self.config.reach or (self.config.segment - 1) * self.stride) + 1

    def __call__(self, step: int) -> Tensor:
        """float32 [B, T, 3, H, W] in [0, 1]. Episodes that are too short are drawn again."""
        rng = np.random.default_rng([self.seed, step])
        segments: list[Tensor] = []
        while len(segments) < self.config.batch:
            episode = int(rng.choice(self.chosen))
            spare = self.episodes.lengths[episode] - self._span
            if spare >= 0:
                steps = self._steps(rng, int(rng.integers(spare + 1)))
                frames = read_frames(Clip(self.episodes, episode, steps), self.size, self.fit)
                segments.append(self._augment(frames, rng))
        return torch.stack(segments)

    def _steps(self, rng: np.random.Generator, start: int) -> tuple[int, ...]:
        """The next frames, or the first and others drawn from the reach (paper: 7 of the 31 after the context)."""
        if not self.config.reach:
            return tuple(range(start, start + self._span, self.stride))
        later = rng.choice(np.arange(1, self.config.reach + 1), self.config.segment - 1, replace=False)
        return (start, *(start + np.sort(later)).tolist())

    def _augment(self, frames_T3HW: Tensor, rng: np.random.Generator) -> Tensor:
        """One draw for all frames of a segment."""
        if self.config.crop < 1:
            frames_T3HW = _crop(frames_T3HW, rng, self.config.crop)
        if self.config.jitter:
            frames_T3HW = jitter(frames_T3HW.movedim(1, -1), rng).movedim(-1, 1)
        return frames_T3HW


def _crop(frames_T3HW: Tensor, rng: np.random.Generator, least: float) -> Tensor:
    """A random box of at least this share of the area, brought back to the whole size."""
    height, width = frames_T3HW.shape[-2:]
    area, aspect = rng.uniform(least, 1) * height * width, width / height * np.exp(rng.uniform(*np.log(ASPECT)))
    h, w = min(height, round((area / aspect) ** 0.5)), min(width, round((area * aspect) ** 0.5))
    top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
    box = frames_T3HW[..., top : top + h, left : left + w]
    return F.interpolate(box, (height, width), mode="bilinear", align_corners=False, antialias=True).clamp(0, 1)
