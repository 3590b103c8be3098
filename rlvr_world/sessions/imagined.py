"""A world that a trained model imagines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlvr_world.errors import InputError
from rlvr_world.runs.jobs import plan
from rlvr_world.runs.world_model import WorldModel, load
from rlvr_world.types import Asked, Outcome, Script, Streams


class Imagined:
    """What a model says comes of actions, as a ``World``.

    >>> world = Imagined("runs/demo", temperature=1.0)
    """

    def __init__(self, model: WorldModel | str | Path, temperature: float | None = None, attempts: int = 3) -> None:
        """``model``: as ``load`` gives it, or what it opens. ``temperature``: None for that of the recipe's evaluation.
        ``attempts``: how often an answer is drawn that does not read, from the second time on at a temperature of at
        least 1."""
        if attempts < 1 or (temperature is not None and temperature < 0):
            raise InputError(
                f"imagined world: expected at least 1 attempt and a temperature of at least 0, got {attempts}, "
                f"{temperature}"
            )
        self.model = model if isinstance(model, WorldModel) else load(model)
        self.scene = self.model.recipe.scene(self.model.config, self.model.domain)
        self.sampling, self.attempts = plan(self.model.config).sampling, attempts
        if temperature is not None:
            self.sampling = replace(self.sampling, temperature=temperature)
        self.action_space, self.observation_space = self.scene.action_space, self.scene.observation_space
        self.render_mode = self.scene.render_mode

    def start(self, seed: int, options: Mapping[str, Any]) -> tuple[Any, Mapping[str, Any]]:
        return self.scene.start(seed, options)

    def read_action(self, given: Any) -> Any:
        return self.scene.read_action(given)

    def advance(self, asked: Asked, streams: Streams) -> list[Outcome]:
        """All pairs in one batch. The stream of a pair, with the number of the attempt, names its draws."""
        found = [self.scene.script(state, action) for state, action in asked]
        outcomes = [one if isinstance(one, Outcome) else Outcome(None) for one in found]
        scripts = {i: one for i, one in enumerate(found) if isinstance(one, Script)}
        for attempt in range(self.attempts):
            if not scripts:
                break
            again = replace(self.sampling, temperature=max(1.0, self.sampling.temperature))
            named = [(*streams[i], attempt) for i in scripts]
            written = self.model.answers(list(scripts.values()), named, again if attempt else self.sampling)
            came = self.scene.follow([asked[i] for i in scripts], [answer for [answer] in written])
            outcomes = [dict(zip(scripts, came, strict=True)).get(i, before) for i, before in enumerate(outcomes)]
            scripts = {i: script for i, script in scripts.items() if "malformed" in outcomes[i].info}
        return outcomes

    def observe(self, state: Any) -> Any:
        return self.scene.observe(state)

    def render(self, state: Any) -> Any:
        return self.scene.render(state)

    def close(self) -> None:
        """Holds nothing."""
