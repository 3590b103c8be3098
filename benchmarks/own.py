"""This package's engine at the benchmark's work; as ``unshared`` without sharing prompts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.work import LEARNING_RATE, SHAPES, EvenTokens, Stopwatch, memory, new_model, prompts
from rlvr_world.config import ModelConfig, OptimizerConfig, RLConfig
from rlvr_world.system.memory import keep_memory
from rlvr_world.training.grpo import GRPO
from rlvr_world.training.learner import Learner
from rlvr_world.types import Transition


def run(settings: dict[str, Any], asked: Callable[[], bool], say: Callable[[dict[str, Any]], None]) -> None:
    keep_memory()
    shape = SHAPES[settings["shape"]]
    config = RLConfig(
        prompts=shape.prompts,
        group=shape.group,
        kl=0.0,
        aggregation="sequence",
        forward_tokens=settings["forward_tokens"],
        drop_zero_variance=False,
    )
    learner = Learner(
        new_model(shape.prompt + shape.response),
        None,
        ModelConfig(precision=settings["precision"]),
        OptimizerConfig(LEARNING_RATE, weight_decay=0.0),
    )
    rows = [Transition(str(i), ids, None, None) for i, ids in enumerate(prompts(shape, 256))]
    stage = GRPO(learner, config, EvenTokens(shape, shared=settings["engine"] == "own"), lambda epoch: rows, seed=0)
    say({"memory": memory("held")})
    step = 0
    while asked():
        watch = Stopwatch()
        metrics, _ = stage.step(step, 0.5)
        phases = {k.removeprefix("time/"): v for k, v in metrics.items() if k.startswith("time/")}
        say({**watch.read(), "phases": phases, "memory": memory("peak")})
        step += 1
