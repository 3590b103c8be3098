"""Imagined steps a second of a run's last model: sessions that step together, and candidates from one state.

    python tests/sessions/bench_sessions.py RUN [RUN ...]

Medians of ``--repeats`` runs, one thread: steps a second by the clock, and in brackets by the processor's time, which
is near what an idle core gives. A step is all of ``Session.step``: read the action, ask the model, decode, observe. 16
actions from one state are tried in one ``imagine``, and in one each.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch

import rlvr_world
from rlvr_world import Imagined, Session
from rlvr_world.sampling import engine
from rlvr_world.sessions.session import step_together

SESSIONS = (1, 16, 64)
STEPS = {1: 16, 16: 3, 64: 2}
CANDIDATES = 16


def actions_of(session: Session, info: dict[str, Any], count: int) -> list[Any]:
    """Commands of the game; clicks on a page; numbers."""
    if info.get("commands"):
        return [info["commands"][i * 7 % len(info["commands"])] for i in range(count)]
    if session.world.render_mode == "ansi":
        return [f"click [{2 + i}]" for i in range(count)]
    return [session.action_space.sample() for _ in range(count)]


def rate(work: Callable[[], object], steps: int) -> tuple[float, float]:
    """Steps a second, by the clock and by the processor's time."""
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return steps / (time.perf_counter() - clock), steps / (time.process_time() - processor)


def stepping(world: Imagined, count: int) -> tuple[float, float]:
    sessions, actions = [Session(world, 10_000) for _ in range(count)], []
    for seed, session in enumerate(sessions):
        actions += actions_of(session, session.reset(seed=seed)[1], 1)

    def work() -> None:
        for _ in range(STEPS[count]):
            step_together(sessions, actions)
            for session in sessions:
                session.over = False  # an answer that does not read has been written all the same

    return rate(work, count * STEPS[count])


def looking_ahead(world: Imagined) -> list[tuple[float, float]]:
    """Candidates together and one at a time."""
    session = Session(world, 10_000)
    _, info = session.reset(seed=1)
    plans = [[action] for action in actions_of(session, info, CANDIDATES)]
    together = rate(lambda: session.imagine(plans), CANDIDATES)
    return [together, rate(lambda: [session.imagine([plan]) for plan in plans], CANDIDATES)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--guesses", type=int, default=engine.GUESSED, help="tokens read ahead for one player; 0 for none"
    )
    args = parser.parse_args()
    engine.GUESSED = args.guesses
    torch.set_num_threads(1)
    print(f"| run | {' | '.join(map(str, SESSIONS))} | {CANDIDATES} together | one at a time | load |")
    print("|---|" + "---:|" * (len(SESSIONS) + 3))
    for run in args.runs:
        world = Imagined(rlvr_world.load(run), attempts=1)
        stepping(world, 1)  # the first is slower
        found = [[stepping(world, n) for n in SESSIONS] + looking_ahead(world) for _ in range(args.repeats)]
        medians = [[median(one) for one in zip(*column, strict=True)] for column in zip(*found, strict=True)]
        cells = [f"{clock:.1f} ({processor:.1f})" for clock, processor in medians]
        print(f"| {world.model.config.recipe} | {' | '.join(cells)} | {os.getloadavg()[0]:.1f} |", flush=True)


if __name__ == "__main__":
    main()
