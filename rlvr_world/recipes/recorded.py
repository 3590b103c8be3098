"""Recorded video that nothing was trained on, whole episodes at a time, and what tells imagined frames from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlvr_world.domains.video.config import VideoConfig
from rlvr_world.domains.video.episodes import Clip
from rlvr_world.domains.video.readers.npz import NpzEpisodes
from rlvr_world.domains.video.splits import parts, whole_episodes
from rlvr_world.domains.video.token_cache import images_of, read_frames
from rlvr_world.errors import InputError
from rlvr_world.evaluation.intervals import correlation
from rlvr_world.recipes.tasks import Look, Walk
from rlvr_world.types import Transition
from rlvr_world.vision.lpips import load_lpips
from rlvr_world.vision.metrics import FrameMetrics

PROBED, EACH, MOVED = 200, 24, 0.1
"""Training episodes that a probe is fitted to and tried on, frames of each; change that moves a pixel, in [0, 1]."""
SIDE, FEATURES, STEPS, BATCH = 32, 8, 400, 64


def recorded_video(data: VideoConfig, seed: int) -> tuple[list[Walk], Look]:
    """Each episode of the test split, from its first frames on, and what is seen of it. Raises InputError for none."""
    metrics = FrameMetrics(None if data.lpips == "none" else load_lpips(data.lpips))
    found, rng, size = parts(data), np.random.default_rng(seed), (data.height, data.width)
    episodes, chosen = found["train"]
    some = rng.choice(chosen, min(PROBED, len(chosen)), replace=False).tolist()
    clips = [Clip(episodes, e, tuple(rng.integers(episodes.lengths[e], size=EACH).tolist())) for e in some]
    known, kept = _known(clips), len(clips) * EACH * 4 // 5
    told, probe = list[str](), lambda frames: frames.new_zeros(len(frames), 0)
    if known:
        frames = torch.cat([read_frames(clip, size, data.fit) for clip in clips])
        numbers = torch.tensor([*known.values()])
        probe = fit_probe(frames[:kept], numbers.T[:kept], seed)
        tried = zip(known, probe(frames[kept:]).T.numpy(), numbers[:, kept:].numpy(), strict=True)
        told = [f"{name} ({correlation(*pair).mean:.2f})" for name, *pair in tried]

    def look(imagined: Sequence[Any], true: Sequence[Any]) -> tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]]:
        film, truth = _stacked(imagined), _stacked(true)
        errors = metrics.measure(film[None, 1:], metrics.truth(truth[1:]))
        moving = ((film[1:] - film[:-1]).abs().amax(1) > MOVED).float().mean((1, 2))
        measured = {name: errors[name][0].numpy() for name in errors if name in ("mse", "lpips")}
        return measured | {"moving": moving.numpy()}, dict(zip(told, probe(film[1:]).T.numpy(), strict=True))

    def walk(row: Transition) -> Walk:
        given, after = row.state, row.next_state
        shown = Clip(given.episodes, given.episode, (given.steps[-1], *after.steps))
        images = images_of(read_frames(shown, size, data.fit))
        return Walk([*row.action[len(given.steps) - 1 : -1]], [*images], row.world, row)

    if not (rows := whole_episodes(data, found["test"])):
        raise InputError(f"{episodes.name}: no test episode has more frames than are given; lower data.frame_skip")
    return [walk(row) for row in rows], look


def _known(clips: Sequence[Clip]) -> dict[str, list[float]]:
    """What is known of the frames of all these clips, by name; of many bodies their mean. Angles jump: hard to tell."""
    columns: dict[str, list[float]] = {}
    for clip in clips:
        episodes, felt = clip.episodes, clip.episodes.proprio(clip.episode)
        arrays = {} if felt is None else {"proprio": felt}
        for name, values in (episodes.known(clip.episode) if isinstance(episodes, NpzEpisodes) else arrays).items():
            rows = values[list(clip.steps)].astype(np.float32)
            for k, column in enumerate((rows.mean(1) if rows.ndim > 2 else rows.reshape(len(rows), -1)).T.tolist()):
                columns.setdefault(f"{name} {k}", []).extend(column)
    return {name: column for name, column in columns.items() if len(column) == len(clips) * EACH}


def _stacked(seen: Sequence[Any]) -> Tensor:
    """float32 [N, 3, H, W] in [0, 1] of what sessions show."""
    images = [one["pixels"] if isinstance(one, dict) else one for one in seen]
    return torch.from_numpy(np.stack(images)).movedim(-1, 1).float() / 255


class _Places(nn.Module):
    """Where each feature is strongest (spatial softmax, arXiv 1509.06113), so that seconds train it to place a dot."""

    def forward(self, features_NCHW: Tensor) -> Tensor:
        weight, axis = (8 * features_NCHW).flatten(2).softmax(-1).view_as(features_NCHW), torch.linspace(-1, 1, SIDE)
        return torch.cat([weight.sum(2) @ axis, weight.sum(3) @ axis], 1)


def fit_probe(frames_N3HW: Tensor, known_NK: Tensor, seed: int) -> Callable[[Tensor], Tensor]:
    """What tells numbers, float32 [N, K], from frames [N, 3, H, W] in [0, 1]; the same for the same frames and seed."""
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
