"""95 % intervals around means: what a figure may claim. Pure functions on numbers, with no idea of models or rows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

RESAMPLES = 2000
FEWEST = 10  # values for a bootstrap: fewer often agree by chance, and resampling them then shows no spread at all
_CHUNK = 200  # resamples drawn at once: bounds memory at _CHUNK x rows indices
_TAILS = (0.025, 0.975)
_STUDENT = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281)  # by degrees of freedom
Worlds = np.ndarray | None
"""The name of each row's world where rows of a world are alike, else None."""
Numbers = Sequence[float] | np.ndarray


@dataclass(frozen=True)
class Interval:
    """A mean over ``n`` independent units (rows, worlds or seeds), and the range that holds the true one with 95 %
    confidence; without bounds where the data cannot say (one seed, or a handful of rows).

    >>> wilson(8, 10)
    Interval(mean=0.8, low=0.490..., high=0.943..., n=10, method='wilson')
    """

    mean: float
    low: float | None
    high: float | None
    n: int
    method: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def wilson(successes: float, n: int) -> Interval:
    """Wilson score interval of a proportion.

    ``successes`` may be fractional: the sum over rows of each row's share of right samples. Row shares vary less
    than 0/1 outcomes of the same mean, so the interval is then wider than needed, never narrower.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"wilson needs 0 <= successes <= n and n >= 1, got {successes} of {n}")
    z, p = NormalDist().inv_cdf(_TAILS[1]), successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    # At p = 0 and p = 1 the exact bound is p itself; rounding must not put it on the wrong side.
    return Interval(p, min(max(0.0, centre - half), p), max(min(1.0, centre + half), p), n, "wilson")


def bootstrap(values: Numbers, worlds: Worlds = None, seed: int = 0) -> Interval:
    """Percentile bootstrap interval of a mean, resampling ``values`` [rows] with replacement, or whole worlds with all
    their rows; the seed fixes it."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not len(array) or not np.isfinite(array).all():
        raise ValueError("bootstrap needs a non-empty list of finite numbers")
    [sums], counts = _units([array], worlds)
    mean, n = float(array.mean()), len(sums)
    if n < FEWEST:
        return Interval(mean, None, None, n, "bootstrap")
    means = np.concatenate([sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1) for drawn in _resamples(n, seed)])
    low, high = np.quantile(means, _TAILS)
    return Interval(mean, float(low), float(high), n, "bootstrap")


def _resamples(n: int, seed: int = 0) -> Iterator[np.ndarray]:
    """``RESAMPLES`` draws of n of n rows with replacement, int64 [_CHUNK, n] at a time."""
    rng = np.random.default_rng(seed)
    for _ in range(RESAMPLES // _CHUNK):
        yield rng.integers(n, size=(_CHUNK, n))


def _units(values: Sequence[np.ndarray], worlds: Worlds) -> tuple[list[np.ndarray], np.ndarray]:
    """What is resampled, rows or worlds: the sum over each unit's rows, one array for each of ``values``, and how many
    they are. The mean over drawn worlds is that over all their rows, since worlds differ in size."""
    if worlds is None:
        return list(values), np.ones(len(values[0]))
    _, index = np.unique(worlds, return_inverse=True)
    return [np.bincount(index, weights=array) for array in values], np.bincount(index)


def of_mean(values: np.ndarray, share: bool, worlds: Worlds = None) -> Interval:
    """Wilson over rows for shares of right samples, else bootstrap; rows of a world are not independent."""
    return wilson(float(values.sum()), len(values)) if share and worlds is None else bootstrap(values, worlds)


def relative_bootstrap(first: np.ndarray, second: np.ndarray, worlds: Worlds = None) -> Interval | None:
    """Bootstrap interval of (mean(first) - mean(second)) / |mean(second)|, both measured on the same rows in the same
    order; None where the denominator is 0. Units are drawn as ``bootstrap(first - second)`` draws them, so that both
    intervals leave out 0 or neither."""
    scale = abs(float(second.mean()))
    if not scale:
        return None
    sums, _ = _units([first, second], worlds)
    mean, pairs, n = float(first.mean() - second.mean()) / scale, np.stack(sums), len(sums[0])
    draws = [pairs[:, drawn].sum(axis=2) for drawn in _resamples(n)] if n >= FEWEST else []
    if not draws or not (means := np.concatenate(draws, axis=1))[1].all():
        return Interval(mean, None, None, n, "bootstrap")
    low, high = np.quantile((means[0] - means[1]) / np.abs(means[1]), _TAILS)
    return Interval(mean, float(low), float(high), n, "bootstrap")


def correlation(first: Numbers, second: Numbers) -> Interval:
    """Pearson's correlation of two measures of the same rows, which bootstrap resamples; 0 where one does not vary."""
    pairs, n = np.array([first, second], np.float64), len(first)

    def of(some: np.ndarray) -> np.ndarray:
        apart = some - some.mean(-1, keepdims=True)
        return apart.prod(0).sum(-1) / np.maximum(np.sqrt(np.square(apart).sum(-1)).prod(0), 1e-12)

    drawn = [of(pairs[:, some]) for some in _resamples(n)] if n >= FEWEST else []
    low, high = np.quantile(np.concatenate(drawn), _TAILS).tolist() if drawn else (None, None)
    return Interval(float(of(pairs)), low, high, n, "bootstrap")


def t_interval(values: Numbers) -> Interval:
    """Student t interval of a mean over seeds: what another seed would change, not what other rows would."""
    array = np.asarray(values, dtype=np.float64)
    n, mean = len(array), float(array.mean())
    if n < 2:
        return Interval(mean, None, None, n, "t")
    half = t_quantile(n - 1) * float(array.std(ddof=1)) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n, "t")


def t_quantile(freedom: int) -> float:
    """The 97.5 % quantile of Student's t: as printed, else by its expansion (Abramowitz and Stegun 26.7.5)."""
    if freedom <= len(_STUDENT):
        return _STUDENT[freedom - 1]
    z, n = NormalDist().inv_cdf(_TAILS[1]), freedom
    second, third = 5 * z**5 + 16 * z**3 + 3 * z, 3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z
    fourth = 79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z
    return z + (z**3 + z) / (4 * n) + second / (96 * n**2) + third / (384 * n**3) + fourth / (92160 * n**4)
