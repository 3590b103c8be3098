"""A trained world model in use: what comes next, without knowing what came."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rlvr_world import recipes
from rlvr_world.config import Config
from rlvr_world.errors import InputError
from rlvr_world.models.loading import WORLD, world_of
from rlvr_world.recipes import Recipe
from rlvr_world.runs import runner
from rlvr_world.runs.folder import last_model, run_of
from rlvr_world.runs.jobs import WORLD_CONFIG, load_learner
from rlvr_world.sampling.engine import Sampling, sample_each
from rlvr_world.scoring import about, decode
from rlvr_world.training.learner import Learner
from rlvr_world.types import Domain, Script, Streams, Transition, World, Written


@dataclass(frozen=True)
class WorldModel:
    """A model with the domain that reads and writes its tokens. ``load`` opens one.

    >>> world = load("runs/demo")
    >>> world.predict(state, "open door")
    """

    config: Config
    recipe: Recipe
    learner: Learner
    domain: Domain

    def predict(self, state: Any, action: Any, n: int = 1, temperature: float = 0.0, seed: int = 0) -> Any:
        """The state after ``action``: a state of the domain, or ``Malformed`` where the answer does not read.

        With ``n`` above 1 a list of ``n`` samples, which differ only where ``temperature`` is above 0. Lists of states
        and actions of one length give a list, predicted together. Text: a ``GameState``, or its JSON object, and a
        command. Web: a ``PageState``, or the text of its tree, and an action. Video: a ``Clip``, or frames uint8
        [T, H, W, 3], and numbers [F, A]. Sample i of row r draws from the stream (seed, r, i), whatever it is batched
        with. Raises InputError that names the field for another state or action.
        """
        ask = self.recipe.question
        if not (isinstance(state, list) and isinstance(action, list)):
            return self.predict_rows([ask({"state": state, "action": action})], n, temperature, seed)[0]
        if len(state) != len(action):
            raise InputError(f"predict: expected an action for each state, got {len(state)} and {len(action)}")
        pairs = zip(state, action, strict=True)
        asked = [ask({"state": s, "action": a, "id": f"question {i}"}) for i, (s, a) in enumerate(pairs)]
        return self.predict_rows(asked, n, temperature, seed)

    def predict_rows(
        self, rows: Sequence[Transition], n: int = 1, temperature: float = 0.0, seed: int = 0
    ) -> list[Any]:
        """``predict`` for the states and actions of rows; their next states are not looked at."""
        if n < 1 or temperature < 0:
            raise InputError(f"predict: expected n of at least 1, temperature of at least 0, got {n}, {temperature}")
        scripts = [self.domain.encode(row) for row in rows]
        streams = [(seed, i) for i in range(len(rows))]
        predictions = decode(self.domain, self.answers(scripts, streams, Sampling(temperature), n), rows)
        states = []
        for row, group in zip(rows, predictions, strict=True):
            with about(row):
                states.append([self.domain.advance(row.state, row.action, prediction) for prediction in group])
        return [group[0] if n == 1 else group for group in states]

    def answers(
        self, scripts: Sequence[Script], streams: Streams, sampling: Sampling, n: int = 1
    ) -> list[list[Written]]:
        """What the model writes into each script, ``n`` times; sample i of a script draws from (*its stream, i)."""
        every = [(script, (*stream, i)) for script, stream in zip(scripts, streams, strict=True) for i in range(n)]
        drawn = sample_each(self.learner.policy, [script for script, _ in every], sampling, [key for _, key in every])
        return [[one.written for one in drawn[k : k + n]] for k in range(0, len(drawn), n)]

    def real(self) -> World:
        """The real world that the model was trained on. Raises InputError where there is none to step."""
        return self.recipe.real(self.config)


def load(source: str | Path, device: Literal["auto", "cpu", "cuda"] = "auto", recipe: str = "") -> WorldModel:
    """The world model of a run folder (its last model), a model folder, or a Hugging Face hub id.

    A model that a run saved has all it needs in its folder; the rows that it was trained on are not needed. Code does
    not travel with it: ``recipe`` names a recipe of one's own where it is not where the run found it.
    Raises InputError where there is none, or where the model was not saved by a run.
    """
    folder = Path(source).expanduser()
    model = last_model(folder) if run_of(folder) == folder else source
    world = world_of(model)
    if world is None:
        raise InputError(
            f"model {model}: it has no folder {WORLD}, so nothing says which world it models; name a model that a run "
            "saved, evaluate it with --recipe, or `rlvr-world adopt` it where it is a published video model"
        )
    config = runner.read_config(world / WORLD_CONFIG, recipe)
    config = replace(config, model=replace(config.model, device=device))
    found = recipes.find(config.recipe)
    learner = load_learner(config, model, world)
    return WorldModel(config, found, learner, found.domain(config, learner.model, learner.tokenizer, world))
