"""Actions and proprioception as tokens: every field in uniform bins between ranges that stay with the model.

All fields share one block of ids (video models of RLVR-World: 13 fields, 256 bins). Arithmetic is float32, step by step
as in the published code, so that bins are equal to its. Shape legend: T steps, A fields.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from rlvr_world.errors import InputError

OUTSIDE_LIMIT = 0.5
"""Ranges do not fit where more than this share of a field's values lies beyond them: that is another unit."""


@dataclass(frozen=True)
class ActionBins:
    """The ranges of each field and the number of bins between them.

    >>> ActionBins((-1.0, 0.0), (1.0, 512.0)).bins_of(np.float32([[0.0, 512.0]]))
    array([[128, 255]])
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    bins: int = 256

    def __post_init__(self) -> None:
        ordered = all(-np.inf < low <= high < np.inf for low, high in zip(self.low, self.high, strict=False))
        if not self.low or len(self.low) != len(self.high) or not ordered or self.bins < 2:
            wanted, got = "a finite low <= high for each field, and at least 2 bins", f"{self.low} to {self.high}"
            raise InputError(f"ranges of actions: expected {wanted}, got {got}, {self.bins} bins; fit them again")

    @property
    def width(self) -> int:
        return len(self.low)

    @property
    def _ends(self) -> tuple[np.ndarray, np.ndarray]:
        return np.array(self.low, np.float32), np.array(self.high, np.float32)

    def bins_of(self, actions_TA: np.ndarray, where: str = "actions") -> np.ndarray:
        """int64 [T, A], 0 to ``bins`` - 1, of float32 [T, A]; values beyond the ranges go to the outer bins.
        InputError names ``where`` for a wrong width, and step and field too for NaN."""
        values_TA = self._checked(actions_TA, where)
        low_A, high_A = self._ends
        scaled_TA = ((values_TA - low_A) / (high_A - low_A + np.float32(1e-8))).clip(0, 1)
        return np.floor(scaled_TA * np.float32(self.bins)).clip(0, self.bins - 1).astype(np.int64)

    def value_of(self, bins_TA: np.ndarray) -> np.ndarray:
        """float32 [T, A]: the middles of the bins."""
        low_A, high_A = self._ends
        return low_A + (bins_TA.astype(np.float32) + np.float32(0.5)) / np.float32(self.bins) * (high_A - low_A)

    def unit(self, values_TA: np.ndarray) -> np.ndarray:
        """float32 [T, A]: values in units of each field's range (low is 0, high is 1), not clipped."""
        low_A, high_A = self._ends
        return (np.asarray(values_TA, np.float32) - low_A) / np.maximum(high_A - low_A, np.float32(1e-8))

    def outside(self, actions_TA: np.ndarray, where: str = "actions") -> np.ndarray:
        """float64 [A]: for each field the share of values beyond its range."""
        values_TA = self._checked(actions_TA, where)
        low_A, high_A = self._ends
        return ((values_TA < low_A) | (values_TA > high_A)).mean(0)

    def check_fit(self, actions: Mapping[str, np.ndarray], pool: int = 1) -> None:
        """Refuse ranges that are not those of the data: ``actions`` holds float32 [T, A] by name of episode, each row
        the mean of ``pool`` steps. InputError names the worst episode, step and field."""
        values_TA = np.concatenate([self._checked(a, name) for name, a in actions.items()])
        share_A = self.outside(values_TA)
        constant_A = np.equal(self.low, self.high)
        for at in np.flatnonzero(constant_A & (share_A > 0)):
            got = f"{round(share_A[at] * len(values_TA))} of {len(values_TA)} values differ, and are clamped"
            print(f"field {at} is always {self.low[at]:.4g} in the training data; here {got}", file=sys.stderr)
        share_A[constant_A] = 0
        if share_A.max() <= OUTSIDE_LIMIT:
            return
        field = int(share_A.argmax())
        low, high = self.low[field], self.high[field]
        beyond = {name: np.maximum(low - a[:, field], a[:, field] - high) for name, a in actions.items()}
        name = max(beyond, key=lambda name: beyond[name].max())
        row = int(beyond[name].argmax())
        steps = f"step {row}" if pool == 1 else f"mean of steps {row * pool} to {(row + 1) * pool - 1}"
        got = f"field {field} is {actions[name][row, field]:.4g}, and {share_A[field]:.0%} of its values lie outside"
        limit = f"the range {low:.4g} to {high:.4g} (at most {OUTSIDE_LIMIT:.0%} may)"
        raise InputError(f"{name}: {steps}: {got} {limit}; check units and order of the fields, or fit the ranges anew")

    @classmethod
    def from_json(cls, data: Any, where: str) -> ActionBins:
        """Raises InputError naming ``where`` for anything but the fields as JSON has them."""
        try:
            return cls(tuple(map(float, data["low"])), tuple(map(float, data["high"])), int(data["bins"]))
        except (KeyError, OverflowError, TypeError, ValueError) as error:
            raise InputError(f"{where}: expected ranges as {{low, high, bins}}, got {data!r} ({error})") from error

    def _checked(self, values_TA: np.ndarray, where: str) -> np.ndarray:
        values_TA = np.asarray(values_TA, np.float32)
        if values_TA.ndim != 2 or values_TA.shape[1] != self.width:
            wanted, got = f"[steps, {self.width}] numbers", list(values_TA.shape)
            raise InputError(f"{where}: expected {wanted}, got an array {got}; use data that the ranges were fitted to")
        if (nan_N2 := np.argwhere(np.isnan(values_TA))).size:
            step, field = nan_N2[0]
            raise InputError(f"{where}: step {step}: field {field} is not a number; leave out or mend this episode")
        return values_TA


def chosen_dims(actions_TA: np.ndarray, dims: tuple[int, ...], where: str) -> np.ndarray:
    """The actions with only these of their numbers, in this order; all where none is named."""
    if dims and not all(0 <= dim < actions_TA.shape[1] for dim in dims):
        wanted = f"numbers from 0 to {actions_TA.shape[1] - 1}"
        raise InputError(f"data.action_dims: expected {wanted}, as the actions of {where} have, got {dims}")
    return actions_TA[:, list(dims)] if dims else actions_TA


def pooled(actions_TA: np.ndarray, pool: int) -> np.ndarray:
    """float32 [T // pool, A]: means of so many steps one after the other; a rest at the end is left out.

    >>> pooled(np.float32([[1], [3], [5], [7], [9]]), 2).tolist()
    [[2.0], [6.0]]
    """
    count = len(actions_TA) // pool
    return actions_TA[: count * pool].reshape(count, pool, -1).mean(1)


def fit_ranges(
    arrays: Iterable[np.ndarray],
    how: Literal["minmax", "quantile"] = "minmax",
    bins: int = 256,
    where: str = "actions",
) -> ActionBins:
    """The ranges of float32 arrays [T, A], one an episode: the extremes (as published), or the 1 % and 99 % points.

    Extremes spend most bins on outliers (RT-1's lateral motion falls into 1 to 3 of 256). A field whose two points
    coincide, such as a rare flag, keeps its extremes. Raises InputError naming ``where`` for no data, differing
    widths, or a number that is not finite.
    """
    values: Sequence[np.ndarray] = [np.asarray(a, np.float32) for a in arrays]
    if not sum(map(len, values)) or len({a.shape[1:] for a in values}) != 1 or values[0].ndim != 2:
        shapes = sorted({str(list(a.shape)) for a in values})[:3]
        raise InputError(f"{where}: expected arrays [steps, fields] of one width, got {', '.join(shapes) or 'none'}")
    values_NA = np.concatenate(values)
    if (bad_N2 := np.argwhere(~np.isfinite(values_NA))).size:
        field = bad_N2[0, 1]
        raise InputError(f"{where}: field {field} has {values_NA[tuple(bad_N2[0])]}; leave out or mend these episodes")
    low_A, high_A = values_NA.min(0), values_NA.max(0)
    if how == "quantile":
        quantiles_2A = np.quantile(values_NA, (0.01, 0.99), axis=0).astype(np.float32)
        spread_A = quantiles_2A[1] > quantiles_2A[0]
        low_A, high_A = np.where(spread_A, quantiles_2A[0], low_A), np.where(spread_A, quantiles_2A[1], high_A)
    return ActionBins(tuple(low_A.tolist()), tuple(high_A.tolist()), bins)
