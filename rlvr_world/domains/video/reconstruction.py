"""How well a visual tokenizer gives back what it has not seen: its table in a report, and what a look before RL finds.

That look asks what the round trip costs, and whether the codec decides who is better.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from rlvr_world.domains.video.domain import VideoDomain
from rlvr_world.domains.video.pictures import error_map, strip
from rlvr_world.domains.video.token_cache import TokenCache, whole_clip
from rlvr_world.scoring import baselines, score
from rlvr_world.types import Finding, Judged, Picture, Transition
from rlvr_world.vision.metrics import FrameMetrics

CLIPS = 128
"""Test clips, spread over the split, that the table is made of."""
SHOWN = 4
"""Of them, those whose pictures are kept."""
STILL, FLIPS = 1.0, 0.3
"""The round trip may lose at most ``STILL`` of what copying loses, and turn round at most ``FLIPS`` of the pairs."""


def measure_reconstruction(
    cache: TokenCache, metrics: FrameMetrics, rows: Sequence[Transition]
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Each metric of each clip's frames after the round trip that bounds every prediction; ``code_usage``, pictures
    ``restless``: of the places where no pixel changes from one frame to the next, the share whose token does; and
    ``changed``: the share of tokens that are others than in float32, where frames are encoded in something else."""
    values: dict[str, list[float]] = {}
    pictures: list[str] = []
    used: set[int] = set()
    still, restless, changed = 0, 0, []
    chosen = range(0, len(rows), max(1, len(rows) // CLIPS))
    for number, i in enumerate(chosen):
        clip = whole_clip(rows[i])
        context, tokens = cache.lookup(clip)
        used |= set(tokens.flatten().tolist())
        [made] = cache.decode([context], [tokens])
        frames = cache.read(clip)
        if cache.encodes != torch.float32:
            exact = cache.encode(frames[None] if cache.context_tokens else frames[:, None], torch.float32)
            changed += (exact.flatten() != torch.cat([context, tokens.flatten()])).tolist()
        real = frames[-len(tokens) :]
        measured = metrics.measure(made[None].to(cache.device), metrics.truth(real.to(cache.device)))
        for name, value in measured.items():
            values.setdefault(name, []).append(value.mean().item())
        same_pixels, same_tokens = _unchanged(real, tokens, cache.grid)
        still, restless = still + int(same_pixels.sum()), restless + int((same_pixels & ~same_tokens).sum())
        if number % max(1, len(chosen) // SHOWN) == 0 and len(pictures) < SHOWN:
            pictures.append(Picture(strip(torch.cat([real[-1:], made[-1:], error_map(made[-1:], real[-1:])]))).uri)
    usage, moved = len(used) / cache.codebook, restless / still if still else None
    told = {"rows": len(chosen), "code_usage": usage, "restless": moved, "pictures": pictures}
    if changed:
        told["changed"] = sum(changed) / len(changed)
        print(f"encoded in {cache.encodes}, {told['changed']:.2%} of the tokens are others", file=sys.stderr)
    return values, told


def _unchanged(frames_T3HW: Tensor, tokens_Tn: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Whether the pixels, and the token, of each place are those of the frame before: bool [T - 1, n] each."""
    rows, columns = grid
    T, _, H, W = frames_T3HW.shape
    places = frames_T3HW.reshape(T, 3, rows, H // rows, columns, W // columns).permute(0, 2, 4, 1, 3, 5)
    flat_TnP = places.reshape(T, rows * columns, -1)
    return (flat_TnP[1:] == flat_TnP[:-1]).all(-1), tokens_Tn[1:] == tokens_Tn[:-1]


def round_trip(domain: VideoDomain, rows: Sequence[Transition]) -> list[Finding]:
    """What the codec's round trip costs, beside what really moves: the reward of the last frame once more."""
    scored, names = baselines(domain, rows), ("copy last frame", "tokenizer round trip")
    copied, back = (float(np.mean([named[name].value for named in scored])) for name in names)
    advice = "tokens lose more than moves: train the tokenizer longer (data.tokenizer.steps), or give it more codes"
    text = f"reward {back:.4g}; copying the last frame, which is as far off as things move, {copied:.4g}"
    return [Finding("round trip of the codec", text, advice if back < STILL * copied else "")]


def flips(domain: VideoDomain, rows: Sequence[Transition], judged: Judged) -> list[Finding]:
    """Of the pairs of a group, the share whose order depends on whether they are held against the true frames or
    against what the tokenizer can show of them."""
    other: Literal["frame", "round_trip"] = "frame" if domain.config.target == "round_trip" else "round_trip"
    reward = replace(domain.config, target=other)
    held = VideoDomain(domain.codec, domain.cache, domain.metrics, reward, domain.skip_blocks)
    again = score(held, [[prediction for prediction, _ in group] for group in judged], rows)
    turned = pairs = 0
    for group, theirs in zip(judged, again, strict=True):
        ours = [one for _, one in group]
        for i, j in combinations(range(len(ours)), 2):
            one, two = ours[i].value - ours[j].value, theirs[i].value - theirs[j].value
            if one or two:
                pairs, turned = pairs + 1, turned + (one * two < 0)
    share = turned / pairs if pairs else 0.0
    advice = f"the codec decides who is better: train it longer, or data.reward.target={other}" if share > FLIPS else ""
    return [Finding("pairs that the codec would order otherwise", f"{share:.0%} of {pairs}", advice)]
