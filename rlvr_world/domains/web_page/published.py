"""Labels and reward as the published code computes them, for comparison; both have faults that ours do not share.

Labels (``get_TaO``, torch branch, of the code behind WMA's and RLVR-World's web data): old and new elements are
assigned to one another by a matrix of -100 for equal content and -0.5 for equal role. It is meant as a cost, but the
solver maximises it: equal elements are matched away from each other, and nearly all of the new page is "updated".
Reward (RLVR-World, ``reward_score/web_agent.py``): F1 of the sets of lines under each header. ``None`` is a line like
any other, and a label without headers can only score 0.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from rlvr_world.domains.web_page.change import HEADERS, Change

_ELEMENT = re.compile(r"\[(\d+)\] *(\S*) *(.*)")


def published_change(observation: str, next_observation: str, action: str = "") -> Change:
    """The published label of two pages in WebArena's text form. An action ``None`` changes nothing."""
    if action == "None":
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

    def fields(lines: list[str], group: int) -> np.ndarray:
        return np.array([match[group] if (match := _ELEMENT.match(line)) else "" for line in lines], dtype=object)

    def equal(group: int) -> np.ndarray:
        return np.equal(fields(old, group)[:, None], fields(new, group)[None, :]).astype(float)

    return -100 * equal(3) - 0.5 * equal(2)


def assign(score: np.ndarray) -> tuple[list[int], list[int]]:
    """Rows and columns of an assignment with the largest total score, rows in order.

    Shortest augmenting paths (Crouse, 2016, doi 10.1109/TAES.2016.140952), with ties broken as
    ``scipy.optimize.linear_sum_assignment`` breaks them, because the published labels hang on that.
    Time grows with rows^2 x columns: a second for 300 by 300.
    """
    if score.shape[0] > score.shape[1]:
        columns, rows = assign(score.T)
        order = sorted(range(len(rows)), key=rows.__getitem__)
        return [rows[k] for k in order], [columns[k] for k in order]
    cost, (n, m) = -score, score.shape
    u, v = np.zeros(n), np.zeros(m)
    row_of, column_of = np.full(m, -1), np.full(n, -1)
    for start in range(n):
        shortest, path = np.full(m, np.inf), np.full(m, -1)
        remaining = np.arange(m - 1, -1, -1)  # backwards: a constant matrix gives the identity
        seen_rows, seen_columns = [start], []
        i, low = start, 0.0
        while True:
            reduced = low + cost[i, remaining] - u[i] - v[remaining]
            better = reduced < shortest[remaining]
            path[remaining[better]] = i
            shortest[remaining[better]] = reduced[better]
            low = shortest[remaining].min()
            ties = np.flatnonzero(shortest[remaining] == low)
            free = ties[row_of[remaining[ties]] == -1]
            index = free[-1] if len(free) else ties[0]
            j = int(remaining[index])
            seen_columns.append(j)
            remaining[index] = remaining[-1]
            remaining = remaining[:-1]
            if row_of[j] == -1:
                break
            i = int(row_of[j])
            seen_rows.append(i)
        u[start] += low
        for i in seen_rows[1:]:
            u[i] += low - shortest[column_of[i]]
        v[seen_columns] -= low - shortest[seen_columns]
        while True:
            i = int(path[j])
            row_of[j] = i
            column_of[i], j = j, int(column_of[i])
            if i == start:
                break
    return list(range(n)), column_of.tolist()


@dataclass(frozen=True)
class PublishedScore:
    """The published reward of one answer."""

    f1: float
    counts: dict[str, tuple[int, int, int]]
    """For each section the lines predicted, in the label, and in both."""

    @property
    def precision(self) -> float:
        return self._hits / max(1, sum(predicted for predicted, _, _ in self.counts.values()))

    @property
    def recall(self) -> float:
        return self._hits / max(1, sum(true for _, true, _ in self.counts.values()))

    @property
    def _hits(self) -> int:
        return sum(hits for _, _, hits in self.counts.values())


def published_f1(response: str, ground_truth: str) -> PublishedScore:
    """The published reward: all text counts, reasoning and end-of-text marks included."""
    said, true = sections(response), sections(ground_truth)
    counts = {h: (len(said[h]), len(true[h]), len(said[h].keys() & true[h].keys())) for h in HEADERS}
    score = PublishedScore(0.0, counts)
    total = score.precision + score.recall
    return PublishedScore(2 * score.precision * score.recall / total if total else 0.0, counts)


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
