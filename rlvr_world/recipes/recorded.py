"""Recorded video that nothing was trained on, whole episodes at a time, and what tells imagined frames from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlvr_world.domains.video.config import VideoConfig
from rlvr_world.domains.video.episodes import Clip
from rlvr_world.domains.video.readers.npz import NpzEpisodes
from rlvr_world.domains.video.splits import parts, whole_episodes
from rlvr_world.domains.video.token_cache import read_frames
from rlvr_world.evaluation.intervals import correlation
from rlvr_world.recipes import Recorded, Walk
from rlvr_world.types import Transition
from rlvr_world.vision.metrics import FrameMetrics
from rlvr_world.vision.probe import fit_probe

PROBED, EACH, MOVED = 200, 24, 0.1
"""Training episodes that a probe is fitted to and tried on, frames of each; change that moves a pixel, in [0, 1]."""


def recorded_video(data: VideoConfig, metrics: FrameMetrics, seed: int) -> Recorded:
    """Each episode of the test split, from its first frames on."""
    found, rng = parts(data), np.random.default_rng(seed)
    episodes, chosen = found["train"]
    some = rng.choice(chosen, min(PROBED, len(chosen)), replace=False).tolist()
    clips = [Clip(episodes, e, tuple(rng.integers(episodes.lengths[e], size=EACH).tolist())) for e in some]
    known, kept, size = _known(clips), len(clips) * EACH * 4 // 5, (data.height, data.width)
    frames, numbers = torch.cat([read_frames(clip, size, data.fit) for clip in clips]), torch.tensor([*known.values()])
    probe = fit_probe(frames[:kept], numbers.T[:kept], seed)
    tried = zip(known, probe(frames[kept:]).T.numpy(), numbers[:, kept:].numpy(), strict=True)
    told = [f"{name} ({correlation(*pair).mean:.2f})" for name, *pair in tried]

    def look(imagined: Sequence[Any], true: Sequence[Any]) -> Mapping[str, np.ndarray]:
        film, truth = _stacked(imagined), _stacked(true)
        errors = metrics.measure(film[None, 1:], metrics.truth(truth[1:]))
        moving = ((film[1:] - film[:-1]).abs().amax(1) > MOVED).float().mean((1, 2))
        kept = {name: errors[name][0].numpy() for name in errors if name in ("mse", "lpips")}
        return {**kept, "moving": moving.numpy(), **dict(zip(told, probe(film[1:]).T.numpy(), strict=True))}

    def walk(row: Transition) -> Walk:
        given, after = row.state, row.next_state
        shown = Clip(given.episodes, given.episode, (given.steps[-1], *after.steps))
        images = (read_frames(shown, size, data.fit) * 255).round().byte().movedim(1, -1).numpy()
        return Walk([*row.action[len(given.steps) - 1 : -1]], [*images], row.world, row)

    return Recorded([walk(row) for row in whole_episodes(data, found["test"])], told, look)


def _known(clips: Sequence[Clip]) -> dict[str, list[float]]:
    """What is known of the frames of some clips, by name; of many bodies their mean. Angles jump: hard to tell."""
    columns: dict[str, list[float]] = {}
    for clip in clips:
        felt = clip.episodes.proprio(clip.episode)
        arrays = {} if felt is None else {"proprio": felt}
        if isinstance(clip.episodes, NpzEpisodes):
            arrays |= clip.episodes.others(clip.episode)
        for name, values in arrays.items():
            rows = values[list(clip.steps)].astype(np.float32)
            for k, column in enumerate((rows.mean(1) if rows.ndim > 2 else rows.reshape(len(rows), -1)).T.tolist()):
                columns.setdefault(f"{name} {k}", []).extend(column)
    return columns


def _stacked(seen: Sequence[Any]) -> Tensor:
    """float32 [N, 3, H, W] in [0, 1] of what sessions show."""
    images = [one["pixels"] if isinstance(one, dict) else one for one in seen]
    return torch.from_numpy(np.stack(images)).movedim(-1, 1).float() / 255
