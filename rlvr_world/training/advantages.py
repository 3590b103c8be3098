"""From rewards to advantages, and from rollout lengths to loss weights. Pure functions.

Shapes: B = prompts in the batch, G = rollouts of each prompt (the group), N = rollouts in the batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Normalise = Literal["group", "batch", "none", "max@k"]
Aggregation = Literal["sequence", "token", "constant"]
EPSILON = 1e-6
REVISITED = 0.1
"""Of the mean spread, what a row without any counts for when rows are drawn by it: so that it is looked at again."""


def zero_variance(rewards_BG: Tensor) -> Tensor:
    """Which groups teach nothing because all their rewards are the same number; bool [B]. Compared exactly: the
    standard deviation of five times 0.1 is rounding noise, not zero."""
    return (rewards_BG == rewards_BG[:, :1]).all(dim=1)


def drawn_by_spread(spreads: Sequence[float | None], count: int, seed: Sequence[int]) -> list[int]:
    """``count`` rows by number, drawn without replacement (all anew where there are fewer), in proportion to the spread
    of rewards that was last seen of each: ``None``, not yet seen, counts as the mean of those that were.

    Weighted sampling by exponential clocks: Efraimidis and Spirakis, 2006. The same arguments give the same rows.
    """
    seen = [spread for spread in spreads if spread is not None]
    mean = sum(seen) / len(seen) if any(seen) else 1.0
    weights = [mean if spread is None else max(spread, REVISITED * mean) for spread in spreads]
    clocks = np.random.default_rng(seed).exponential(size=len(weights)) / np.array(weights)
    return [int(i) for i in np.resize(np.argsort(clocks, kind="stable"), count)]


def max_at_k(rewards_BG: Tensor, k: int) -> Tensor:
    """The expected best of k draws from each group, float64 [B]: the mean of the maximum over all its subsets of k,
    unbiased where the rollouts are independent (pass@k: Chen et al., arXiv 2107.03374). Needs 1 <= k <= G."""
    ordered, size = rewards_BG.double().sort(dim=1).values, rewards_BG.shape[1]
    subsets = [math.comb(i, k - 1) / math.comb(size, k) for i in range(size)]  # share in which the i-th is the best
    return ordered @ torch.tensor(subsets, dtype=torch.float64, device=ordered.device)


def group_advantages(rewards_BG: Tensor, normalise: Normalise = "group", k: int = 1) -> Tensor:
    """How much better each rollout did than its group; float32 [B, G], every token of a rollout shares it.

    ``group``   (r - mean) / (std + 1e-6) within the group: GRPO (arXiv 2402.03300, eq. 4), and what RLVR-World ran.
    ``batch``   r - mean of the group, divided by the std of all rewards of the batch.
    ``none``    r - mean of the group: Dr. GRPO (arXiv 2503.20783).
    ``max@k``   G (max@k of the group - max@k of the others), divided by its own std in the group: what the best of k
                draws gains by this one (pass@k for 0/1 rewards), an unbiased gradient but for the division, as PKPO's
                (arXiv 2505.15201) with the others as baseline. k = 1 is ``group``; needs k < G.

    The standard deviation divides by n - 1, as in verl and TRL (which adds 1e-4). Groups of equal rewards get
    exactly 0, which rounding would make small advantages.
    """
    rewards = rewards_BG.double()
    advantages = rewards - rewards.mean(dim=1, keepdim=True)
    if normalise == "max@k":
        size = rewards.shape[1]
        without = [max_at_k(torch.cat([rewards[:, :i], rewards[:, i + 1 :]], dim=1), k) for i in range(size)]
        advantages = rewards = size * (max_at_k(rewards, k)[:, None] - torch.stack(without, dim=1))
    if normalise != "none":
        deviation = rewards.std() if normalise == "batch" else rewards.std(dim=1, keepdim=True)
        advantages = advantages / (deviation + EPSILON)
    return advantages.masked_fill(zero_variance(rewards_BG)[:, None], 0.0).to(torch.float32)


def rollout_weights(lengths_N: Tensor, aggregation: Aggregation, longest: int) -> Tensor:
    """The weight of every token of each rollout, float32 [N], such that the loss is ``sum(weight * token loss)``.

    Computed once for all rollouts of an optimizer step, before they are cut into micro-batches, so that the cut
    cannot change the loss. ``lengths_N`` counts the tokens that the policy sampled, without forced ones.

    ``token``     1 / all sampled tokens: DAPO (arXiv 2503.14476, eq. 8); verl and RLVR-World, there per micro-batch.
    ``sequence``  1 / (N * length): the mean of each rollout, then over rollouts, as in the first GRPO.
    ``constant``  1 / (N * longest): Dr. GRPO, by the longest possible response.

    A rollout without sampled tokens weighs 0 and still counts in N.
    """
    lengths = lengths_N.double()
    if aggregation == "token":
        weights = torch.ones_like(lengths) / lengths.sum()
    elif aggregation == "sequence":
        weights = 1 / (len(lengths) * lengths.clamp(min=1))
    else:
        weights = torch.full_like(lengths, 1 / (len(lengths) * longest))
    return weights.masked_fill(lengths_N == 0, 0.0).to(torch.float32)
