"""From written tokens to scores, for training and evaluation alike: a failure names its row."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rlvr_world.errors import InputError, NonFinite
from rlvr_world.types import BatchDomain, Domain, GroupDomain, Groups, Rows, Score, Transition

AT_ONCE = 256
"""Predictions decoded together: enough to keep a processor busy, few enough to hold as pictures."""


def judge(domain: Domain, groups: Groups, rows: Rows) -> Iterator[list[tuple[Any, Score]]]:
    """For every group in turn, the prediction each rollout decodes to (or ``Malformed``) and its score.

    Raises NonFinite with the row's id for a score that is not finite, RuntimeError where the domain's code fails: a
    bug must never look like a bad prediction.
    """
    size = max(1, AT_ONCE // max((len(group) for group in groups), default=1))
    for start in range(0, len(groups), size):
        chosen, of_rows = groups[start : start + size], rows[start : start + size]
        predictions = decode(domain, chosen, of_rows)
        for group, scores in zip(predictions, score(domain, predictions, of_rows), strict=True):
            yield list(zip(group, scores, strict=True))


def decode(domain: Domain, groups: Groups, rows: Rows) -> list[list[Any]]:
    """The prediction of every rollout of every group, or ``Malformed``."""
    if isinstance(domain, BatchDomain):
        with about(*rows):
            return domain.decode_groups(groups, rows)
    return _each(domain.decode, groups, rows)


def score(domain: Domain, predictions: Sequence[Sequence[Any]], rows: Rows) -> list[list[Score]]:
    """The score of every prediction of every group; raises NonFinite for one that is not finite."""
    if isinstance(domain, GroupDomain):
        with about(*rows):
            scores = domain.score_groups(predictions, rows)
    else:
        scores = _each(domain.score, predictions, rows)
    for row, one in ((row, one) for row, group in zip(rows, scores, strict=True) for one in group):
        if not math.isfinite(one.value):
            raise NonFinite(f"row {row.id}: the score is {one.value}, expected a finite number; look at the reward")
    return scores


def baselines(domain: Domain, rows: Rows) -> list[dict[str, Score]]:
    """The score of every trivial prediction of each row, by name."""
    found: list[dict[str, Score]] = []
    for start in range(0, len(rows), AT_ONCE):
        some, trivial = rows[start : start + AT_ONCE], []
        for row in some:
            with about(row):
                trivial.append(domain.baselines(row))
        scores = score(domain, [list(named.values()) for named in trivial], some)
        found += [dict(zip(named, of_row, strict=True)) for named, of_row in zip(trivial, scores, strict=True)]
    return found


def _each(call: Callable[[Any, Transition], Any], groups: Sequence[Sequence[Any]], rows: Rows) -> Any:
    results = []
    for group, row in zip(groups, rows, strict=True):
        with about(row):
            results.append([call(one, row) for one in group])
    return results


@contextmanager
def about(*rows: Transition) -> Iterator[None]:
    """Inside, any failure of the domain's code is raised as a RuntimeError that names the rows."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        names = rows[0].id if len(rows) == 1 else f"{rows[0].id} ... {rows[-1].id}"
        raise RuntimeError(f"row {names}: the domain failed on it ({type(error).__name__}: {error})") from error
