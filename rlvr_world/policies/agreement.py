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


def agreement(imagined_PN: np.ndarray, real: np.ndarray, counts_P: Any = None) -> dict[str, list[Any]]:
    """Of each statistic its value and two 95 % bootstrap intervals: over other starts (drawn with what came of them in
    both worlds), and other policies too. Drawing adds noise, so that they lie rather on the side that is worse.
    ``real``: outcomes [P, N]; with ``counts_P`` rates [P] of so many episodes (0: nobody says), drawn anew too."""
    rng, (P, N) = np.random.default_rng(0), imagined_PN.shape
    many_P = np.where(counts_P, counts_P, 10**9)  # a rate of nobody knows how many stays as it is

    def drawn(which: Any, starts: Any) -> list[float]:
        real_P = real[:, starts].mean(1) if counts_P is None else rng.binomial(many_P, real) / many_P
        return statistics(imagined_PN[which][:, starts].mean(1), real_P[which])

    once = statistics(imagined_PN.mean(1), real.reshape(P, -1).mean(1))
    same = [drawn(np.arange(P), rng.integers(N, size=N)) for _ in range(RESAMPLES)]
    other = [drawn(rng.integers(P, size=P), rng.integers(N, size=N)) for _ in range(RESAMPLES)]
    found = zip(STATS, once, zip(*same, strict=True), zip(*other, strict=True), strict=True)
    return {name: [*_ends([one], (50,)), _ends(a, TAILS), _ends(b, TAILS)] for name, one, a, b in found}


def gap_change(one_PN: np.ndarray, other_PN: np.ndarray, real_PN: np.ndarray) -> list[Any]:
    """How much larger the gap of one is than the other's, and its 95 % bootstrap interval over starts."""
    rng, N = np.random.default_rng(0), real_PN.shape[1]
    drawn = np.vstack([np.arange(N), rng.integers(N, size=(RESAMPLES, N))])  # first all of them, as they are
    one, other, real = (table[:, drawn].mean(2) for table in (one_PN, other_PN, real_PN))
    changes = np.abs(one - real).mean(0) - np.abs(other - real).mean(0)
    return [float(changes[0]), _ends(changes[1:], TAILS)]


def ceiling(real_P: np.ndarray, N: int, counts_P: Any = None) -> dict[str, list[Any]]:
    """What a perfect model would show with N episodes a policy (or ``counts_P`` real ones), if these were true
    of both worlds: of each statistic the median, and what 19 of 20 such studies reach; None for counts of 0."""
    rng, both = np.random.default_rng(0), (N, N if counts_P is None else counts_P)
    if not np.all(both[1]):
        return {name: [None, None] for name in STATS}
    drawn = [statistics(*(rng.binomial(n, real_P) / n for n in both)) for _ in range(RESAMPLES)]
    worst = zip(STATS, zip(*drawn, strict=True), (5, 5, 95, 95), strict=True)
    return {name: _ends(values, (50, end)) for name, values, end in worst}


def _ends(values: Any, percent: tuple[float, ...]) -> list[float | None]:
    """Percentiles of the finite ones; None where there is none."""
    good = [value for value in values if math.isfinite(value)]
    return np.percentile(good, percent).tolist() if good else [None] * len(percent)
