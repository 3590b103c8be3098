"""Values that a thread makes while those before them are used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


def ahead(make: Callable[[Any], Any], keys: Iterable[Any]) -> Iterator[Any]:
    """``make`` of each key in order, the next one made meanwhile; what it raises is raised where its value would be."""
    before: list[Future[Any]] = []
    with ThreadPoolExecutor(1) as pool:
        for key in keys:
            before.append(pool.submit(make, key))
            if len(before) > 1:
                yield before.pop(0).result()
        for last in before:
            yield last.result()
