"""A page change as items, as text, and read back from whatever a model wrote; and how right that is.

    New items:
    [31] StaticText 'Saved'

    Deleted items:
    None

    Updated items:
    [12] button 'Save' focused: True

Each item is a whole line of a tree without its indent: deleted ones as they were, new and updated ones as they are.
The layout is that of the published data (WMA, RLVR-World appendix); a page that stays as it was is one sentence.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import astuple, dataclass

from rlvr_world.domains.answers import after_thinking
from rlvr_world.types import Malformed, Score

HEADERS = ("New items:", "Deleted items:", "Updated items:")
NO_CHANGE = "Previous Action did not make any changes."
NONE = "None"
_ITEM = re.compile(r"\[[\w-]+\] \S.*|[A-Za-z][\w-]*(?: ['\"]|, ).*")
_BULLET = re.compile(r"^(?:[-*•] |\d+\. )")
_END_MARKS = re.compile(r"<[|｜][\w▁ ]+[|｜]>\s*$|</s>\s*$", re.MULTILINE)
MAX_ANSWER = 200_000
"""Longest answer that is read, in characters."""


@dataclass(frozen=True)
class Change:
    """What differs between a page and the next one, as lines."""

    new: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    updated: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.new) + len(self.deleted) + len(self.updated)

    def capped(self, most: int) -> Change:
        """The first ``most`` items of each section; 0 keeps all."""
        return Change(*(items[: most or None] for items in astuple(self)))


def write_change(change: Change) -> str:
    """The text of a change in the published layout."""
    if not change:
        return NO_CHANGE
    sections = zip(HEADERS, astuple(change), strict=True)
    return "\n\n".join("\n".join([header, *(items or (NONE,))]) for header, items in sections)


def read_change(text: str) -> Change | Malformed:
    """The change that an answer states at last, or Malformed with the reason. Never raises.

    Read is what comes after thinking; in it, the last ``New items:`` and what follows, or the sentence that nothing
    changes where that comes later. Headers may be bold or ``##``, items may have bullets. An item is a node with its id
    or its name. The last section ends at a blank line with no item behind it: remarks are no items.
    """
    said = after_thinking(text)
    if len(said) > MAX_ANSWER:
        return Malformed(f"the answer is longer than {MAX_ANSWER} characters")
    lines = [_BULLET.sub("", line.strip()).strip() for line in _END_MARKS.sub("", said).split("\n")]
    start = max((i for i, line in enumerate(lines) if _header(line) == HEADERS[0]), default=None)
    unchanged = max((i for i, line in enumerate(lines) if line.strip("*_. ") == NO_CHANGE.strip(".")), default=-1)
    if unchanged > (-1 if start is None else start):
        return Change()
    if start is None:
        return Malformed("no sections of items")
    sections: list[list[str]] = []
    ended = False
    for line in lines[start:]:
        if not line or line.startswith("```"):
            ended = len(sections) == len(HEADERS) and bool(sections[-1])
        elif header := _header(line):
            if HEADERS.index(header) != len(sections):
                return Malformed("sections missing, twice or out of order")
            sections.append([])
        elif line.strip("*_.").lower() == NONE.lower():
            sections[-1].append(NONE)
        elif _ITEM.fullmatch(line):
            sections[-1].append(line)
        elif ended:
            break
        else:
            return Malformed("a line that is no item")
    if len(sections) < len(HEADERS):
        return Malformed("sections missing, twice or out of order")
    if any(NONE in items and len(items) > 1 for items in sections):
        return Malformed("None beside items")
    if not all(sections):
        return Malformed("a section without items or None")
    return Change(*(() if items == [NONE] else tuple(items) for items in sections))


def sound(change: Change) -> Change | Malformed:
    """The change, unless it states two things about one node of the page: guesses at once may not pay."""
    named = [line[1:].partition("] ")[0] for line in (*change.deleted, *change.updated) if line.startswith("[")]
    return change if len(set(named)) == len(named) else Malformed("two statements about one node")


def _header(line: str) -> str:
    """The header that a line is, however it is dressed; empty where it is none."""
    bare = line.strip("#*_: ").lower()
    return next((header for header in HEADERS if bare == header[:-1].lower()), "")


def score_change(said: Change | Malformed, true: Change, beta: float = 1.0) -> Score:
    """``f1``, ``precision``, ``recall`` and ``exact``, each in [0, 1], over exact lines in all three sections together;
    0 where malformed. The value is F-beta.

    Strict, our default: no credit for ``None``, right that nothing changes is right (1), lines count as often as they
    stand, and *new* items are compared without their ids, which the browser makes up and no page tells.
    """
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
