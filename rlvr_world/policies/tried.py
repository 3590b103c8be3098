"""A world with a task: it begins where the task does, and each step tells whether that is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from rlvr_world.policies.learned import Frames
from rlvr_world.recipes.tasks import Trial
from rlvr_world.types import Asked, Outcome, Streams, World


class Tried:
    """A ``World``, real or imagined, for policies that know no more than sessions. Seeds are the numbers of the task's
    starts; success is what the world tells, where it does, else what the judge ``says`` of the frame (above 0): it is a
    reward of 1, ends the episode and stands under ``info["is_success"]``. What is to be done is ``info["task"]`` at the
    start."""

    def __init__(self, world: World, trial: Trial, says: Frames) -> None:
        self.world, self.trial, self.says, self.render_mode = world, trial, says, world.render_mode
        self.action_space, self.observation_space = world.action_space, world.observation_space
        self.read_action, self.observe, self.render = world.read_action, world.observe, world.render
        self.options, self.fields = getattr(world, "options", None), getattr(world, "fields", ())
        self.close = world.close

    def start(self, seed: int, options: Mapping[str, Any]) -> tuple[Any, Mapping[str, Any]]:
        state, told = self.world.start(seed, options or self.trial.start(seed))
        return state, {**told, "task": self.trial.instruction}

    def advance(self, asked: Asked, streams: Streams) -> list[Outcome]:
        outcomes = self.world.advance(asked, streams)
        judged = self.says(np.stack([self.render(outcome.state) for outcome in outcomes])) > 0
        for i, (one, said) in enumerate(zip(outcomes, judged, strict=True)):
            won = bool(one.info.get("is_success", said))
            outcomes[i] = replace(one, reward=float(won), terminated=won, info={**one.info, "is_success": won})
        return outcomes
