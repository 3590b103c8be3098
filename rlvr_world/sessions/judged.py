"""A world with a task: it may begin where the task does, and each step tells whether that is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from rlvr_world.types import Asked, Outcome, Streams, World

Judge = Callable[[np.ndarray], np.ndarray]
Starts = Callable[[int], Mapping[str, Any]]


class Judged:
    """A ``World``, real or imagined, for policies that know no more than sessions. Success is what it tells itself
    (``info["is_success"]``), where it does, else what ``judge`` says of frames, uint8 [N, H, W, 3] -> [N], True or
    above 0; it is a reward of 1 and ends the episode. ``starts``: options by seed, where none are given. ``task``: what
    is to be done, ``info["task"]`` at the start."""

    def __init__(self, world: World, judge: Judge, starts: Starts = lambda seed: {}, task: str = "") -> None:
        self.world, self.judge, self.starts, self.task = world, judge, starts, {"task": task} if task else {}
        self.render_mode, self.close = world.render_mode, world.close
        self.action_space, self.observation_space = world.action_space, world.observation_space
        self.read_action, self.observe, self.render = world.read_action, world.observe, world.render
        self.options, self.fields = getattr(world, "options", None), getattr(world, "fields", ())

    def start(self, seed: int, options: Mapping[str, Any]) -> tuple[Any, Mapping[str, Any]]:
        state, told = self.world.start(seed, options or self.starts(seed))
        return state, {**told, **self.task}

    def advance(self, asked: Asked, streams: Streams) -> list[Outcome]:
        outcomes = self.world.advance(asked, streams)
        judged = self.judge(np.stack([self.render(one.state) for one in outcomes])) if outcomes else np.empty(0)
        for i, (one, said) in enumerate(zip(outcomes, judged, strict=True)):
            won = bool(one.info.get("is_success", said > 0))
            outcomes[i] = replace(one, reward=float(won), terminated=won, info={**one.info, "is_success": won})
        return outcomes
