"""Training a visual tokenizer: reconstruction, perceptual distance and, late, a discriminator (paper, table 7).

One step is one update of the tokenizer and, once the discriminator has started, one of the discriminator on the same
frames: the number of steps is the number of generator updates, and the schedule ends where training ends.

Shape legend: B segments, T frames of a segment, M = B * T, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from rlvr_world.config import OptimizerConfig, what
from rlvr_world.training.checkpoint import TRAINER, load_optimizer, save_optimizer
from rlvr_world.training.learner import learning_rate
from rlvr_world.vision.compressive_tokenizer import CompressiveTokenizer
from rlvr_world.vision.discriminator import PatchDiscriminator, gradient_penalty, hinge_loss
from rlvr_world.vision.frame_tokenizer import FrameTokenizer
from rlvr_world.vision.loading import WEIGHTS, Tokenizer
from rlvr_world.vision.lpips import LPIPS
from rlvr_world.vision.metrics import FrameMetrics


@dataclass(frozen=True)
class TokenizerConfig:
    source: str = what("", "a trained tokenizer: a folder or hub id; empty trains one in the run folder")
    kind: Literal["frame", "compressive"] = what("frame", "each frame for itself, or conditioned on a context frame")
    widths: tuple[int, ...] = what((128, 256, 256, 512, 768), "channels of each stage; size halves between", "channels")
    layers: int = what(2, "residual blocks a stage", "blocks")
    latent: int = what(64, "channels before the code", "channels")
    groups: int = what(32, "groups of the group norms", "groups")
    levels: tuple[int, ...] = what((7, 5, 5, 5, 5), "FSQ levels of each code channel; their product is the codebook")
    patch: int = what(4, "compressive: latent positions a side that one token of a later frame covers", "positions")
    attention: int = what(32, "compressive: later frames look at the context where the grid is at most this high")
    steps: int = what(300_000, "generator updates", "steps")
    batch: int = what(16, "segments a step", "segments")
    segment: int = what(8, "frames of a segment; compressive: one context frame and later ones", "frames")
    reach: int = what(0, "compressive: later frames are drawn from this many after the context; 0 takes the next ones")
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(5e-4, "cosine", warmup=0.0167, weight_decay=0.0)
    )
    perceptual: float = what(1.0, "weight of LPIPS beside L1")
    gan: float = what(0.1, "weight of the discriminator's verdict; 0 trains without one")
    gan_start: float = what(0.0333, "when the discriminator starts", "fraction of the stage")
    penalty: float = what(10.0, "weight of the discriminator's gradient penalty")
    discriminator_depth: int = what(6, "halvings of the discriminator", "stages")
    discriminator_width: int = what(64, "channels of its first stage", "channels")
    jitter: bool = what(True, "colour jitter: brightness, contrast, saturation within 10 %, hue within 5 %")
    crop: float = what(0.8, "smallest share of the area that random crops keep; 1 turns them off", "fraction")
    save_every: int = what(5000, "checkpoint interval", "steps")
    eval_every: int = what(5000, "validation interval; 0 never", "steps")


Batch = Callable[[int], Tensor]
"""The frames of a step, float32 [B, T, 3, H, W] in [0, 1]: a function of its number alone."""


def create_tokenizer(config: TokenizerConfig, height: int, width: int, seed: int) -> Tokenizer:
    """A tokenizer with random weights for frames of this size."""
    shape = {
        "block_out_channels": config.widths,
        "layers_per_block": config.layers,
        "latent_channels": config.latent,
        "norm_num_groups": config.groups,
        "resolution": height,
    }
    step = 2 ** (len(config.widths) - 1)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        if config.kind == "frame":
            return FrameTokenizer(**shape, fsq_levels=config.levels)
        return CompressiveTokenizer(
            **shape,
            vq_fsq_levels=config.levels,
            dyn_fsq_levels=config.levels,
            patch_size=config.patch,
            max_att_resolution=config.attention,
            context_grid=(height // step, width // step),
        )


class TokenizerTraining:
    """The stage that trains a tokenizer; saves and restores all that it needs to go on."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        config: TokenizerConfig,
        batch_of: Batch,
        lpips: LPIPS | None,
        seed: int,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.tokenizer, self.config, self.batch_of, self.lpips = tokenizer, config, batch_of, lpips
        self.seed, self.dtype = seed, dtype
        self.device = next(tokenizer.parameters()).device
        self.optimizer = _adamw(tokenizer, config.optimizer)
        self.discriminator: PatchDiscriminator | None = None
        if config.gan:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(seed)
                discriminator = PatchDiscriminator(config.discriminator_depth, config.discriminator_width)
            self.discriminator = discriminator.to(self.device)
            self.discriminator_optimizer = _adamw(self.discriminator, config.optimizer)

    def step(self, step: int, progress: float) -> tuple[dict[str, float], int]:
        """One update of each network; metrics, and the tokens that the frames came to."""
        frames_BTCHW = self.batch_of(step).to(self.device)
        self.tokenizer.train()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.seed * 1_000_003 + step)  # dropout of the cross-attention
            with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
                made_BTCHW, indices = reconstruct(self.tokenizer, frames_BTCHW)
        real, made = frames_BTCHW.flatten(0, 1), made_BTCHW.flatten(0, 1).float()
        losses = self._reconstruction_losses(frames_BTCHW, made_BTCHW.float())
        judged = self.discriminator is not None and progress >= self.config.gan_start
        if judged:
            assert self.discriminator is not None
            losses["gan"] = -self.config.gan * self.discriminator(made).mean()
        loss = torch.stack(list(losses.values())).sum()
        norm = self._update(self.optimizer, self.tokenizer, loss, learning_rate(self.config.optimizer, progress))
        metrics = {name: value.item() for name, value in losses.items()}
        if judged:
            metrics |= self._judge(real, made.detach(), progress)
        used = torch.unique(indices).numel() / self.tokenizer.codebook_size
        return {"loss": loss.item(), "grad_norm": norm, "code_usage": used, **metrics}, indices.numel()

    @torch.inference_mode()
    def validate(self, batches: Sequence[Tensor], metrics: FrameMetrics) -> dict[str, float]:
        """Means over frames that were kept apart, each [B, T, 3, H, W], without augmentation; and code usage."""
        self.tokenizer.eval()
        sums: dict[str, list[Tensor]] = {}
        used: list[Tensor] = []
        for batch in batches:
            frames = batch.to(self.device)
            made, indices = reconstruct(self.tokenizer, frames)
            used.append(indices.unique())
            truth = metrics.truth(frames).rows(torch.arange(len(frames)))
            for name, value in metrics.measure(made.float().clamp(0, 1), truth).items():
                sums.setdefault(f"eval/overall/{name}", []).append(value.mean())
        means = {name: torch.stack(values).mean().item() for name, values in sums.items()}
        return means | {"eval/code_usage": torch.cat(used).unique().numel() / self.tokenizer.codebook_size}

    def _reconstruction_losses(self, real_BTCHW: Tensor, made_BTCHW: Tensor) -> dict[str, Tensor]:
        """L1 and LPIPS; of a compressive tokenizer the context frame and the later ones count the same."""
        parts = [slice(None)] if self.config.kind == "frame" else [slice(0, 1), slice(1, None)]
        losses: dict[str, Tensor] = {}
        pairs = [(real_BTCHW[:, part].flatten(0, 1), made_BTCHW[:, part].flatten(0, 1)) for part in parts]
        losses["l1"] = torch.stack([(made - real).abs().mean() for real, made in pairs]).sum()
        if self.lpips is not None and self.config.perceptual:
            distances = [self.lpips(made, real).mean() for real, made in pairs]
            losses["lpips"] = self.config.perceptual * torch.stack(distances).sum()
        return losses

    def _judge(self, real: Tensor, made: Tensor, progress: float) -> dict[str, float]:
        """One update of the discriminator."""
        assert self.discriminator is not None
        self.discriminator_optimizer.zero_grad(set_to_none=True)  # the tokenizer's loss left gradients here
        verdict = hinge_loss(self.discriminator(real), self.discriminator(made))
        penalty = self.config.penalty * gradient_penalty(self.discriminator, real)
        warmed = learning_rate(replace(self.config.optimizer, schedule="constant"), progress)  # as published
        self._update(self.discriminator_optimizer, self.discriminator, verdict + penalty, warmed)
        return {"discriminator": verdict.item(), "penalty": penalty.item()}

    def _update(self, optimizer: torch.optim.Optimizer, network: torch.nn.Module, loss: Tensor, rate: float) -> float:
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(network.parameters(), self.config.optimizer.clip_norm)
        for settings in optimizer.param_groups:
            settings["lr"] = rate
        optimizer.step()
        return norm.item()

    def save(self, folder: Path) -> None:
        """The tokenizer's folder, and beside it the optimizers and the discriminator."""
        self.tokenizer.save_pretrained(str(folder))
        save_optimizer(self.optimizer, folder)
        if self.discriminator is not None:
            save_optimizer(self.discriminator_optimizer, folder, "discriminator_optimizer")
            save_file(self.discriminator.state_dict(), str(folder / TRAINER / "discriminator.safetensors"))

    def restore(self, checkpoint: Path) -> None:
        weights = load_file(str(checkpoint / WEIGHTS))
        self.tokenizer.load_state_dict(weights)
        load_optimizer(self.optimizer, checkpoint)
        if self.discriminator is not None:
            load_optimizer(self.discriminator_optimizer, checkpoint, "discriminator_optimizer")
            self.discriminator.load_state_dict(load_file(str(checkpoint / TRAINER / "discriminator.safetensors")))


def reconstruct(tokenizer: Tokenizer, frames_BTCHW: Tensor) -> tuple[Tensor, Tensor]:
    """What decoding the tokens of segments gives, not clamped, and the tokens of single (or later) frames."""
    if isinstance(tokenizer, FrameTokenizer):
        made, indices = tokenizer(frames_BTCHW.flatten(0, 1))
        return made.unflatten(0, frames_BTCHW.shape[:2]), indices
    made, _, indices = tokenizer(frames_BTCHW)
    return made, indices


def _adamw(network: torch.nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    betas = (config.beta1, config.beta2)
    return torch.optim.AdamW(
        network.parameters(), lr=config.learning_rate, betas=betas, weight_decay=config.weight_decay, fused=True
    )
