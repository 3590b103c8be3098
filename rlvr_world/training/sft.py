"""Likelihood training on the written segments of scripts: SFT, pre-training, and the compute-matched control."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlvr_world.config import SFTConfig
from rlvr_world.training.learner import Learner
from rlvr_world.training.losses import finite
from rlvr_world.training.packing import Branch, Group, Packed, example
from rlvr_world.training.speed import full_speed
from rlvr_world.types import Domain, Script, Transition

KEPT = 20_000
"""Examples held in memory; data sets that are larger are encoded again as they come."""


@dataclass(frozen=True)
class Encoded(Sequence[Script]):
    """The scripts of rows, encoded when asked for."""

    domain: Domain
    rows: Sequence[Transition]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: Any) -> Any:
        return self.domain.encode(self.rows[i])


class SFT:
    """One stage of likelihood training. Which rows a step takes is a function of (seed, step) alone."""

    def __init__(self, learner: Learner, config: SFTConfig, scripts: Sequence[Script], seed: int) -> None:
        self.learner, self.config, self.rows, self.seed = learner, config, len(scripts), seed
        self._example = lru_cache(KEPT)(lambda i: example(scripts[i]))
        for i in range(min(len(scripts), KEPT)):
            self._example(i)  # a row that cannot be encoded stops the run here, not hours later

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
