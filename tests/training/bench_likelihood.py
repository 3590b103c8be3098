"""Tokens a second of likelihood training, by the processor's time.

``python tests/training/bench_likelihood.py [demo] [pusht] [miniwob]``

Steps of random rows of the length of three recipes, one thread: forwards in bfloat16 and float32, with a last layer
that computes every token, and with one that computes answers alone, as training has it. They take turns.
"""

from __future__ import annotations

import random
import sys
import time
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, Literal

import torch

from rlvr_world.config import ModelConfig, OptimizerConfig
from rlvr_world.models.loading import create_model
from rlvr_world.system.memory import keep_memory
from rlvr_world.training.learner import Learner
from rlvr_world.training.packing import Branch, Group
from rlvr_world.training.sft import equal_token_weights, negative_logp


@dataclass(frozen=True)
class Rows:
    """A recipe's step: rows, tokens of a forward, model, vocabulary, and from where to where lengths lie."""

    batch: int
    forward_tokens: int
    model: ModelConfig
    vocabulary: int
    prompt: tuple[int, int]
    answer: tuple[int, int]

    def draw(self, seed: int) -> list[Group]:
        draw = random.Random(seed)
        groups = []
        for _ in range(self.batch):
            prompt, answer = (
                [draw.randrange(self.vocabulary) for _ in range(draw.randint(*n))] for n in (self.prompt, self.answer)
            )
            trained = torch.ones(len(answer), dtype=torch.bool)
            groups.append(Group(tuple(prompt), (Branch(torch.tensor(answer), trained, 1.0),)))
        return equal_token_weights(groups)


SHAPES = {
    "demo": Rows(64, 8192, ModelConfig(hidden=64, layers=2, heads=4), 1200, (68, 112), (8, 28)),
    "pusht": Rows(16, 8192, ModelConfig(hidden=128, layers=4, heads=4), 1040, (149, 149), (64, 64)),
    "miniwob": Rows(32, 4096, ModelConfig(hidden=192, layers=4, heads=4), 1024, (140, 360), (10, 60)),
}
WAYS: dict[str, tuple[Literal["float32", "bfloat16"], bool]] = {
    "bfloat16, whole": ("bfloat16", False),
    "bfloat16, answers alone": ("bfloat16", True),
    "float32, whole": ("float32", False),
    "float32, answers alone": ("float32", True),
}


def learner_of(shape: Rows, precision: Literal["float32", "bfloat16"], answers_alone: bool) -> Learner:
    model: Any = create_model(shape.model, shape.vocabulary)
    learner = Learner(model, None, replace(shape.model, precision=precision), OptimizerConfig())
    if not answers_alone:
        for one in (learner.model, learner.policy):
            one.get_decoder().layers[-1]._forward_pre_hooks.clear()
    return learner


def speeds(shape: Rows, rounds: int = 5) -> dict[str, float]:
    """Tokens a second of the processor by way, the median of all rounds but the first."""
    learners = {way: learner_of(shape, *settings) for way, settings in WAYS.items()}
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for number in range(rounds):
        groups = shape.draw(number)
        for way, learner in learners.items():
            started = time.process_time()
            learner.update(groups, negative_logp, 0.5, shape.forward_tokens)
            found[way].append(sum(group.tokens for group in groups) / (time.process_time() - started))
    return {way: median(each[1:]) for way, each in found.items()}


if __name__ == "__main__":
    keep_memory()
    torch.set_num_threads(1)
    for name in sys.argv[1:] or SHAPES:
        print(name, {way: round(speed) for way, speed in speeds(SHAPES[name]).items()}, flush=True)
