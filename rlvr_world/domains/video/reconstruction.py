"""How well a visual tokenizer gives back what it has not seen: the table of its own in a report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rlvr_world.domains.video.pictures import error_map, strip
from rlvr_world.domains.video.token_cache import TokenCache, read_frames, whole_clip
from rlvr_world.types import Picture, Transition
from rlvr_world.vision.metrics import FrameMetrics

CLIPS = 128
"""Test clips, spread over the split, that the table is made of."""
SHOWN = 4
"""Of them, those whose pictures are kept."""


def measure_reconstruction(
    cache: TokenCache, metrics: FrameMetrics, rows: Sequence[Transition]
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Each metric of each clip's frames after the round trip that bounds every prediction; ``code_usage``, pictures
    and ``restless``: of the places where no pixel changes from one frame to the next, the share whose token does.

    Of frames that were never trained on, decoded from their tokens.
    """
    values: dict[str, list[float]] = {}
    pictures: list[str] = []
    used: set[int] = set()
    still, restless = 0, 0
    chosen = range(0, len(rows), max(1, len(rows) // CLIPS))
    for number, i in enumerate(chosen):
        clip = whole_clip(rows[i])
        context, tokens = cache.lookup(clip)
        used |= set(tokens.flatten().tolist())
        [made] = cache.decode([context], [tokens])
        real = read_frames(clip, cache.size)[-len(tokens) :]
        measured = metrics.measure(made[None].to(cache.device), metrics.truth(real.to(cache.device)))
        for name, value in measured.items():
            values.setdefault(name, []).append(value.mean().item())
        same_pixels, same_tokens = _unchanged(real, tokens, cache.grid)
        still, restless = still + int(same_pixels.sum()), restless + int((same_pixels & ~same_tokens).sum())
        if number % max(1, len(chosen) // SHOWN) == 0 and len(pictures) < SHOWN:
            pictures.append(Picture(strip([torch.cat([real[-1:], made[-1:], error_map(made[-1:], real[-1:])])])).uri)
    return values, {
        "rows": len(chosen),
        "code_usage": len(used) / cache.codebook,
        "restless": restless / still if still else None,
        "pictures": pictures,
    }


def _unchanged(frames_T3HW: Tensor, tokens_Tn: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Whether the pixels, and the token, of each place are those of the frame before: bool [T - 1, n] each."""
    rows, columns = grid
    T, _, H, W = frames_T3HW.shape
    places = frames_T3HW.reshape(T, 3, rows, H // rows, columns, W // columns).permute(0, 2, 4, 1, 3, 5)
    flat_TnP = places.reshape(T, rows * columns, -1)
    return (flat_TnP[1:] == flat_TnP[:-1]).all(-1), tokens_Tn[1:] == tokens_Tn[:-1]
