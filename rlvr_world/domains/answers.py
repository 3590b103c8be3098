"""Which part of what a model wrote is its answer, for every domain over text."""

from __future__ import annotations


def after_thinking(text: str) -> str:
    """What comes after the last ``</think>``, up to a thought that does not end: thoughts are no answer.

    >>> after_thinking("<think>Is it none? No.</think> It opens.")
    ' It opens.'
    """
    return text.rpartition("</think>")[2].partition("<think>")[0]
