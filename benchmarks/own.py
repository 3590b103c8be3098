"""This package's engine at the benchmark's work; as ``unshared`` without sharing prompts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from benchmarks.work import LEARNING_RATE, SHAPES, EvenTokens, Shape, Stopwatch, memory, new_model, prompts
from rlvr_world.config import ModelConfig, OptimizerConfig, RLConfig
from rlvr_world.system.memory import keep_memory
from rlvr_world.training.grpo import GRPO
from rlvr_world.training.learner import Learner
from rlvr_world.types import Transition


def stage_of(shape: Shape, precision: Literal["float32", "bfloat16"], forward_tokens: int, shared: bool = True) -> GRPO:
    """A new model at the start of this work."""
    config = RLConfig(
        prompts=shape.prompts,
        group=shape.group,
        kl=0.0,
        aggregation="sequence",
        forward_tokens=forward_tokens,
        drop_zero_variance=False,
    )
    model, optimizer = new_model(shape.prompt + shape.response), OptimizerConfig(LEARNING_RATE, weight_decay=0.0)
    learner = Learner(model, None, ModelConfig(precision=precision), optimizer)
    rows = [Transition(str(i), ids, None, None) for i, ids in enumerate(prompts(shape, 256))]
    return GRPO(learner, config, EvenTokens(shape, shared), lambda epoch: rows, seed=0)


def timed(stage: GRPO, step: int) -> dict[str, Any]:
    """A step, its seconds by phase and the tokens that its forwards read."""
    watch = Stopwatch()
    metrics, tokens = stage.step(step, 0.5)
    phases = {k.removeprefix("time/"): v for k, v in metrics.items() if k.startswith("time/")}
    return {**watch.read(), "phases": phases, "memory": memory("peak"), "tokens": tokens}


def run(settings: dict[str, Any], asked: Callable[[], bool], say: Callable[[dict[str, Any]], None]) -> None:
    keep_memory()
    shared = settings["engine"] == "own"
    stage = stage_of(SHAPES[settings["shape"]], settings["precision"], settings["forward_tokens"], shared)
    say({"memory": memory("held")})
    step = 0
    while asked():
        say(timed(stage, step))
        step += 1
