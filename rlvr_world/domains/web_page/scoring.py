"""How right a predicted page change is: micro-F1 over exact lines, in all three sections together.

Strict, our default: no credit for ``None``, right that nothing changes is right (1), lines count as often as they
stand, and *new* items are compared without their ids, which the browser makes up and no page tells.
"""

from __future__ import annotations

from collections import Counter

from rlvr_world.domains.web_page.change import Change
from rlvr_world.types import Malformed, Score


def score_change(said: Change | Malformed, true: Change, beta: float = 1.0) -> Score:
    """``f1``, ``precision``, ``recall`` and ``exact``, each in [0, 1]; 0 where malformed. The value is F-beta."""
    if isinstance(said, Malformed):
        return make_score(0.0, 0.0, 0.0, said.reason, beta)
    predicted, wanted = items(said), items(true)
    if not predicted and not wanted:
        return make_score(1.0, 1.0, 1.0, beta=beta)
    hits = (predicted & wanted).total()
    precision, recall = hits / max(1, predicted.total()), hits / max(1, wanted.total())
    return make_score(precision, recall, float(predicted == wanted), beta=beta)


def make_score(precision: float, recall: float, exact: float, malformed: str = "", beta: float = 1.0) -> Score:
    """The score of these parts, with F-beta as its value."""
    parts = {"f1": f_beta(precision, recall), "precision": precision, "recall": recall, "exact": exact}
    return Score(f_beta(precision, recall, beta), parts, malformed)


def f_beta(precision: float, recall: float, beta: float = 1.0) -> float:
    """Their weighted harmonic mean, in which recall counts beta times as much (van Rijsbergen 1979, chapter 7)."""
    of_both = beta**2 * precision + recall
    return (1 + beta**2) * precision * recall / of_both if of_both else 0.0


def items(change: Change) -> Counter[tuple[str, str]]:
    """(section, line) of every item, counted; new ones without their ids."""
    lines = [(section, line.strip()) for section, found in vars(change).items() for line in found]
    return Counter((section, bare(line) if section == "new" else line) for section, line in lines)


def bare(line: str) -> str:
    """An item without its id."""
    return line.partition("] ")[2] if line.startswith("[") else line
