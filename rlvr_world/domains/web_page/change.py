"""A page change as items, as text, and read back from whatever a model wrote.

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
from dataclasses import astuple, dataclass

from rlvr_world.types import Malformed

HEADERS = ("New items:", "Deleted items:", "Updated items:")
NO_CHANGE = "Previous Action did not make any changes."
NONE = "None"
_ITEM = re.compile(r"(?:\[[\w-]+\] \S.*|[A-Za-z][\w-]*(?: ['\"].*|, .*)?)")
_END_MARKS = re.compile(r"(?:<[|｜][\w▁ ]+[|｜]>|</s>)\s*\Z")
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
    """The change that an answer states: the last ``New items:`` and what follows, an item or a header a line. Before it
    may stand reasoning, around it a code fence, after it an end-of-text mark. Never raises."""
    if len(text) > MAX_ANSWER:
        return Malformed(f"the answer is longer than {MAX_ANSWER} characters")
    while (bare := _END_MARKS.sub("", text).strip()) != text:
        text = bare
    lines = [line.strip() for line in text.removesuffix("```").split("\n")]
    starts = [i for i, line in enumerate(lines) if line == HEADERS[0]]
    if not starts:
        last = next((line for line in reversed(lines) if line), "")
        return Change() if last.rstrip(".") == NO_CHANGE.rstrip(".") else Malformed("no sections of items")
    sections: list[list[str]] = []
    for line in filter(None, lines[starts[-1] :]):
        if line in HEADERS:
            if HEADERS.index(line) != len(sections):
                return Malformed("sections missing, twice or out of order")
            sections.append([])
        elif line != NONE and not _ITEM.fullmatch(line):
            return Malformed("a line that is no item")
        else:
            sections[-1].append(line)
    if len(sections) < len(HEADERS):
        return Malformed("sections missing, twice or out of order")
    if any(NONE in items and len(items) > 1 for items in sections):
        return Malformed("None beside items")
    if not all(sections):
        return Malformed("a section without items or None")
    return Change(*(() if items == [NONE] else tuple(items) for items in sections))
