"""Paired differences between models measured on the same rows: over other rows, over other seeds, and relative."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rlvr_world.errors import InputError
from rlvr_world.evaluation.checks import same_protocol
from rlvr_world.evaluation.intervals import (
    FEWEST,
    RESAMPLES,
    Interval,
    paired_bootstrap,
    t_interval,
    units,
)
from rlvr_world.evaluation.summary import Result, in_slice, resampled


def difference(
    ours: Sequence[Result], theirs: Sequence[Result] | str, slice_: str, part: str
) -> dict[str, dict[str, Any]]:
    """``ours`` - ``theirs`` in one part on one slice, over several runs: the intervals of

    ``rows``: the seed-averaged difference, rows (or worlds, see ``summarise``) resampled: what others would change;
    ``seeds``: the per-seed differences, Student t (what other seeds would change);
    ``relative`` and ``relative_seeds``: the same in units of the other side's mean, where that is not 0.

    ``theirs`` are runs paired with ``ours`` in the order given, a single run (such as the SFT start) that is compared
    with every one of ours, or the name of a baseline, which has no seeds.
    Raises InputError when the results were measured differently or do not pair.
    """
    trivial = isinstance(theirs, str)
    rivals: Sequence[Result] = () if isinstance(theirs, str) else theirs
    same_protocol([*ours, *rivals])
    rows = ours[0]["rows"]
    pick = in_slice(rows["kind"], slice_)
    b = np.array([rows["baselines"][theirs][part]])[:, pick] if trivial else _part(rivals, part, pick)
    if len(b) not in (1, len(ours)):
        raise InputError(
            f"runs are compared seed by seed: expected {len(ours)} runs on the second side or one for all, "
            f"got {len(b)}; evaluate the missing seeds"
        )
    a = _part(ours, part, pick)
    worlds = np.array(rows["world"])[pick] if resampled(ours[0]["protocol"]) == "worlds" else None
    one, two = units(a.mean(axis=0), worlds), units(b.mean(axis=0), worlds)
    found: dict[str, Interval | None] = {"rows": paired_bootstrap(one, two), "relative": relative_bootstrap(one, two)}
    if not trivial:
        gaps, scale = (a - b).mean(axis=1), np.abs(b.mean(axis=1))
        found["seeds"] = t_interval(gaps)
        found["relative_seeds"] = t_interval(gaps / scale) if scale.all() else None
    return {name: interval.as_dict() for name, interval in found.items() if interval}


def relative_bootstrap(first: np.ndarray, second: np.ndarray) -> Interval | None:
    """Percentile bootstrap interval of (mean(first) - mean(second)) / |mean(second)|, paired by row; None where the
    denominator is 0. Rows are drawn as ``paired_bootstrap`` draws them, so that both intervals leave out 0 or neither.
    """
    n, scale = len(first), abs(float(second.mean()))
    if not scale:
        return None
    mean = float(first.mean() - second.mean()) / scale
    rng, pairs = np.random.default_rng(0), np.stack([first, second])
    draws = [pairs[:, rng.integers(n, size=(100, n))].mean(axis=2) for _ in range(RESAMPLES // 100 * (n >= FEWEST))]
    if not draws or not (means := np.concatenate(draws, axis=1))[1].all():
        return Interval(mean, None, None, n, "bootstrap")
    low, high = np.quantile((means[0] - means[1]) / np.abs(means[1]), [0.025, 0.975])
    return Interval(mean, float(low), float(high), n, "bootstrap")


def runs_of(results: Mapping[str, Result], family: str) -> dict[str, Result]:
    """The runs of a family (rl -> rl/seed0, rl/seed1) by seed."""
    return {name.partition("/")[2]: result for name, result in results.items() if name.split("/")[0] == family}


def across_seeds(results: Sequence[Result], slice_: str, part: str) -> dict[str, Any]:
    """The mean over runs that differ only in their seed: a t interval, with ``n`` seeds."""
    same_protocol(results)
    return t_interval([r["slices"][slice_]["parts"][part]["mean"] for r in results]).as_dict()


def _part(results: Sequence[Result], part: str, pick: np.ndarray) -> np.ndarray:
    """[runs, rows]."""
    return np.array([result["rows"]["parts"][part] for result in results])[:, pick]
