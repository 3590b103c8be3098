"""Likelihood training on the written segments of scripts (SFT, pre-training, the compute-matched control), and how fast
the machine could do it: the denominator of model FLOP utilisation (MFU)."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlvr_world.config import SFTConfig
from rlvr_world.models.head import Model, head_weight
from rlvr_world.system.progress import track
from rlvr_world.training.learner import Learner
from rlvr_world.training.losses import finite
from rlvr_world.training.packing import Branch, Group, Packed, example
from rlvr_world.types import Script

KEPT = 20_000
"""Examples held in memory; data sets that are larger are encoded again as they come."""


class SFT:
    """One stage of likelihood training. Which rows a step takes is a function of (seed, step) alone."""

    def __init__(
        self, learner: Learner, config: SFTConfig, encode: Callable[[Any], Script], rows: Sequence[Any], seed: int
    ) -> None:
        self.learner, self.config, self.rows, self.seed = learner, config, len(rows), seed
        too_long = 0

        def encoded(i: int) -> Group:
            nonlocal too_long
            script = encode(rows[i])
            too_long += not script.fits
            return example(script)

        self._example = lru_cache(KEPT)(encoded)
        looked_at = min(len(rows), KEPT)
        for i in track(range(looked_at), "encoding"):
            self._example(i)  # a row that cannot be encoded stops the run here, not hours later
        if too_long:
            say = f"of {too_long} of {looked_at} rows to fit the true answer has more tokens than may be written"
            print(f"rlvr-world: {say}; raise data.max_response", file=sys.stderr)

    @cached_property
    def full_speed(self) -> float:
        return full_speed(self.learner.policy)

    def step(self, step: int, progress: float) -> tuple[dict[str, float], int]:
        """One update; its metrics and the tokens it processed."""
        groups = [self._example(i) for i in rows_of_step(self.rows, self.config.batch, step, self.seed)]
        if step < self.config.pretrain_steps:
            groups = [whole_text(group) for group in groups]
        metrics = self.learner.update(equal_token_weights(groups), negative_logp, progress, self.config.forward_tokens)
        return metrics, sum(group.tokens for group in groups)


def whole_text(group: Group) -> Group:
    """The same tokens with loss on all but the first, prompt included: what pre-training fits (any token is legal)."""
    ids = torch.cat([torch.tensor(group.prompt), group.branches[0].ids])
    return Group((int(ids[0]),), (Branch(ids[1:], torch.ones(len(ids) - 1, dtype=torch.bool), 1.0),))


def negative_logp(logp_T: Tensor, entropy_T: Tensor, packed: Packed) -> Tensor:
    return finite(-logp_T, "loss")


def equal_token_weights(groups: Sequence[Group]) -> list[Group]:
    """Every trained token of the batch counts the same: the loss is their mean."""
    total = sum(int(b.trained.sum()) for g in groups for b in g.branches)
    return [replace(g, branches=tuple(replace(b, weight=1 / total) for b in g.branches)) for g in groups]


def rows_of_step(rows: int, batch: int, step: int, seed: int) -> list[int]:
    """The rows that a step takes: each epoch is a fresh permutation, steps run across its end."""
    positions = range(step * batch, (step + 1) * batch)
    return [int(_order(rows, seed, p // rows)[p % rows]) for p in positions]


@lru_cache(maxsize=2)
def _order(rows: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(rows)


def full_speed(model: Model) -> float:
    """Tokens a second of likelihood training if every product ran as fast as one large product does on this machine.

    A token takes 6 FLOP a trained weight and 4 a frozen one (PaLM, appendix B). Attention scores are left out, and
    embedding and head too, since only tokens with loss go through the head: MFU is a lower bound.
    """
    tables = {id(model.get_input_embeddings().weight), id(head_weight(model))}
    weights = [p for p in model.parameters() if id(p) not in tables]
    flop = sum((6 if p.requires_grad else 4) * p.numel() for p in weights)
    return peak_flops(weights[0].device, weights[0].dtype) / flop


@lru_cache
def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP a second of a large square product, the best of twenty: what is reached here, not what is advertised."""
    size = 8192 if device.type == "cuda" else 1024
    random = torch.Generator(device).manual_seed(0)
    factor = torch.rand(size, size, generator=random, device=device).to(dtype)
    best = float("inf")
    for _ in range(20):
        started = time.perf_counter()
        (factor @ factor)[0, 0].item()  # which waits for it
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best
