"""SIGTERM and Ctrl-C: a stage stops at the end of its step and saves; a second signal stops at once."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from rlvr_world.system import ranks


class Stop(KeyboardInterrupt):
    """The user, or the machine's scheduler, asked the run to stop; ``number`` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextmanager
def stoppable(at_once: bool) -> Iterator[Callable[[], int]]:
    """Inside, a signal raises ``Stop`` at once, or is noted: the function that is given says its number, 0 before.

    A noted signal raises ``Stop`` at the end of the block, and a second one wherever the program is. Outside the main
    thread signals are left alone. Torchrun hands on what its processes were sent already: no second signal counts.
    """
    asked: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if at_once or (asked and ranks.size() == 1):
            raise Stop(number)
        asked.append(number)
        more = "; once more stops at once" if ranks.size() == 1 else ""
        print(f"rlvr-world: stopping after this step{more}", file=sys.stderr, flush=True)

    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)} if main else {}
    try:
        yield lambda: asked[0] if asked else 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if asked:
        raise Stop(asked[0])
