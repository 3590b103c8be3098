"""The episodes of a video run, and its clips: from settings to transitions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from rlvr_world.domains.video.config import VideoConfig
from rlvr_world.domains.video.envs.collect import collect
from rlvr_world.domains.video.episodes import Episodes
from rlvr_world.domains.video.readers import KINDS, open_episodes
from rlvr_world.domains.video.splits import Clips, split_episodes
from rlvr_world.errors import InputError

Part = tuple[Episodes, Sequence[int]]
"""A data set and the numbers of some of its episodes."""


@lru_cache(maxsize=1)
def parts(data: VideoConfig) -> dict[str, Part]:
    """The episodes of train, valid and test; embedded worlds are played first where they have not been."""
    if data.source not in KINDS:
        kind: Any = data.source
        episodes = open_episodes("npz", collect(kind, data.env, Path(data.cache).expanduser()))
    elif not data.path:
        raise InputError(f"data.path: data.source={data.source} reads episodes; say where, as in data.path=FOLDER")
    else:
        episodes = open_episodes(data.source, data.path, split="train", camera=data.camera)
    chosen = split_episodes(episodes.ids, data.split)
    found: dict[str, Part] = {name: (episodes, numbers) for name, numbers in chosen.items()}
    if data.source == "dino_wm":  # its test episodes lie apart
        held = open_episodes(data.source, data.path, split="val")
        found["test"] = (held, range(len(held.ids)))
    return found


def training_clips(data: VideoConfig, part: Part, seed: int) -> Clips:
    """Every window of the episodes, ``data.train_every`` steps apart."""
    return _clips(data, part, data.train_every, seed)


def held_out_clips(data: VideoConfig, part: Part, seed: int) -> Clips:
    """Windows ``data.test_every`` steps apart, or one an episode as published."""
    return (
        _clips(data, part, data.test_every, seed) if data.test_every else _clips(data, part, 1, seed).one_per_episode()
    )


def _clips(data: VideoConfig, part: Part, every: int, seed: int) -> Clips:
    single = data.kind == "single_step"
    episodes, chosen = part
    clips = Clips(
        episodes,
        chosen,
        data.context if single else 1,
        data.horizon,
        data.frame_skip,
        every,
        None if single else data.context_back,
        seed,
        data.action_pool,
    )
    if not len(clips):
        raise InputError(
            f"{episodes.name}: none of its {len(chosen)} episodes is long enough for a clip of "
            f"{data.context + data.horizon} frames, {data.frame_skip} steps apart; lower data.horizon or "
            "data.frame_skip"
        )
    return clips
