"""How far success in imagination agrees with success in the real world. P policies, N starts of each."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

STATS = ("pearson", "spearman", "mmrv", "gap")
RESAMPLES, TAILS = 2000, (2.5, 97.5)


def statistics(imagined_P: np.ndarray, real_P: np.ndarray) -> list[float]:
    """Of success rates: Pearson's and Spearman's correlation (NaN where all are equal); MMRV (SIMPLER, Li et al. 2024),
    the mean over policies of the largest real difference to one that imagination orders the other way, where of a pair
    that is equal there one of the two is violated; and the mean absolute difference."""
    contradicted = (imagined_P[:, None] > imagined_P) != (real_P[:, None] > real_P)
    mmrv = (np.abs(real_P[:, None] - real_P) * contradicted).max(1).mean()
    ranks = _pearson(_ranks(imagined_P), _ranks(real_P))
    return [_pearson(imagined_P, real_P), ranks, float(mmrv), float(np.abs(imagined_P - real_P).mean())]


def _pearson(one: np.ndarray, other: np.ndarray) -> float:
    scale = one.std() * other.std()
    return float(((one - one.mean()) * (other - other.mean())).mean() / scale) if scale > 1e-9 else math.nan


def _ranks(values: np.ndarray) -> np.ndarray:  # equal ones share theirs
    return (values < values[:, None]).sum(1) + (values == values[:, None]).sum(1) / 2


def agreement(imagined_PN: np.ndarray, real_PN: np.ndarray) -> dict[str, list[Any]]:
    """Of each statistic its value and two 95 % bootstrap intervals: over other starts (drawn with what came of them in
    both worlds), and other policies too. Drawing adds noise, so that they lie rather on the side that is worse."""
    rng, (P, N) = np.random.default_rng(0), real_PN.shape

    def drawn(which: Any, starts: Any) -> list[float]:
        return statistics(*(table[which][:, starts].mean(1) for table in (imagined_PN, real_PN)))

    once = drawn(np.arange(P), np.arange(N))
    same = [drawn(np.arange(P), rng.integers(N, size=N)) for _ in range(RESAMPLES)]
    other = [drawn(rng.integers(P, size=P), rng.integers(N, size=N)) for _ in range(RESAMPLES)]
    found = zip(STATS, once, zip(*same, strict=True), zip(*other, strict=True), strict=True)
    return {name: [*_ends([one], (50,)), _ends(a, TAILS), _ends(b, TAILS)] for name, one, a, b in found}


def ceiling(real_P: np.ndarray, N: int) -> dict[str, list[Any]]:
    """What a perfect model would show with N episodes a policy, if these were the true rates of both worlds: of each
    statistic the median, and what it is at least as good as in 19 of 20 such studies."""
    rng = np.random.default_rng(0)
    drawn = [statistics(*rng.binomial(N, real_P, (2, len(real_P))) / N) for _ in range(RESAMPLES)]
    worst = zip(STATS, zip(*drawn, strict=True), (5, 5, 95, 95), strict=True)
    return {name: _ends(values, (50, end)) for name, values, end in worst}


def _ends(values: Any, percent: tuple[float, ...]) -> list[float | None]:
    """Percentiles of the finite ones; None where there is none."""
    good = [value for value in values if math.isfinite(value)]
    return np.percentile(good, percent).tolist() if good else [None] * len(percent)
