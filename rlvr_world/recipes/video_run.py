"""What a video recipe runs: episodes, the visual tokenizer and its tokens, a new model, the domain."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset

from rlvr_world.config import Config
from rlvr_world.domains.video.actions import fit_ranges, pooled
from rlvr_world.domains.video.config import VideoConfig
from rlvr_world.domains.video.domain import VideoDomain
from rlvr_world.domains.video.episodes import Episodes
from rlvr_world.domains.video.layout import Codec, VideoLayout
from rlvr_world.domains.video.readers import KINDS, open_episodes
from rlvr_world.domains.video.splits import Clips, split_episodes
from rlvr_world.domains.video.tokens import Jittered, TokenCache
from rlvr_world.domains.video.worlds import collect
from rlvr_world.errors import InputError
from rlvr_world.models import CODEC, Model, check_device
from rlvr_world.recipes import Splits, Tokenizer, from_scratch
from rlvr_world.recipes.video_tokenizer import Part, tokenizer_stage, train_tokenizer, write_reconstruction
from rlvr_world.training import checkpoint
from rlvr_world.training.guards import Guard
from rlvr_world.training.tokenizer import TokenizerTraining
from rlvr_world.training.tracking import Log
from rlvr_world.vision.compressive_tokenizer import CompressiveTokenizer
from rlvr_world.vision.loading import load_tokenizer
from rlvr_world.vision.lpips import LPIPS
from rlvr_world.vision.lpips_weights import load_lpips
from rlvr_world.vision.metrics import FrameMetrics


@lru_cache(maxsize=1)
def parts(data: VideoConfig) -> dict[str, Part]:
    """The episodes of train, valid and test; embedded worlds are played first where they have not been."""
    if data.source not in KINDS:
        world: Any = data.source
        episodes = open_episodes("npz", collect(world, data.world, Path(data.cache).expanduser()))
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


def video_splits(config: Config) -> Splits:
    data: VideoConfig = config.data
    found = parts(data)
    train = _clips(config, found["train"], data.train_every)
    episodes, chosen = found["train"]
    sft: Any = train
    if data.jittered:
        copies: list[Part] = [(Jittered(episodes, n + 1, config.seed), chosen) for n in range(data.jittered)]
        versions: list[Any] = [train, *(_clips(config, copy, data.train_every) for copy in copies)]
        sft = ConcatDataset(versions)
    held = {
        name: _clips(config, found[name], data.test_every) if data.test_every else _one_each(config, found[name])
        for name in ("valid", "test")
    }
    return Splits(sft, train, held["valid"], held["test"], lambda seed, epoch: train)


def _clips(config: Config, part: Part, every: int) -> Clips:
    data: VideoConfig = config.data
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
        config.seed,
        data.action_pool,
    )
    if not len(clips):
        raise InputError(
            f"{episodes.name}: none of its {len(chosen)} episodes is long enough for a clip of "
            f"{data.context + data.horizon} frames, {data.frame_skip} steps apart; lower data.horizon or "
            "data.frame_skip"
        )
    return clips


def _one_each(config: Config, part: Part) -> Clips:
    return _clips(config, part, 1).one_per_episode()


def prepare(config: Config, splits: Splits, folder: Path, log: Log) -> None:
    """The visual tokenizer, trained in ``folder/tokenizer`` unless the recipe names one, and the clips' tokens."""
    found, lpips = parts(config.data), _lpips(config)
    if not config.data.tokenizer.source:
        train_tokenizer(config, found["train"], found["valid"], folder, log, lpips)
    cache = _cache(config, folder)
    for name in ("sft", "valid", "test"):
        cache.build(getattr(splits, name), f"tokens: {name}")
    write_reconstruction(folder, cache, FrameMetrics(lpips), splits.test, config.data.lpips)


def prepared(config: Config) -> tuple[TokenizerTraining, Guard]:
    """The tokenizer's training as it begins."""
    return tokenizer_stage(config, parts(config.data)["train"], _lpips(config))


def _lpips(config: Config) -> LPIPS | None:
    backbone = config.data.lpips
    return None if backbone == "none" else load_lpips(backbone).to(check_device(config.model.device))


def _cache(config: Config, folder: Path | None) -> TokenCache:
    """The frozen tokenizer with the tokens it gave."""
    data: VideoConfig = config.data
    source: str | Path | None = data.tokenizer.source or (folder and checkpoint.latest(folder / "tokenizer"))
    if not source:
        raise InputError("data.tokenizer.source: a video model needs its visual tokenizer; name the tokenizer's folder")
    size, kept = (data.height, data.width), Path(data.cache).expanduser() / "tokens"
    return _opened(str(source), size, kept, check_device(config.model.device))


@lru_cache(maxsize=1)
def _opened(source: str, size: tuple[int, int], kept: Path, device: torch.device) -> TokenCache:
    """Opened once: the fingerprint of a large tokenizer and the index of many tokens take their time."""
    return TokenCache(load_tokenizer(source).to(device), size, kept)


def new_model(config: Config, splits: Splits, folder: Path) -> tuple[Model, Tokenizer]:
    """A model over the tokens of frames and actions, whose config.json holds the codec."""
    cache = _cache(config, folder)
    codec = _codec(config, cache)
    layout = codec.layout
    model = from_scratch(config, layout.vocabulary, layout.max_length)
    if config.data.embeddings == "ordered":
        relate_rows(
            model, 0, cache.tokenizer.fsq.codes_of(torch.arange(layout.visual, device=cache.device)), config.seed
        )
        if isinstance(cache.tokenizer, CompressiveTokenizer):
            codes = cache.tokenizer.context_fsq.codes_of(torch.arange(layout.context_visual, device=cache.device))
            relate_rows(model, layout.context_offset, codes, config.seed)
        relate_rows(model, layout.action_offset, torch.linspace(-1, 1, layout.action_bins)[:, None], config.seed)
    setattr(model.config, CODEC, codec.to_json())
    return model, None


@torch.no_grad()
def relate_rows(model: Model, first: int, places_NC: Tensor, seed: int) -> None:
    """Let the embeddings of N ids from ``first`` on begin nearer to each other the nearer their places [N, C] are.

    Most of a row becomes a random linear image of its place, the rest stays as it was; its scale stays too. With the
    same seed the first axis of any places has the same direction.
    """
    table_VD = cast(Tensor, model.get_input_embeddings().weight)
    rows_ND = table_VD[first : first + len(places_NC)]
    places_NC = (places_NC / places_NC.std(0)).to(rows_ND)
    directions_CD = torch.randn(places_NC.shape[1], rows_ND.shape[1], generator=torch.Generator().manual_seed(seed))
    images_ND = places_NC @ directions_CD.to(rows_ND) * rows_ND.std() / places_NC.shape[1] ** 0.5
    rows_ND.mul_(0.6).add_(images_ND, alpha=0.8)  # 0.6² + 0.8² = 1


def _codec(config: Config, cache: TokenCache) -> Codec:
    """Ranges are fitted to the training episodes alone."""
    data: VideoConfig = config.data
    episodes, chosen = parts(data)["train"]
    single = data.kind == "single_step"
    actions = fit_ranges((_given(data, episodes, e) for e in chosen), data.action_ranges, bins=data.action_bins)
    proprio = None
    if data.proprio:
        felt = [_felt(episodes, e) for e in chosen]
        proprio = fit_ranges(felt, data.action_ranges, bins=data.action_bins, where="proprioception")
    layout = VideoLayout(
        data.kind,
        visual=cache.codebook,
        tokens=cache.tokens,
        action_width=actions.width * data.actions_a_frame,
        context_visual=0 if single else cache.context_codebook,
        context_tokens=0 if single else cache.context_tokens,
        context=data.context if single else 1,
        horizon=data.horizon,
        action_bins=data.action_bins,
        proprio_width=proprio.width if proprio else 0,
    )
    together = replace(actions, low=actions.low * data.actions_a_frame, high=actions.high * data.actions_a_frame)
    return Codec(layout, together, cache.fingerprint, cache.size, proprio)


def _given(data: VideoConfig, episodes: Episodes, episode: int) -> np.ndarray:
    """float32 [T // pool, A]: an episode's actions as the model is given them."""
    return pooled(episodes.actions(episode), data.action_pool)


def _felt(episodes: Episodes, episode: int) -> np.ndarray:
    felt = episodes.proprio(episode)
    if felt is None:
        raise InputError(f"data.proprio: the episodes of {episodes.name} have no proprioception; set it to false")
    return felt


def video(config: Config, model: Model, tokenizer: Tokenizer, folder: Path | None) -> VideoDomain:
    stored = getattr(model.config, CODEC, None)
    if stored is None:
        raise InputError(
            f"model {config.model.source}: its config.json has no {CODEC}, so it is no video model; name a model that "
            "a video recipe trained, or scratch"
        )
    codec = Codec.from_json(stored, f"model {config.model.source}: config.json: {CODEC}")
    codec.check_model(model.config.vocab_size)
    _check_ranges(config.data, codec)
    metrics = FrameMetrics(_lpips(config))
    return VideoDomain(codec, _cache(config, folder), metrics, config.data.reward, config.data.skip_blocks)


def _check_ranges(data: VideoConfig, codec: Codec) -> None:
    """Refuse episodes in other units than those that the model was trained on."""
    episodes, chosen = parts(data)["test"]
    some = chosen[:CHECKED]
    repeated = (1, data.actions_a_frame)
    codec.actions.check_fit(
        {f"{episodes.name}/{episodes.ids[e]}": np.tile(_given(data, episodes, e), repeated) for e in some},
        data.action_pool,
    )
    if codec.proprio:
        codec.proprio.check_fit({f"{episodes.name}/{episodes.ids[e]}": _felt(episodes, e) for e in some})


CHECKED = 50
"""Test episodes whose actions are held against the model's ranges."""


def protocol(config: Config) -> dict[str, Any]:
    data: VideoConfig = config.data
    return {
        "domain": "video",
        "kind": data.kind,
        "frames": [data.height, data.width],
        "horizon": data.horizon,
        "frame_skip": data.frame_skip,
        "lpips": data.lpips,
        "skip_blocks": data.skip_blocks,
        "reward": asdict(data.reward),
        "split": data.split.describe(),
        "resample": "world",
    }
