"""Video recipes: PushT, rope and granular worlds at small size, robots, and the published RT-1 and DINO-WM settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from rlvr_world.config import Config, ControlConfig, EvalConfig, ModelConfig, OptimizerConfig, RLConfig, SFTConfig
from rlvr_world.domains.video.config import EpisodeSplitRule, RewardConfig, VideoConfig
from rlvr_world.domains.video.envs.specs import DrawerSpec, GranularSpec, PushTSpec, RopeSpec
from rlvr_world.vision.config import VisualTokenizerConfig

FAST = OptimizerConfig(2e-3, "cosine", warmup=0.05, weight_decay=0.1, beta2=0.98)
"""Likelihood training of small models from scratch."""
SAMPLED = EvalConfig(temperature=1.0, top_k=100, runs=3, valid_rows=64)
"""The published way to predict test clips."""


SMALL = VisualTokenizerConfig(
    widths=(32, 64, 96),
    layers=1,
    latent=32,
    groups=8,
    levels=(8, 5, 5, 5),
    patch_width=128,
    steps=3000,
    batch=32,
    at_once=32,
    segment=1,
    optimizer=OptimizerConfig(1.5e-3, "cosine", warmup=0.03, weight_decay=0.0, beta2=0.99),
    squared=5.0,
    gan=0.0,
    jitter=False,
    crop=1.0,
    save_every=200,
    eval_every=400,
)
"""A visual tokenizer for 32x32 pixels on two cores: 8x8 tokens of a thousand codes."""


def pusht() -> Config:
    return Config(
        recipe="pusht",
        summary="PushT at 32x32, four seconds ahead: a tokenizer, a small world model, then RL (2 cores, half an hour)",
        data=VideoConfig(
            env=PushTSpec(episodes=600, size=32),
            height=32,
            width=32,
            context=1,
            frame_skip=40,
            action_pool=8,
            train_every=2,
            test_every=20,
            action_bins=32,
            embeddings="ordered",
            skip_blocks=True,
            tokenizer=SMALL,
            lpips="alex",
        ),
        model=ModelConfig(hidden=128, layers=4, heads=4),
        sft=SFTConfig(steps=3600, batch=16, forward_tokens=8192, optimizer=FAST, save_every=300, eval_every=600),
        rl=RLConfig(
            steps=60,
            prompts=16,
            group=16,
            minibatches=2,
            seeds=(0, 1, 2),
            forward_tokens=8192,
            optimizer=OptimizerConfig(5e-4, "cosine", warmup=0.1, beta2=0.99),
            eval_every=10,
        ),
        control=ControlConfig(learning_rate=3e-4),
        eval=SAMPLED,
    )


def pusht_multi() -> Config:
    config = pusht()
    sizes: dict[str, Any] = {"widths": (32, 32, 64), "patch": 2, "attention": 8, "segment": 5, "reach": 40}
    tokenizer = replace(SMALL, kind="compressive", **sizes, batch=8, at_once=8, steps=1500)
    return replace(
        config,
        recipe="pusht_multi",
        summary="PushT at 32x32, four frames ahead, with the compressive tokenizer (2 cores, under an hour)",
        data=replace(
            config.data, kind="multi_step", horizon=4, frame_skip=5, action_pool=1, train_every=10, tokenizer=tokenizer
        ),
        sft=replace(config.sft, steps=1000),
        rl=replace(config.rl, steps=20, prompts=8, group=16, optimizer=OptimizerConfig(3e-4)),
    )


def _pushed(kind: Literal["rope", "granular"], spec: RopeSpec | GranularSpec, thing: str) -> Config:
    """One frame before a push and one after it: every step of an episode is a push. AdamW takes so long to listen to
    pushes that a model does worse than copying."""
    config = pusht()
    data = replace(
        config.data, source=kind, env=spec, context=1, frame_skip=1, action_pool=1, train_every=1, test_every=4
    )
    return replace(
        config,
        recipe=kind,
        summary=f"{thing} pushed by a stick in MuJoCo at 32x32, from nothing to RL (2 cores)",
        data=data,
        sft=replace(config.sft, optimizer=replace(FAST, kind="muon")),
        rl=replace(config.rl, prompts=8, group=32),
    )


def _stepwise(recipe: str, summary: str, **world: Any) -> Config:
    """One frame is no state, since an arm lags, but each frame after it has all that came before; what the arm feels is
    written first, since it follows the action at once."""
    felt: dict[str, Any] = {"proprio": True, "proprio_first": True, "reward": RewardConfig(proprio_mse=1.0)}
    world |= felt | {"kind": "multi_step", "horizon": 4, "action_pool": 1, "action_bins": 64}
    config, tokenizer, judged = pusht(), replace(SMALL, steps=2500), replace(SAMPLED, valid_rows=24)
    data, sft = replace(config.data, tokenizer=tokenizer, **world), replace(config.sft, batch=24, save_every=200)
    rl = replace(config.rl, seeds=(0,))
    return replace(config, recipe=recipe, summary=summary, data=data, sft=sft, rl=rl, eval=judged)


def _tried(recipe: str, thing: str, **world: Any) -> Config:
    """RL, if asked for, goes on from imagined frames, as policies do; these agree less with what is real after it."""
    config = _stepwise(recipe, f"{thing} at 32x32, and policies are tried in it (2 cores)", **world, closed_loop=5)
    sft = replace(config.sft, steps=1800, optimizer=replace(FAST, kind="muon"))
    slower = replace(config.rl.optimizer, learning_rate=1e-4)
    return replace(config, sft=sft, rl=replace(config.rl, steps=0, optimizer=slower, eval_every=7))


def drawer() -> Config:
    world: dict[str, Any] = {"source": "drawer", "env": DrawerSpec(), "frame_skip": 1, "test_every": 6}
    return _tried("drawer", "an arm opens or closes a drawer (Meta-World)", **world)


def pusht_home() -> Config:
    """A frame every half second."""
    env = PushTSpec(episodes=1200, length=125, size=32, aim="home")
    world: dict[str, Any] = {"env": env, "frame_skip": 5, "train_every": 5, "test_every": 30}
    return _tried("pusht_home", "a finger pushes a T to its place (PushT)", **world)


def pusht_steps() -> Config:
    """As many episodes as that takes: of 600 the model learns the tables by heart."""
    summary = "PushT at 32x32 step by step, half a second each, to follow actions and plan in (2 cores, an hour)"
    config = _stepwise("pusht_steps", summary, env=PushTSpec(episodes=3000, size=32), frame_skip=5, train_every=5)
    slow = replace(config.rl.optimizer, learning_rate=2e-4)
    return replace(
        config,
        sft=replace(config.sft, eval_every=1200),
        rl=replace(config.rl, steps=16, prompts=8, optimizer=slow, eval_every=8),
        plan=replace(config.plan, distances=(4,), depth=4, more=0, candidates=32, rounds=2),
    )


def robot() -> Config:
    """Between PushT at 32x32 and RT-1: at 128x160 one more width halves the frame once more, to 8x10 tokens."""
    config = pusht()
    data = replace(
        config.data,
        source="lerobot",
        height=64,
        width=64,
        fit="letterbox",
        context=2,
        frame_skip=5,
        action_pool=5,
        action_bins=64,
        tokenizer=replace(SMALL, widths=(32, 64, 96, 96)),
    )
    return replace(
        config,
        recipe="robot",
        summary="your robot's recordings (data.source, data.path) at 64x64, two frames to the next one (2 cores, GPU)",
        data=data,
        model=ModelConfig(hidden=192, layers=6, heads=6),
        rl=replace(config.rl, seeds=(0,)),
    )


RT1 = VideoConfig(
    source="npz",
    split=EpisodeSplitRule(kind="every_nth", every=100),
    height=256,
    width=320,
    context=4,
    frame_skip=1,
    short="pad",
    action_ranges="minmax",
    jittered=1,
    tokenizer=VisualTokenizerConfig(),
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
            max_rows=512,
            save_every=10,
        ),
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


def _dino(valid: float, **changes: Any) -> VideoConfig:
    """DINO-WM's sets have their test episodes apart, and are not recoloured."""
    split = EpisodeSplitRule(test=0.0, valid=valid)
    return replace(RT1, source="dino_wm", split=split, height=224, width=224, jittered=0, **changes)


def pusht_dino() -> Config:
    data = _dino(0.02, context=3, frame_skip=5, proprio=True, reward=RewardConfig(proprio_mse=1.0))
    summary = "DINO-WM's PushT, three frames and proprioception to the next: the paper's appendix (data.path; GPUs)"
    return _published("pusht_dino", summary, data, LLAMA_120M, 300_000, 32)


def _deformable(name: str, steps: int) -> Config:
    summary = f"DINO-WM's {name}, one push ahead: the paper's appendix (data.path; GPUs)"
    model = replace(LLAMA_120M, layers=6)
    return _published(f"{name}_dino", summary, _dino(0.05, context=1), model, steps, 32)


RECIPES: dict[str, Callable[[], Config]] = {
    **{made.__name__: made for made in (pusht, pusht_multi, pusht_steps, pusht_home)},
    "rope": partial(_pushed, "rope", RopeSpec(size=32), "a rope"),
    "granular": partial(_pushed, "granular", GranularSpec(size=32), "a heap of grains"),
    **{made.__name__: made for made in (drawer, robot, rt1_single, rt1_multi, pusht_dino)},
    "rope_dino": partial(_deformable, "rope", 70_000),
    "granular_dino": partial(_deformable, "granular", 30_000),
}
