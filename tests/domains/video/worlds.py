"""Small video worlds with random tokenizers, and episodes in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rlvr_world.domains.video.actions import ActionBins
from rlvr_world.domains.video.config import RewardConfig
from rlvr_world.domains.video.domain import VideoDomain
from rlvr_world.domains.video.layout import Codec, VideoLayout
from rlvr_world.domains.video.token_cache import TokenCache
from rlvr_world.vision.compressive_tokenizer import CompressiveTokenizer
from rlvr_world.vision.frame_tokenizer import FrameTokenizer
from rlvr_world.vision.lpips import LPIPS
from rlvr_world.vision.metrics import FrameMetrics


class Made:
    """Episodes of these frames; ``read`` counts what is read of them."""

    name, files = "made", ()

    def __init__(self, frames: Sequence[np.ndarray], moves: Sequence[Any], felt: Sequence[np.ndarray] = ()) -> None:
        self.videos, self.moves, self.felt, self.read = list(frames), moves, felt, 0
        self.ids: Sequence[str] = "abcdefgh"[: len(frames)]
        self.lengths: Sequence[int] = [len(video) for video in frames]

    def frames(self, episode: int, steps: Sequence[int]) -> np.ndarray:
        self.read += len(steps)
        return self.videos[episode][list(steps)]

    def actions(self, episode: int) -> np.ndarray:
        return np.asarray(self.moves[episode], np.float32)

    def proprio(self, episode: int) -> np.ndarray | None:
        return np.asarray(self.felt[episode], np.float32) if len(self.felt) else None


def frame_tokenizer(levels: tuple[int, ...] = (8, 8), stages: int = 3) -> FrameTokenizer:
    """A token for so many halvings but one: 4x4 pixels with three stages."""
    torch.manual_seed(0)
    small = {"layers_per_block": 1, "latent_channels": 4, "norm_num_groups": 2}
    return FrameTokenizer(**small, block_out_channels=(4,) * stages, fsq_levels=levels)


def compressive_tokenizer(stages: int = 2) -> CompressiveTokenizer:
    """8x8 context tokens, 2x2 a later frame: of 16x16 pixels with two stages."""
    torch.manual_seed(0)
    small = {"layers_per_block": 1, "latent_channels": 4, "norm_num_groups": 2, "block_out_channels": (32,) * stages}
    grid = {"context_grid": (8, 8), "max_att_resolution": 8}
    return CompressiveTokenizer(**small, **grid, vq_fsq_levels=(5, 5), dyn_fsq_levels=(8, 8))


def video_domain(
    folder: Path,
    ranges: tuple[ActionBins, ActionBins | None],
    config: RewardConfig,
    multi: bool = False,
    lpips: LPIPS | None = None,
    skip_blocks: bool = False,
    large: bool = False,
    **layout: Any,
) -> VideoDomain:
    """Of 16x16 pixels, or ``large`` ones of 32x32, for which LPIPS is made; ``ranges`` of two fields of an action, and
    of proprioception."""
    size = (32, 32) if large else (16, 16)
    tokenizer = compressive_tokenizer(2 + large) if multi else frame_tokenizer(stages=3 + large)
    with torch.no_grad():
        tokenizer.quant_linear.weight *= 20  # or all frames would have the same tokens
    cache, (actions, felt) = TokenCache(tokenizer, size, folder), ranges
    sizes = {"context_visual": cache.context_codebook, "context_tokens": cache.context_tokens, "action_bins": 16}
    sizes |= {"proprio_width": felt.width if felt else 0, **layout}
    kind = sizes.pop("kind", "multi_step" if multi else "single_step")  # named: without a far context frame
    made = VideoLayout(kind, 64, cache.tokens, 2, **sizes)
    codec = Codec(made, actions, cache.fingerprint, size, felt)
    return VideoDomain(codec, cache, FrameMetrics(lpips), config, skip_blocks)
