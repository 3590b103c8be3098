"""The published sizes on this machine: one training step each, seconds and peak memory, and the tokenizers' speed.

    python tests/domains/video/bench_published.py [frame compressive rt1_single rt1_multi]

Each part runs in a process of its own, so that peak memory is its own. Frames and tokens are random.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from rlvr_world.config import OptimizerConfig
from rlvr_world.domains.video.layout import VideoLayout
from rlvr_world.models.loading import create_model
from rlvr_world.recipes import find
from rlvr_world.training.learner import Learner
from rlvr_world.training.packing import example
from rlvr_world.training.sft import equal_token_weights, negative_logp
from rlvr_world.vision.compressive_tokenizer import CompressiveTokenizer
from rlvr_world.vision.frame_tokenizer import FrameTokenizer

LAYOUTS = {
    "rt1_single": VideoLayout("single_step", 4375, 320, 13, context=4),
    "rt1_multi": VideoLayout("multi_step", 4375, 80, 13, 4375, 1280, horizon=7),
}


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


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


def peak() -> float:
    """GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    if len(sys.argv) == 2:
        name = sys.argv[1]
        print(bench_visual_tokenizer(name) if name in ("frame", "compressive") else bench_transformer(name))
        return
    print("| model | parameters | seconds a step | peak GiB | encode s | decode s |\n|---|---:|---:|---:|---:|---:|")
    for name in sys.argv[1:] or ["frame", "compressive", *LAYOUTS]:
        subprocess.run([sys.executable, __file__, name], check=True)


if __name__ == "__main__":
    main()
