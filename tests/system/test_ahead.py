from __future__ import annotations

import threading
from itertools import count, islice

import pytest

from rlvr_world.system.ahead import ahead


def test_values_come_in_order_and_one_is_made_meanwhile() -> None:
    made: list[int] = []
    second = threading.Event()

    def make(key: int) -> int:
        made.append(key)
        if key == 1:
            second.set()
        return key * key

    values = ahead(make, count())
    assert next(values) == 0
    assert second.wait(10), "while the first is used"
    assert list(islice(values, 3)) == [1, 4, 9]
    values.close()
    assert made == [0, 1, 2, 3, 4]
    assert list(ahead(make, [])) == []
    assert list(ahead(make, [5])) == [25]


def test_what_is_raised_comes_in_its_place() -> None:
    values = ahead(lambda key: 1 // key, [2, 1, 0, 3])
    assert [next(values), next(values)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(values)
