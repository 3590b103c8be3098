"""The settings of a visual tokenizer and of its training; the defaults are the published ones (paper, table 7)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from rlvr_world.config import OptimizerConfig, what

SMALLEST = {"none": 11, "vgg": 16, "alex": 31}
"""Fewest pixels a side of what is measured: the window of SSIM, and what the poolings of LPIPS leave something of."""


@dataclass(frozen=True)
class VisualTokenizerConfig:
    source: str = what("", "a trained tokenizer: a folder or hub id; empty trains one in the run folder", "path")
    kind: Literal["frame", "compressive"] = what("frame", "each frame for itself, or conditioned on a context frame")
    widths: tuple[int, ...] = what((128, 256, 256, 512, 768), "channels of each stage; size halves between", "channels")
    layers: int = what(2, "residual blocks a stage", "blocks")
    latent: int = what(64, "channels before the code", "channels")
    groups: int = what(32, "groups of the group norms", "groups")
    levels: tuple[int, ...] = what((7, 5, 5, 5, 5), "FSQ levels of each code channel; their product is the codebook")
    patch_width: int = what(0, "width of halves that work on patches; 0 takes the published ones", "channels")
    patch: int = what(4, "compressive: latent positions a side that one token of a later frame covers", "positions")
    attention: int = what(32, "compressive: later frames look at the context where the grid is at most this high")
    steps: int = what(300_000, "generator updates", "steps")
    batch: int = what(16, "segments a step", "segments")
    at_once: int = what(16, "segments in one forward (memory, not results)", "segments")
    segment: int = what(8, "frames of a segment; compressive: one context frame and later ones", "frames")
    reach: int = what(0, "compressive: later frames are drawn from this many after the context; 0 takes the next ones")
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(5e-4, "cosine", warmup=0.0167, weight_decay=0.0)
    )
    squared: float = what(0.0, "weight of the squared error beside L1; 0 as published")
    perceptual: float = what(1.0, "weight of LPIPS beside L1")
    gan: float = what(0.1, "weight of the discriminator's verdict; 0 trains without one")
    gan_start: float = what(0.0167, "when the discriminator starts", "fraction of the stage")
    penalty: float = what(10.0, "weight of the discriminator's gradient penalty")
    discriminator_depth: int = what(6, "halvings of the discriminator", "stages")
    discriminator_width: int = what(64, "channels of its first stage", "channels")
    jitter: bool = what(True, "colour jitter: brightness, contrast, saturation within 10 %, hue within 5 %")
    crop: float = what(0.8, "smallest share of the area that random crops keep; 1 turns them off", "fraction")
    save_every: int = what(5000, "checkpoint interval", "steps")
    eval_every: int = what(5000, "validation interval; 0 never", "steps")
