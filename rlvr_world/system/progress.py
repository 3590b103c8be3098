"""How far long work has come: a bar on a terminal, and where there is none a line every so often."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
EVERY = 30.0
"""Seconds from one line to the next where there is no terminal."""
SHORT = 5.0
"""Seconds of work that is not worth a line."""
Update = Callable[..., None]
"""(done, numbers=""): how much is done, and the few numbers worth watching."""


@contextmanager
def progress(label: str, total: float, unit: str = "") -> Iterator[Update]:
    """Inside, the function that is given tells how far the work is; ``unit`` names what ``total`` counts.

    >>> with progress("sft", 400, "steps") as update:
    ...     update(120, "loss 0.53")
    """
    with _bar(label, total) if sys.stderr and sys.stderr.isatty() else _lines(label, total, unit) as update:
        yield update


def track(items: Sequence[T], label: str, unit: str = "rows") -> Iterator[T]:
    """The items one by one, with progress; nothing is said of no items."""
    if not items:
        return
    with progress(label, len(items), unit) as update:
        for number, item in enumerate(items, start=1):
            yield item
            update(number)


@contextmanager
def _bar(label: str, total: float) -> Iterator[Update]:
    from rich.console import Console, Group
    from rich.live import Live
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.text import Text

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
    bar, numbers = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn()), Text(overflow="fold")
    task = bar.add_task(label, total=total)

    def update(done: float, said: str = "") -> None:
        bar.update(task, completed=min(done, total))
        numbers.plain = said or numbers.plain

    with Live(Group(bar, numbers), console=Console(stderr=True), refresh_per_second=4):
        yield update


@contextmanager
def _lines(label: str, total: float, unit: str) -> Iterator[Update]:
    started = time.monotonic()
    first: float | None = None
    told, last = started, ""

    def line(done: float, said: str) -> str:
        left = ""
        if first is not None and first < done < total:
            left = f", {clock((time.monotonic() - started) / (done - first) * (total - done))} left"
        count = f"{done:,.0f} of {total:,.0f} {unit}, " if unit else ""
        return f"{label}: {count}{100 * min(1.0, done / (total or 1)):.0f} %{left}" + (f", {said}" if said else "")

    def update(done: float, said: str = "") -> None:
        nonlocal first, told, last
        first = done if first is None else first
        last = line(done, said)
        if time.monotonic() - told >= EVERY:
            told, last = time.monotonic(), _say(last)

    yield update
    if last and time.monotonic() - started >= SHORT:
        _say(f"{last}, {clock(time.monotonic() - started)} in all")


def _say(text: str) -> str:
    """Print a line to stderr; what is left to say."""
    if sys.stderr:
        print(text, file=sys.stderr, flush=True)
    return ""


def clock(seconds: float) -> str:
    """42 s, 7 min 5 s, 3 h 12 min."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
