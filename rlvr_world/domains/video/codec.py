"""A new video model's codec, fitted to the training episodes, and embeddings that know which codes are alike."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch
from torch import Tensor

from rlvr_world.domains.video.actions import ActionBins, chosen_dims, fit_ranges, pooled
from rlvr_world.domains.video.config import VideoConfig
from rlvr_world.domains.video.episodes import Episodes
from rlvr_world.domains.video.layout import Codec, VideoLayout
from rlvr_world.domains.video.readers.dino_wm import read_tensor
from rlvr_world.domains.video.splits import Part
from rlvr_world.domains.video.token_cache import TokenCache
from rlvr_world.errors import InputError
from rlvr_world.models.head import Model
from rlvr_world.vision.compressive_tokenizer import CompressiveTokenizer

CHECKED = 50
"""Test episodes whose actions are held against the model's ranges."""


def fit_codec(data: VideoConfig, part: Part, cache: TokenCache) -> Codec:
    """Ranges are fitted to the training episodes alone; those of actions may come from a file."""
    episodes, chosen = part
    how: Literal["minmax", "quantile"] = "quantile" if data.action_ranges == "quantile" else "minmax"
    proprio = None
    if data.proprio:
        proprio = fit_ranges((_felt(episodes, e) for e in chosen), how, data.action_bins, "proprioception")
    if data.action_ranges != how:
        return codec_of(data, cache, read_ranges(Path(data.action_ranges).expanduser(), data.action_bins), proprio)
    actions = fit_ranges((_given(data, episodes, e) for e in chosen), how, data.action_bins)
    return codec_of(data, cache, actions, proprio)


def read_ranges(file: Path, bins: int) -> ActionBins:
    """The ranges in a file of rows (low, high): a tensor that torch saved, as published (13 x 2), or lists in JSON.
    Raises InputError for what is no such file; nothing in it is run."""
    if not file.is_file():
        raise InputError(f"data.action_ranges={file}: expected minmax, quantile or a file of ranges, got no such file")
    try:
        rows = json.loads(file.read_bytes()) if file.suffix == ".json" else read_tensor(file, 2).tolist()
        low, high = zip(*rows, strict=True)
        return ActionBins(tuple(map(float, low)), tuple(map(float, high)), bins)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{file}: expected rows of two numbers, low and high, one a field ({error})") from error


def codec_of(data: VideoConfig, cache: TokenCache, actions: ActionBins, proprio: ActionBins | None = None) -> Codec:
    """The codec of a model with these settings, this visual tokenizer and these ranges of one step's fields."""
    layout = _layout(data, cache.codebook, cache.tokens, actions.width, (cache.context_codebook, cache.context_tokens))
    layout = replace(layout, proprio_width=proprio.width if proprio else 0, proprio_first=data.proprio_first)
    together = replace(actions, low=actions.low * data.actions_a_frame, high=actions.high * data.actions_a_frame)
    return Codec(layout, together, cache.fingerprint, cache.size, proprio)


def planned_layout(data: VideoConfig) -> VideoLayout:
    """The layout as settings alone tell it, before any episode: no proprioception, and RT-1's 13 fields an action."""
    settings = data.tokenizer
    codes, scale = math.prod(settings.levels), 2 ** (len(settings.widths) - 1)
    grid = (data.height // scale) * (data.width // scale)
    far = settings.kind == "compressive"
    return _layout(data, codes, grid // settings.patch**2 if far else grid, 13, (codes, grid) if far else (0, 0))


def _layout(data: VideoConfig, codes: int, tokens: int, fields: int, context: tuple[int, int]) -> VideoLayout:
    """``fields`` of an action; ``context``: codes and tokens of a far context frame."""
    return VideoLayout(
        data.kind,
        codes,
        tokens,
        fields * data.actions_a_frame,
        *context,
        context=1 if any(context) else data.context,
        horizon=data.horizon,
        action_bins=data.action_bins,
        same=data.same_token,
    )


def check_ranges(data: VideoConfig, part: Part, codec: Codec) -> None:
    """Refuse episodes in other units than those that the model was trained on."""
    episodes, chosen = part
    some = {f"{episodes.name}/{episodes.ids[e]}": e for e in chosen[:CHECKED]}
    given = {name: np.tile(_given(data, episodes, e), (1, data.actions_a_frame)) for name, e in some.items()}
    codec.actions.check_fit(given, data.action_pool)
    if codec.proprio:
        codec.proprio.check_fit({name: _felt(episodes, e) for name, e in some.items()})


def _given(data: VideoConfig, episodes: Episodes, episode: int) -> np.ndarray:
    """float32 [T // pool, A]: an episode's actions as the model is given them."""
    return pooled(chosen_dims(episodes.actions(episode), data.action_dims, episodes.name), data.action_pool)


def _felt(episodes: Episodes, episode: int) -> np.ndarray:
    felt = episodes.proprio(episode)
    if felt is None:
        raise InputError(f"data.proprio: the episodes of {episodes.name} have no proprioception; set it to false")
    return felt


def order_embeddings(model: Model, layout: VideoLayout, cache: TokenCache, seed: int) -> None:
    """Let the embeddings of frame codes, context codes and action bins begin near each other for those that are."""
    fsq = cache.tokenizer.fsq
    relate_rows(model, 0, fsq.codes_of(torch.arange(layout.visual, device=cache.device)), seed)
    if isinstance(cache.tokenizer, CompressiveTokenizer):
        codes = cache.tokenizer.context_fsq.codes_of(torch.arange(layout.context_visual, device=cache.device))
        relate_rows(model, layout.context_offset, codes, seed)
    relate_rows(model, layout.action_offset, torch.linspace(-1, 1, layout.action_bins)[:, None], seed)


@torch.no_grad()
def relate_rows(model: Model, first: int, places_NC: Tensor, seed: int) -> None:
    """Let the embeddings of N ids from ``first`` on begin nearer to each other the nearer their places [N, C] are: most
    of a row becomes a random linear image of its place, at the scale that it had. With the same seed the first axis of
    any places has the same direction."""
    table_VD = cast(Tensor, model.get_input_embeddings().weight)
    rows_ND = table_VD[first : first + len(places_NC)]
    places_NC = (places_NC / places_NC.std(0)).to(rows_ND)
    directions_CD = torch.randn(places_NC.shape[1], rows_ND.shape[1], generator=torch.Generator().manual_seed(seed))
    images_ND = places_NC @ directions_CD.to(rows_ND) * rows_ND.std() / places_NC.shape[1] ** 0.5
    rows_ND.mul_(0.6).add_(images_ND, alpha=0.8)  # 0.6² + 0.8² = 1
