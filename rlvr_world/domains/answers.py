"""What a model wrote, for every domain over text: which part of it is the answer, and how it is shown."""

from __future__ import annotations


def after_thinking(text: str) -> str:
    """What comes after the last ``</think>``, up to a thought that does not end: thoughts are no answer.

    >>> after_thinking("<think>Is it none? No.</think> It opens.")
    ' It opens.'
    """
    return text.rpartition("</think>")[2].partition("<think>")[0]


def printable(line: str) -> str:
    """One line that any terminal or file takes, whatever characters a page holds or a model put into a name.

    >>> printable("pot\\x1b[2J")
    'pot\\\\x1b[2J'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
