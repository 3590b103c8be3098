"""The published sizes on this machine: one training step each, seconds and peak memory, and the tokenizers' speed.

    python tests/domains/video/bench_published.py [frame compressive rt1_single rt1_multi]
    python tests/domains/video/bench_published.py hours      # what RT-1's pictures cost an A100, counted
    python tests/domains/video/bench_published.py reading    # seconds of a processor for a step's pictures
    python tests/domains/video/bench_published.py bfloat16   # what other numbers change

Each part runs in a process of its own, so that peak memory is its own. Frames, tokens and weights are random.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from rlvr_world.config import OptimizerConfig
from rlvr_world.domains.video.augmentation import Jittered
from rlvr_world.domains.video.episodes import Clip
from rlvr_world.domains.video.layout import VideoLayout
from rlvr_world.domains.video.readers import open_episodes
from rlvr_world.domains.video.segments import Segments
from rlvr_world.domains.video.token_cache import TokenCache
from rlvr_world.models.loading import create_model
from rlvr_world.recipes import find
from rlvr_world.training.learner import Learner
from rlvr_world.training.packing import example
from rlvr_world.training.sft import equal_token_weights, negative_logp
from rlvr_world.vision.compressive_tokenizer import CompressiveTokenizer
from rlvr_world.vision.frame_tokenizer import FrameTokenizer
from rlvr_world.vision.lpips import LPIPS

LAYOUTS = {
    "rt1_single": VideoLayout("single_step", 4375, 320, 13, context=4),
    "rt1_multi": VideoLayout("multi_step", 4375, 80, 13, 4375, 1280, horizon=7),
}


def timed(work: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    start = clock()
    work()
    return clock() - start


def bench_visual_tokenizer(name: str) -> str:
    """One step on 1 frame, or 1 + 1 frames, L1 alone; then encoding and decoding without gradients."""
    tokenizer = FrameTokenizer() if name == "frame" else CompressiveTokenizer()
    frames = torch.rand(1, 3, 256, 320) if isinstance(tokenizer, FrameTokenizer) else torch.rand(1, 2, 3, 256, 320)
    step = timed(lambda: (tokenizer(frames)[0] - frames).abs().mean().backward())
    memory = peak()
    tokenizer.zero_grad(set_to_none=True)
    tokenizer.eval()
    with torch.no_grad():
        if isinstance(tokenizer, FrameTokenizer):
            indices = tokenizer.encode(frames)
            speeds = [timed(lambda: tokenizer.encode(frames)), timed(lambda: tokenizer.decode(indices))]
        else:
            context, later = tokenizer.encode(frames)
            speeds = [timed(lambda: tokenizer.encode(frames)), timed(lambda: tokenizer.decode(context, later))]
    count = sum(p.numel() for p in tokenizer.parameters())
    what = "1 frame" if name == "frame" else "1 + 1 frames"
    return f"| {name} tokenizer, {what} | {count:,} | {step:.1f} | {memory:.1f} | {speeds[0]:.2f} | {speeds[1]:.2f} |"


def bench_transformer(name: str) -> str:
    """One likelihood step on one sequence of the published length."""
    layout, config = LAYOUTS[name], find(name).config()
    model = create_model(replace(config.model, context=layout.max_length), layout.vocabulary)
    cpu = type(config.model)(device="cpu", precision="float32")
    learner = Learner(model, None, cpu, OptimizerConfig(5e-5, weight_decay=0.0))
    tokens = torch.randint(layout.visual, (layout.frames, layout.tokens))
    context = torch.randint(layout.context_visual, (layout.context_tokens,)) if layout.context_tokens else None
    actions = torch.randint(layout.action_bins, (layout.frames, layout.action_width))
    groups = equal_token_weights([example(layout.script(tokens, actions, context))])
    seconds = timed(lambda: learner.update(groups, negative_logp, 0.5, 65536))
    count = sum(p.numel() for p in model.parameters())
    return f"| {name}, 1 sequence of {layout.max_length} tokens | {count:,} | {seconds:.1f} | {peak():.1f} | | |"


EPISODES, FRAMES = 87_212, 3_786_400
"""Of RT-1."""
FLOAT32, BFLOAT16 = 19.5e12, 312e12
"""FLOP a second of an A100 at its peak."""


def flop(work: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        work()
    return float(counted.get_total_flops())


def hours() -> None:
    """FLOP on tensors without numbers, and hours at the peak."""
    with torch.device("meta"):
        frame, clip, lpips = FrameTokenizer(), CompressiveTokenizer(), LPIPS("vgg")
        picture, tokens = torch.zeros(1, 3, 256, 320), torch.zeros(1, 16, 20, dtype=torch.int64)
        context, later = torch.zeros(1, 1280, dtype=torch.int64), torch.zeros(1, 7, 80, dtype=torch.int64)
        encode = {
            "rt1_single": 5 * flop(lambda: frame.encode(picture)),
            "rt1_multi": flop(lambda: clip.encode(picture.expand(1, 9, -1, -1, -1))),
        }
        look, alone = flop(lambda: lpips.features(picture)), flop(lambda: clip.context_features(context))
        shown = {
            "rt1_single": flop(lambda: frame.decode(tokens)) + look,
            "rt1_multi": flop(lambda: clip.decode(context, later)) - alone + 7 * look,
        }
    print("| | FLOP | before: float32 | now: bfloat16 where said |\n|---|--:|--:|--:|")
    for name, stride in (("rt1_single", FRAMES / 5), ("rt1_multi", FRAMES - 7 * EPISODES)):
        every, drawn, reward = 2 * stride * encode[name], 200 * 128 * encode[name], 2048 * shown[name]
        told = f"{every / FLOAT32 / 3600:.1f} h, {every / FLOAT32 / 8 / 3600:.1f} h on 8 GPUs"
        quick = f"{every / BFLOAT16 / 3600:.1f} h with data.encode=bfloat16"
        print(
            f"| {name}: tokens for SFT, two copies | {every:.1e} | {every / FLOAT32 / 3600:.0f} h | {told}; {quick} |"
        )
        print(
            f"| {name}: tokens for RL | {drawn:.1e} | {every / FLOAT32 / 3600:.0f} h | {drawn / FLOAT32 / 3600:.1f} h |"
        )
        print(f"| {name}: rewards of a step | {reward:.1e} | {reward / FLOAT32:.0f} s | {reward / BFLOAT16:.1f} s |")


def reading() -> None:
    """A batch of tokenizer training, and clips for tokens one by one and frame by frame."""
    torch.set_num_threads(1)
    rng, folder = np.random.default_rng(0), Path(tempfile.mkdtemp())
    for number in range(16):
        blocks = np.kron(rng.integers(0, 250, (43, 16, 20, 3), np.uint8), np.ones((1, 16, 16, 1), np.uint8))
        noisy = blocks + rng.integers(0, 5, blocks.shape, np.uint8)
        np.savez_compressed(folder / f"train_eps_{number:08d}.npz", image=noisy, action=np.zeros((43, 13)))
    episodes, size = open_episodes("npz", folder), (256, 320)
    segments = Segments(episodes, range(16), size, 1, find("rt1_single").config().data.tokenizer, 0)
    batch = timed(lambda: segments(0), time.process_time)
    print(f"a batch of tokenizer training, 16 x 8 frames: {batch:.1f} s, made beside the step")
    cache = TokenCache(CompressiveTokenizer(), size, folder)
    jittered = Jittered(episodes, 1)
    keys = [(0, max(0, start - 7), *range(start, start + 8)) for start in range(28)]
    each = timed(lambda: [cache.read(Clip(jittered, key[0], key[1:])) for key in keys], time.process_time)
    once = timed(lambda: cache._frames(jittered, keys), time.process_time)
    print(f"28 clips of the augmented copy: {each:.2f} s clip by clip, {once:.2f} s with each frame read once")


def bfloat16() -> None:
    """Random weights, so an order of size; a run says what its own tokenizer does (reconstruction.json)."""
    pictures = torch.rand(4, 3, 8, 10).repeat_interleave(32, 2).repeat_interleave(32, 3)
    torch.manual_seed(0)
    tokenizer = FrameTokenizer().eval()
    lpips = LPIPS("vgg")
    with torch.no_grad():
        exact = tokenizer.encode(pictures)
        shown, seen = tokenizer.decode(exact).clamp(0, 1), lpips(pictures, pictures.flip(0))
        with torch.autocast("cpu", torch.bfloat16):
            quick, also = tokenizer.encode(pictures), tokenizer.decode(exact).clamp(0, 1)
        lpips.trunk.to(torch.bfloat16)
        apart = (lpips(pictures, pictures.flip(0)) / seen - 1).abs().max()
    print(
        f"other tokens {(quick != exact).float().mean():.1%}; pixels {(also - shown).abs().mean() * 255:.2f} of 255 off"
    )
    print(f"LPIPS {apart:.2%} off at most")


PARTS: dict[str, Callable[[], None]] = {"hours": hours, "reading": reading, "bfloat16": bfloat16}


def peak() -> float:
    """GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    if len(sys.argv) == 2:
        name = sys.argv[1]
        if name in PARTS:
            PARTS[name]()
            return
        print(bench_visual_tokenizer(name) if name in ("frame", "compressive") else bench_transformer(name))
        return
    print("| model | parameters | seconds a step | peak GiB | encode s | decode s |\n|---|---:|---:|---:|---:|---:|")
    for name in sys.argv[1:] or ["frame", "compressive", *LAYOUTS]:
        subprocess.run([sys.executable, __file__, name], check=True)


if __name__ == "__main__":
    main()
