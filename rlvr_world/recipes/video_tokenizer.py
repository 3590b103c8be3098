"""The first stage of a video run: its visual tokenizer, and how well that shows what it has not seen."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlvr_world.config import Config
from rlvr_world.domains.video.config import VideoConfig
from rlvr_world.domains.video.episodes import Episodes
from rlvr_world.domains.video.pictures import error_map, strip
from rlvr_world.domains.video.segments import Segments
from rlvr_world.domains.video.tokens import TokenCache, read_frames, whole_clip
from rlvr_world.evaluation.intervals import bootstrap
from rlvr_world.files import write_whole
from rlvr_world.models import check_device, compute_dtype
from rlvr_world.training.checkpoint import Counters
from rlvr_world.training.guards import Guard
from rlvr_world.training.loop import finished, run_stage
from rlvr_world.training.tokenizer import TokenizerTraining, create_tokenizer
from rlvr_world.training.tracking import Log
from rlvr_world.types import Picture, Transition
from rlvr_world.vision.lpips import LPIPS
from rlvr_world.vision.metrics import FrameMetrics

Part = tuple[Episodes, Sequence[int]]
"""A data set and the numbers of some of its episodes."""
CLIPS = 128
"""Test clips, spread over the split, that the tokenizer's own table is made of."""
SHOWN = 4
"""Of them, those whose pictures are kept."""
VALIDATED = 4
"""Batches that validation during training looks at."""


def train_tokenizer(config: Config, train: Part, valid: Part, folder: Path, log: Log, lpips: LPIPS | None) -> None:
    """Train, or finish, the tokenizer in ``folder/tokenizer/step-*``."""
    data: VideoConfig = config.data
    settings, size, stage_folder = data.tokenizer, (data.height, data.width), folder / "tokenizer"

    def progress_of(counters: Counters) -> float:
        return counters.step / settings.steps

    if finished(stage_folder, progress_of) is not None:
        return
    plain = replace(settings, jitter=False, crop=1.0)
    held = Segments(*valid, size, data.frame_skip, plain, config.seed)
    stage, guard = tokenizer_stage(config, train, lpips)
    validate = partial(stage.validate, [held(i) for i in range(VALIDATED)], FrameMetrics(lpips))
    every, keep = (settings.save_every, settings.eval_every), config.checkpoints
    run_stage("tokenizer", stage, stage, stage_folder, log, progress_of, validate, *every, keep, guard)


def tokenizer_stage(config: Config, train: Part, lpips: LPIPS | None) -> tuple[TokenizerTraining, Guard]:
    """The stage before its first step, and its guard."""
    data: VideoConfig = config.data
    settings, size, device = data.tokenizer, (data.height, data.width), check_device(config.model.device)
    stage = TokenizerTraining(
        create_tokenizer(settings, *size, config.seed).to(device),
        settings,
        Segments(*train, size, data.frame_skip, settings, config.seed),
        lpips,
        config.seed,
        compute_dtype(config.model.precision, device),
    )
    guard = Guard(config.guards, config.checkpoints)
    guard.watch(stage.optimizer, stage.tokenizer)
    if stage.discriminator is not None:
        guard.watch(stage.discriminator_optimizer, stage.discriminator)
    return stage, guard


def write_reconstruction(
    folder: Path, cache: TokenCache, metrics: FrameMetrics, rows: Sequence[Transition], trunk: str
) -> None:
    """``folder/tokenizer/reconstruction.json``: each metric with its interval over clips, code usage, pictures, and
    ``restless``: of the places where no pixel changes from one frame to the next, the share whose token does.

    Of frames that were never trained on, decoded from their tokens (the round trip that bounds every prediction).
    ``trunk`` is that of LPIPS.
    """
    file = folder / "tokenizer" / "reconstruction.json"
    if file.exists():
        return
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
    table: dict[str, Any] = {
        "rows": len(chosen),
        "lpips": trunk,
        "metrics": {name: bootstrap(values[name]).as_dict() for name in values},
        "code_usage": len(used) / cache.codebook,
        "restless": restless / still if still else None,
        "pictures": pictures,
    }
    file.parent.mkdir(exist_ok=True)
    write_whole(file, json.dumps(table))


def _unchanged(frames_T3HW: Tensor, tokens_Tn: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Whether the pixels, and the token, of each place are those of the frame before: bool [T - 1, n] each."""
    rows, columns = grid
    T, _, H, W = frames_T3HW.shape
    places = frames_T3HW.reshape(T, 3, rows, H // rows, columns, W // columns).permute(0, 2, 4, 1, 3, 5)
    flat_TnP = places.reshape(T, rows * columns, -1)
    return (flat_TnP[1:] == flat_TnP[:-1]).all(-1), tokens_Tn[1:] == tokens_Tn[:-1]
