"""A world that a trained model imagines, and all worlds that one offers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from rlvr_world.errors import InputError
from rlvr_world.runs.folder import models_of, run_of
from rlvr_world.runs.jobs import plan
from rlvr_world.runs.world_model import WorldModel, load
from rlvr_world.types import Asked, Outcome, Script, Streams, World


class Imagined:
    """What a model says comes of actions, as a ``World``.

    >>> world = Imagined("runs/demo", temperature=1.0)
    """

    def __init__(self, model: WorldModel | str | Path, temperature: float | None = None, attempts: int = 3) -> None:
        """``model``: as ``load`` gives it, or what it opens. ``temperature``: None for that of the recipe's evaluation.
        ``attempts``: how often an answer is drawn that does not read, from the second time on at a temperature of at
        least 1."""
        if attempts < 1 or (temperature is not None and temperature < 0):
            wanted = "at least 1 attempt and a temperature of at least 0"
            raise InputError(f"imagined world: expected {wanted}, got {attempts}, {temperature}")
        self.model = model if isinstance(model, WorldModel) else load(model)
        scene = self.scene = self.model.recipe.scene(self.model.config, self.model.domain)
        self.sampling, self.attempts = plan(self.model.config).sampling, attempts
        if temperature is not None:
            self.sampling = replace(self.sampling, temperature=temperature)
        self.action_space, self.observation_space = scene.action_space, scene.observation_space
        self.start, self.read_action, self.observe = scene.start, scene.read_action, scene.observe
        self.render, self.render_mode = scene.render, scene.render_mode
        self.options: Sequence[str] | None = getattr(scene, "options", None)
        self.fields: Sequence[str] = getattr(scene, "fields", ())

    def advance(self, asked: Asked, streams: Streams) -> list[Outcome]:
        """All pairs in one batch. The stream of a pair, with the number of the attempt, names its draws."""
        found = [self.scene.script(state, action) for state, action in asked]
        outcomes = {i: one for i, one in enumerate(found) if isinstance(one, Outcome)}
        scripts = {i: one for i, one in enumerate(found) if isinstance(one, Script)}
        again = replace(self.sampling, temperature=max(1.0, self.sampling.temperature))
        for attempt in range(self.attempts if scripts else 0):
            named = [(*streams[i], attempt) for i in scripts]
            written = self.model.answers([*scripts.values()], named, again if attempt else self.sampling)
            came = self.scene.follow([asked[i] for i in scripts], [answer for [answer] in written])
            outcomes |= zip(scripts, came, strict=True)
            scripts = {i: script for i, script in scripts.items() if "malformed" in outcomes[i].info}
            if not scripts:
                break
        return [outcomes[i] for i in range(len(found))]

    def close(self) -> None:
        """Holds nothing."""


def worlds_of(source: str) -> dict[str, Callable[[], World]]:
    """By name what opens each world: of a run its last model of each stage, the best first, else the one model; and
    ``real``; where there is no real world to step, stderr says why. The first model is opened at once, so that what is
    no model shows before anybody asks."""
    run = Path(source).expanduser()
    models = {name: str(model) for name, model in models_of(run).items()} if run_of(run) == run else {"model": source}
    worlds: dict[str, Callable[[], World]] = {name: partial(Imagined, model) for name, model in models.items()}
    worlds[next(iter(models))] = partial(Imagined, opened := load(next(iter(models.values()))))
    try:
        real = opened.real()
    except InputError as error:
        print(f"no real world: {error}", file=sys.stderr)
        return worlds
    return {**worlds, "real": lambda: real}
