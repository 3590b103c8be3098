"""Intervals around means: what a figure may claim. Pure functions on numbers, with no idea of models or rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

RESAMPLES = 2000
FEWEST = 10  # values for a bootstrap: fewer often agree by chance, and resampling them then shows no spread at all
_CHUNK = 200  # resamples drawn at once: bounds memory at _CHUNK x rows indices


@dataclass(frozen=True)
class Interval:
    """A mean and the range that holds the true one with the stated confidence.

    ``low`` and ``high`` are None where the data cannot say (one seed, or a handful of rows).

    >>> wilson(8, 10)
    Interval(mean=0.8, low=0.490..., high=0.943..., n=10, method='wilson')
    """

    mean: float
    low: float | None
    high: float | None
    n: int
    """Independent units behind the mean: rows, or seeds."""
    method: str
    """``wilson``, ``bootstrap`` or ``t``."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def wilson(successes: float, n: int, confidence: float = 0.95) -> Interval:
    """Wilson score interval of a proportion.

    ``successes`` may be fractional: the sum over rows of each row's share of right samples. Row shares vary less
    than 0/1 outcomes of the same mean, so the interval is then wider than needed, never narrower.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"wilson needs 0 <= successes <= n and n >= 1, got {successes} of {n}")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    # At p = 0 and p = 1 the exact bound is p itself; rounding must not put it on the wrong side.
    return Interval(p, min(max(0.0, centre - half), p), max(min(1.0, centre + half), p), n, "wilson")


def bootstrap(values: Sequence[float] | np.ndarray, confidence: float = 0.95, seed: int = 0) -> Interval:
    """Percentile bootstrap interval of a mean, resampling ``values`` [rows] with replacement; the seed fixes it.

    Fewer than ``FEWEST`` values give no bounds.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not len(array) or not np.isfinite(array).all():
        raise ValueError("bootstrap needs a non-empty list of finite numbers")
    if len(array) < FEWEST:
        return Interval(float(array.mean()), None, None, len(array), "bootstrap")
    rng = np.random.default_rng(seed)
    sizes = [min(_CHUNK, RESAMPLES - start) for start in range(0, RESAMPLES, _CHUNK)]
    means = np.concatenate([array[rng.integers(len(array), size=(size, len(array)))].mean(axis=1) for size in sizes])
    low, high = np.quantile(means, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return Interval(float(array.mean()), float(low), float(high), len(array), "bootstrap")


def units(values: np.ndarray, worlds: Sequence[str] | np.ndarray | None) -> np.ndarray:
    """What a bootstrap resamples: the rows, or where ``worlds`` names each row's own, whole worlds.

    A world counts as the sum over its rows, scaled so that the mean over worlds is the mean over rows.
    """
    if worlds is None:
        return values
    _, index = np.unique(worlds, return_inverse=True)
    sums = np.bincount(index, weights=values)
    return sums * (len(sums) / len(values))


def paired_bootstrap(
    first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray, confidence: float = 0.95, seed: int = 0
) -> Interval:
    """Percentile bootstrap interval of mean(first - second), both measured on the same rows in the same order."""
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError(f"paired values need the same rows, got {a.shape} and {b.shape}")
    return bootstrap(a - b, confidence, seed)


def t_interval(values: Sequence[float] | np.ndarray, confidence: float = 0.95) -> Interval:
    """Student t interval of a mean over seeds; for two sets paired by seed, pass the differences.

    It covers what another seed would change, not what other rows would. One value gives no bounds.
    """
    array = np.asarray(values, dtype=np.float64)
    n, mean = len(array), float(array.mean())
    if n < 2:
        return Interval(mean, None, None, n, "t")
    half = t_quantile(0.5 + confidence / 2, n - 1) * float(array.std(ddof=1)) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n, "t")


def t_quantile(probability: float, freedom: int) -> float:
    """Quantile of Student's t for whole degrees of freedom and probability in (0.5, 1), by bisection on the
    closed-form distribution (Abramowitz and Stegun 26.7.3 and 26.7.4)."""
    if freedom < 1 or not 0.5 < probability < 1:
        raise ValueError(f"t_quantile needs freedom >= 1 and 0.5 < probability < 1, got {freedom}, {probability}")
    # Bisect the angle atan(t / sqrt(freedom)), which is bounded, instead of t, which is not.
    low, high = 0.0, math.pi / 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _two_sided(middle, freedom) < 2 * probability - 1 else (low, middle)
    return math.tan(low) * math.sqrt(freedom)


def _two_sided(angle: float, freedom: int) -> float:
    """P(|T| < tan(angle) * sqrt(freedom)) for Student's t."""
    odd = freedom % 2
    term = math.cos(angle) if odd else 1.0
    total = term if freedom > 1 else 0.0
    for k in range(2 + odd, freedom, 2):
        term *= (k - 1) / k * math.cos(angle) ** 2
        total += term
    return (angle + math.sin(angle) * total) * 2 / math.pi if odd else math.sin(angle) * total
