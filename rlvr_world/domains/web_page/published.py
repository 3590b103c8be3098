"""Labels and reward as the published code computes them, for comparison; both have faults that ours do not share.

Labels (``get_TaO``, torch branch, of the code behind WMA's and RLVR-World's web data): old and new elements are
assigned by a matrix of -100 for equal content and -0.5 for equal role. It is meant as a cost, but the solver maximises
it: equal elements are matched away from each other, and nearly all of the new page is "updated".
Reward (RLVR-World, ``reward_score/web_agent.py``): F1 of the sets of lines under each header. ``None`` is a line like
any other, and a label without headers can only score 0.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rlvr_world.domains.web_page.change import HEADERS, Change

if TYPE_CHECKING:
    import numpy as np

_ELEMENT = re.compile(r"\[(\d+)\] *(\S*) *(.*)")


def published_change(observation: str, next_observation: str, action: str = "") -> Change:
    """The published label of two pages in WebArena's text form. An action ``None`` changes nothing."""
    if action in ("None", "none"):
        return Change()
    old, new = _elements(observation), _elements(next_observation)
    if not old or not new:
        return Change(new=tuple(new.values()), deleted=tuple(old.values()))
    old_ids, new_ids = list(old), list(new)
    rows, columns = assign(_score(list(old.values()), list(new.values())))
    matched = {new_ids[j]: old_ids[i] for i, j in zip(rows, columns, strict=True)}
    return Change(
        new=tuple(line for number, line in new.items() if number not in matched),
        deleted=tuple(line for number, line in old.items() if number not in matched),  # compares ids of two pages
        updated=tuple(new[j] for j, i in matched.items() if new[j] != old[i]),
    )


def _elements(page: str) -> dict[int, str]:
    """Lines by number. A later line with the same number takes the earlier one's place."""
    found = (_ELEMENT.match(line) for line in page.replace("\t", "").split("\n"))
    return {int(element[1]): element[0] for element in found if element and int(element[1])}


def _score(old: list[str], new: list[str]) -> np.ndarray:
    """[old, new]: the cost that the published code maximises."""
    import numpy as np

    def equal(group: int) -> np.ndarray:
        a, b = (
            np.array([match[group] if (match := _ELEMENT.match(line)) else "" for line in lines], dtype=object)
            for lines in (old, new)
        )
        return np.equal(a[:, None], b[None, :]).astype(float)

    return -100 * equal(3) - 0.5 * equal(2)


def assign(score: np.ndarray) -> tuple[list[int], list[int]]:
    """Rows and columns of an assignment with the largest total score, rows in order; ties as the published code's."""
    from scipy.optimize import linear_sum_assignment  # an extra: only published labels need it

    rows, columns = linear_sum_assignment(score, maximize=True)
    return rows.tolist(), columns.tolist()


def published_precision_recall(response: str, ground_truth: str) -> tuple[float, float]:
    """What the published reward is the harmonic mean of: all text counts, reasoning and end-of-text marks included."""
    said, true = sections(response), sections(ground_truth)
    counts = [(len(said[h]), len(true[h]), len(said[h].keys() & true[h].keys())) for h in HEADERS]
    predicted, wanted, hits = map(sum, zip(*counts, strict=True))
    return hits / max(1, predicted), hits / max(1, wanted)


def sections(text: str) -> dict[str, dict[str, None]]:
    """The lines under each header, each once and in order; what stands on the header's own line is lost."""
    found: dict[str, dict[str, None]] = {header: {} for header in HEADERS}
    current: dict[str, None] | None = None
    for line in (raw.strip() for raw in text.split("\n")):
        header = next((h for h in HEADERS if line.startswith(h)), None)
        if header:
            current = found[header]
        elif line and current is not None:
            current[line] = None
    return found
