"""Training a visual tokenizer: reconstruction, perceptual distance and, late, a discriminator (paper, table 7).

One step is one update of the tokenizer and, once the discriminator has started, one of the discriminator on the same
frames: the number of steps is the number of generator updates, and the schedule ends where training ends.

Shape legend: B segments, T frames of a segment, M = B * T, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from rlvr_world.errors import InputError
from rlvr_world.system import ranks
from rlvr_world.system.ahead import ahead
from rlvr_world.training.optimizer import TRAINER, Watched, adamw, load_optimizer, save_optimizer, take_step
from rlvr_world.vision.blocks import VisualTokenizer
from rlvr_world.vision.compressive_tokenizer import CompressiveTokenizer
from rlvr_world.vision.config import VisualTokenizerConfig
from rlvr_world.vision.discriminator import PatchDiscriminator, gradient_penalty, hinge_loss
from rlvr_world.vision.frame_tokenizer import FrameTokenizer
from rlvr_world.vision.loading import WEIGHTS
from rlvr_world.vision.lpips import LPIPS
from rlvr_world.vision.metrics import FrameMetrics

Batch = Callable[[int], Tensor]
"""The frames of a step, float32 [B, T, 3, H, W] in [0, 1]: a function of its number alone."""


def create_visual_tokenizer(config: VisualTokenizerConfig, height: int, width: int, seed: int) -> VisualTokenizer:
    """A tokenizer with random weights for frames of this size."""
    shape = {
        "block_out_channels": config.widths,
        "layers_per_block": config.layers,
        "latent_channels": config.latent,
        "norm_num_groups": config.groups,
        "resolution": height,
        "patch_width": config.patch_width or None,
    }
    scale = 2 ** (len(config.widths) - 1)
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
            context_grid=(height // scale, width // scale),
        )


class VisualTokenizerTraining:
    """The stage that trains a tokenizer; saves and restores all that it needs to go on."""

    full_speed = None
    sharded = False

    def __init__(
        self,
        tokenizer: VisualTokenizer,
        config: VisualTokenizerConfig,
        batch_of: Batch,
        lpips: LPIPS | None,
        seed: int,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.tokenizer, self.config, self.batch_of, self.lpips = tokenizer, config, batch_of, lpips
        self.seed, self.dtype, self._next = seed, dtype, -1
        self.device = next(tokenizer.parameters()).device
        self.optimizer = adamw(tokenizer.parameters(), config.optimizer)
        self.watched: Watched = [(self.optimizer, tokenizer)]
        self.discriminator: PatchDiscriminator | None = None
        if config.gan:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(seed)
                discriminator = PatchDiscriminator(config.discriminator_depth, config.discriminator_width)
            self.discriminator = discriminator.to(self.device)
            self.discriminator_optimizer = adamw(self.discriminator.parameters(), config.optimizer)
            self.watched.append((self.discriminator_optimizer, self.discriminator))

    def step(self, step: int, progress: float) -> tuple[dict[str, float], int]:
        """One update of each network; metrics, and the tokens that the frames came to."""
        if step != self._next:
            self._batches = ahead(self.batch_of, count(step))
        self._next = step + 1
        parts = [self._own(part) for part in next(self._batches).split(self.config.at_once)]
        total = sum(ranks.everyone(sum(map(len, parts))))
        judged = self.discriminator is not None and progress >= self.config.gan_start
        self.tokenizer.train()
        self.optimizer.zero_grad(set_to_none=True)
        made, indices = [], []
        metrics: dict[str, float] = {}
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            # Dropout of the cross-attention; each rank has its own.
            torch.manual_seed(self.seed * 1_000_003 + step + 500_009 * ranks.rank())
            for real in parts:
                with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
                    made_BTCHW, found = reconstruct(self.tokenizer, real)
                losses = self._losses(real, made_BTCHW.float(), judged)
                share = len(real) / total
                (share * torch.stack(list(losses.values())).sum()).backward()
                for name, value in losses.items():
                    metrics[name] = metrics.get(name, 0.0) + share * value.item()
                made.append(made_BTCHW.detach().float().flatten(0, 1))
                indices.append(found)
        metrics = ranks.added(metrics)
        metrics["loss"] = sum(metrics.values())
        metrics["grad_norm"] = take_step(self.optimizer, self.config.optimizer, progress)["grad_norm"]
        if judged:
            metrics |= self._judge(torch.cat(parts).flatten(0, 1), torch.cat(made), progress)
        tokens = torch.cat(indices)
        used = {token for of_rank in ranks.everyone(tokens.unique().tolist()) for token in of_rank}
        metrics["code_usage"] = len(used) / self.tokenizer.codebook_size
        return metrics, sum(ranks.everyone(tokens.numel()))

    def _own(self, part_BTCHW: Tensor) -> Tensor:
        """This rank's share of what goes through the tokenizer together."""
        if len(part_BTCHW) < ranks.size():
            got = f"got {len(part_BTCHW)} for {ranks.size()} ranks; change data.tokenizer.batch or at_once"
            raise InputError(f"data.tokenizer: expected a segment for each rank in every part of a batch, {got}")
        return part_BTCHW[ranks.rank() :: ranks.size()].to(self.device)

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

    def _losses(self, real_BTCHW: Tensor, made_BTCHW: Tensor, judged: bool) -> dict[str, Tensor]:
        """L1, squared error, LPIPS and the discriminator's verdict; of a compressive tokenizer the context frame and
        the later ones count the same."""
        parts = [slice(None)] if self.config.kind == "frame" else [slice(0, 1), slice(1, None)]
        pairs = [(made_BTCHW[:, part].flatten(0, 1), real_BTCHW[:, part].flatten(0, 1)) for part in parts]

        def total(distance: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
            return torch.stack([distance(made, real).mean() for made, real in pairs]).sum()

        losses = {"l1": total(lambda made, real: (made - real).abs())}
        if self.config.squared:
            losses["squared"] = self.config.squared * total(lambda made, real: (made - real).square())
        if self.lpips is not None and self.config.perceptual:
            losses["lpips"] = self.config.perceptual * total(self.lpips)
        if judged:
            assert self.discriminator is not None
            losses["gan"] = -self.config.gan * self.discriminator(made_BTCHW.flatten(0, 1)).mean()
        return losses

    def _judge(self, real: Tensor, made: Tensor, progress: float) -> dict[str, float]:
        """One update of the discriminator."""
        assert self.discriminator is not None
        self.discriminator_optimizer.zero_grad(set_to_none=True)  # the tokenizer's loss left gradients here
        metrics = {"discriminator": 0.0, "penalty": 0.0}
        size, frames = self.config.at_once * self.config.segment, sum(ranks.everyone(len(real)))
        for some_real, some_made in zip(real.split(size), made.split(size), strict=True):
            share = len(some_real) / frames
            verdict = hinge_loss(self.discriminator(some_real), self.discriminator(some_made))
            penalty = self.config.penalty * gradient_penalty(self.discriminator, some_real)
            (share * (verdict + penalty)).backward()
            metrics["discriminator"] += share * verdict.item()
            metrics["penalty"] += share * penalty.item()
        metrics, since = ranks.added(metrics), max(0.0, progress - self.config.gan_start)
        take_step(self.discriminator_optimizer, replace(self.config.optimizer, schedule="constant"), since)
        return metrics

    def save(self, folder: Path) -> None:
        """The tokenizer's folder, and beside it the optimizers and the discriminator."""
        self.tokenizer.save_pretrained(str(folder))
        save_optimizer(self.optimizer, folder)
        if self.discriminator is not None:
            save_optimizer(self.discriminator_optimizer, folder, "discriminator_optimizer")
            save_file(self.discriminator.state_dict(), str(folder / TRAINER / "discriminator.safetensors"))

    def restore(self, checkpoint: Path) -> None:
        self.tokenizer.load_state_dict(load_file(str(checkpoint / WEIGHTS)))
        load_optimizer(self.optimizer, checkpoint)
        if self.discriminator is not None:
            load_optimizer(self.discriminator_optimizer, checkpoint, "discriminator_optimizer")
            self.discriminator.load_state_dict(load_file(str(checkpoint / TRAINER / "discriminator.safetensors")))


def reconstruct(tokenizer: VisualTokenizer, frames_BTCHW: Tensor) -> tuple[Tensor, Tensor]:
    """What decoding the tokens of segments gives, not clamped, and the tokens of single (or later) frames."""
    if isinstance(tokenizer, FrameTokenizer):
        made, indices = tokenizer(frames_BTCHW.flatten(0, 1))
        return made.unflatten(0, frames_BTCHW.shape[:2]), indices
    made, _, indices = tokenizer(frames_BTCHW)
    return made, indices
