"""Video recipes: PushT, rope and granular worlds at small size, and the published RT-1 and DINO-WM settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch.utils.data import ConcatDataset

from rlvr_world.config import Config, ControlConfig, EvalConfig, ModelConfig, OptimizerConfig, RLConfig, SFTConfig
from rlvr_world.domains.video.actions import fit_ranges
from rlvr_world.domains.video.config import VideoConfig
from rlvr_world.domains.video.domain import VideoDomain
from rlvr_world.domains.video.episodes import Episodes
from rlvr_world.domains.video.layout import Codec, VideoLayout
from rlvr_world.domains.video.readers import KINDS, open_episodes
from rlvr_world.domains.video.rewards import RewardConfig
from rlvr_world.domains.video.splits import Clips, SplitRule, split_episodes
from rlvr_world.domains.video.tokens import Jittered, TokenCache
from rlvr_world.domains.video.worlds import collect
from rlvr_world.domains.video.worlds.granular import GranularSpec
from rlvr_world.domains.video.worlds.pusht import PushTSpec
from rlvr_world.domains.video.worlds.rope import RopeSpec
from rlvr_world.errors import InputError
from rlvr_world.models import CODEC, Model, check_device
from rlvr_world.recipes import Recipe, Splits, Tokenizer, from_scratch
from rlvr_world.recipes.video_tokenizer import Part, train_tokenizer, write_reconstruction
from rlvr_world.training import checkpoint
from rlvr_world.training.tracking import Log
from rlvr_world.vision.loading import load_tokenizer
from rlvr_world.vision.lpips import LPIPS
from rlvr_world.vision.lpips_weights import load_lpips
from rlvr_world.vision.metrics import FrameMetrics
from rlvr_world.vision.train import TokenizerConfig


def parts(config: Config) -> dict[str, Part]:
    """The episodes of train, valid and test; embedded worlds are played first where they have not been."""
    data: VideoConfig = config.data
    if data.source not in KINDS:
        world: Any = data.source
        episodes = open_episodes("npz", collect(world, data.world, Path(data.cache).expanduser()))
    elif not data.path:
        raise InputError(f"data.path: data.source={data.source} reads episodes; say where, as in data.path=FOLDER")
    else:
        episodes = open_episodes(data.source, data.path, split="train")
    chosen = split_episodes(episodes.ids, data.split)
    found: dict[str, Part] = {name: (episodes, numbers) for name, numbers in chosen.items()}
    if data.source == "dino_wm":  # its test episodes lie apart
        held = open_episodes(data.source, data.path, split="val")
        found["test"] = (held, range(len(held.ids)))
    return found


def video_splits(config: Config) -> Splits:
    data: VideoConfig = config.data
    found = parts(config)
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
        0 if single else data.context_back,
        config.seed,
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
    found, lpips = parts(config), _lpips(config)
    if not config.data.tokenizer.source:
        train_tokenizer(config, found["train"], found["valid"], folder, log, lpips)
    cache = _cache(config, folder)
    for name in ("sft", "valid", "test"):
        cache.build(getattr(splits, name), f"tokens: {name}")
    write_reconstruction(folder, cache, FrameMetrics(lpips), splits.test)


def _lpips(config: Config) -> LPIPS | None:
    backbone = config.data.lpips
    return None if backbone == "none" else load_lpips(backbone).to(check_device(config.model.device))


def _cache(config: Config, folder: Path | None) -> TokenCache:
    """The frozen tokenizer with the tokens it gave."""
    data: VideoConfig = config.data
    source: str | Path | None = data.tokenizer.source or (folder and checkpoint.latest(folder / "tokenizer"))
    if not source:
        raise InputError("data.tokenizer.source: a video model needs its visual tokenizer; name the tokenizer's folder")
    tokenizer = load_tokenizer(source).to(check_device(config.model.device))
    return TokenCache(tokenizer, (data.height, data.width), Path(data.cache).expanduser() / "tokens")


def new_model(config: Config, splits: Splits, folder: Path) -> tuple[Model, Tokenizer]:
    """A model over the tokens of frames and actions, whose config.json holds the codec."""
    codec = _codec(config, _cache(config, folder))
    model = from_scratch(config, codec.layout.vocabulary, codec.layout.max_length)
    setattr(model.config, CODEC, codec.to_json())
    return model, None


def _codec(config: Config, cache: TokenCache) -> Codec:
    """Ranges are fitted to the training episodes alone."""
    data: VideoConfig = config.data
    episodes, chosen = parts(config)["train"]
    single = data.kind == "single_step"
    actions = fit_ranges((episodes.actions(e) for e in chosen), data.action_ranges, bins=data.action_bins)
    proprio = None
    if data.proprio:
        felt = [_felt(episodes, e) for e in chosen]
        proprio = fit_ranges(felt, data.action_ranges, bins=data.action_bins, where="proprioception")
    layout = VideoLayout(
        data.kind,
        visual=cache.codebook,
        tokens=cache.tokens,
        action_width=actions.width * data.frame_skip,
        context_visual=0 if single else cache.context_codebook,
        context_tokens=0 if single else cache.context_tokens,
        context=data.context if single else 1,
        horizon=data.horizon,
        action_bins=data.action_bins,
        proprio_width=proprio.width if proprio else 0,
    )
    together = replace(actions, low=actions.low * data.frame_skip, high=actions.high * data.frame_skip)
    return Codec(layout, together, cache.fingerprint, cache.size, proprio)


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
    return VideoDomain(codec, _cache(config, folder), FrameMetrics(_lpips(config)), config.data.reward)


def protocol(config: Config) -> dict[str, Any]:
    data: VideoConfig = config.data
    return {
        "domain": "video",
        "kind": data.kind,
        "frames": [data.height, data.width],
        "horizon": data.horizon,
        "frame_skip": data.frame_skip,
        "lpips": data.lpips,
        "reward": asdict(data.reward),
        "split": data.split.describe(),
    }


def _recipe(config: Callable[[], Config]) -> Recipe:
    return Recipe(config, video_splits, new_model, video, protocol, prepare)


FAST = OptimizerConfig(1e-3, "cosine", warmup=0.05, weight_decay=0.1, beta2=0.98)
"""Likelihood training of small models from scratch."""
SAMPLED = EvalConfig(temperature=1.0, top_k=100, runs=3, valid_rows=64)
"""The published way to predict test clips."""


def _small_tokenizer(**changes: Any) -> TokenizerConfig:
    """For 64x64 pixels on two cores."""
    settings: dict[str, Any] = {
        "widths": (16, 32, 64, 96),
        "layers": 1,
        "latent": 32,
        "groups": 8,
        "levels": (8, 5, 5, 5),
        "steps": 1400,
        "batch": 16,
        "segment": 1,
        "optimizer": OptimizerConfig(2e-3, "cosine", warmup=0.03, weight_decay=0.0, beta2=0.99),
        "gan": 0.0,
        "jitter": False,
        "crop": 1.0,
        "save_every": 200,
        "eval_every": 400,
    }
    return TokenizerConfig(**{**settings, **changes})


def pusht() -> Config:
    return Config(
        recipe="pusht",
        summary="PushT at 64x64 from nothing: a tokenizer, a small world model, then RL (2 cores, half an hour)",
        data=VideoConfig(
            world=PushTSpec(episodes=600),
            train_every=5,
            test_every=20,
            tokenizer=_small_tokenizer(),
            lpips="alex",
        ),
        model=ModelConfig(hidden=192, layers=4, heads=4),
        sft=SFTConfig(steps=600, batch=32, optimizer=FAST, save_every=200, eval_every=200),
        rl=RLConfig(steps=25, prompts=16, group=16, optimizer=OptimizerConfig(1e-4), eval_every=10),
        eval=SAMPLED,
    )


def pusht_multi() -> Config:
    config = pusht()
    tokenizer = _small_tokenizer(
        kind="compressive",
        widths=(16, 32, 64, 64),
        patch=2,
        attention=16,
        batch=4,
        segment=5,
        reach=40,
        steps=600,
    )
    return replace(
        config,
        recipe="pusht_multi",
        summary="PushT at 64x64, four frames ahead, with the compressive tokenizer (2 cores, under an hour)",
        data=replace(config.data, kind="multi_step", horizon=4, train_every=10, tokenizer=tokenizer),
        sft=replace(config.sft, steps=500),
        rl=replace(config.rl, steps=20, prompts=8, group=16),
    )


def rope() -> Config:
    return _pushed("rope", RopeSpec(), "a rope")


def granular() -> Config:
    return _pushed("granular", GranularSpec(), "a heap of grains")


def _pushed(world: Literal["rope", "granular"], spec: RopeSpec | GranularSpec, thing: str) -> Config:
    """One frame before a push and one after it: every step of an episode is a push."""
    config = pusht()
    data = replace(
        config.data, source=world, world=spec, context=1, frame_skip=1, train_every=1, test_every=4, action_bins=256
    )
    return replace(
        config,
        recipe=world,
        summary=f"{thing} pushed by a stick in MuJoCo at 64x64, from nothing to RL (2 cores)",
        data=data,
        rl=replace(config.rl, prompts=8, group=32),
    )


RT1 = VideoConfig(
    source="npz",
    split=SplitRule(kind="every_nth", every=100),
    height=256,
    width=320,
    context=4,
    frame_skip=1,
    action_ranges="minmax",
    jittered=1,
    tokenizer=TokenizerConfig(),
)
LLAMA_120M = ModelConfig(
    hidden=768, layers=12, heads=12, intermediate=3072, tied=False, device="cuda", precision="bfloat16"
)


def _published(recipe: str, summary: str, data: VideoConfig, model: ModelConfig, steps: int, group: int) -> Config:
    """Likelihood training and RL as in the paper's tables 8 and 9 and its scripts (GPUs)."""
    likelihood = OptimizerConfig(5e-5, "constant", warmup=5000 / steps, weight_decay=0.0)
    return Config(
        recipe=recipe,
        summary=summary,
        data=data,
        model=model,
        sft=SFTConfig(
            steps=steps, batch=32, forward_tokens=65536, optimizer=likelihood, save_every=10_000, eval_every=5000
        ),
        rl=RLConfig(
            steps=200,
            prompts=128,
            group=group,
            minibatches=4,
            optimizer=OptimizerConfig(5e-5),
            forward_tokens=65536,
            max_rows=2048,
            save_every=10,
        ),
        control=ControlConfig(learning_rate=5e-5),
        eval=replace(SAMPLED, valid_rows=256),
    )


def rt1_single() -> Config:
    summary = "RT-1, four frames to the next one: the published settings (data.path: .npz episodes; GPUs)"
    return _published("rt1_single", summary, RT1, LLAMA_120M, 990_000, 16)


def rt1_multi() -> Config:
    tokenizer = replace(RT1.tokenizer, kind="compressive", widths=(128, 256, 256, 512), reach=31)
    data = replace(RT1, kind="multi_step", horizon=7, tokenizer=tokenizer)
    summary = "RT-1, seven frames ahead: the published settings (data.path: .npz episodes; GPUs)"
    return _published("rt1_multi", summary, data, LLAMA_120M, 450_000, 16)


def pusht_dino() -> Config:
    reward = RewardConfig(proprio_mse=1.0)
    data = replace(
        RT1, source="dino_wm", split=SplitRule(test=0.0, valid=0.02), height=224, width=224, context=3, frame_skip=5
    )
    data = replace(data, proprio=True, reward=reward, jittered=0)
    summary = "DINO-WM's PushT, three frames and proprioception to the next: the paper's appendix (data.path; GPUs)"
    return _published("pusht_dino", summary, data, LLAMA_120M, 300_000, 32)


def _deformable(name: str, steps: int) -> Config:
    data = replace(RT1, source="dino_wm", split=SplitRule(test=0.0, valid=0.05), height=224, width=224, context=1)
    summary = f"DINO-WM's {name}, one push ahead: the paper's appendix (data.path; GPUs)"
    model = replace(LLAMA_120M, layers=6)
    return _published(f"{name}_dino", summary, replace(data, jittered=0), model, steps, 32)


def rope_dino() -> Config:
    return _deformable("rope", 70_000)


def granular_dino() -> Config:
    return _deformable("granular", 30_000)


VIDEO_RECIPES = {
    made.__name__: _recipe(made)
    for made in (
        pusht,
        pusht_multi,
        rope,
        granular,
        rt1_single,
        rt1_multi,
        pusht_dino,
        rope_dino,
        granular_dino,
    )
}
