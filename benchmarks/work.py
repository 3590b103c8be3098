"""The work that every engine of the benchmark does: the same model, prompts and reward, one on-policy GRPO step.

A random Llama; random prompts; the reward of a rollout is the share of even ids among the tokens that it drew.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from rlvr_world.types import Given, Score, Script, Transition, Write, Written

VOCABULARY = 4096
EOS, PAD = VOCABULARY - 1, VOCABULARY - 2
LEARNING_RATE = 1e-4


@dataclass(frozen=True)
class Shape:
    """``prompts`` x ``prompt`` tokens; ``group`` rollouts of ``response`` tokens each.

    Of every ``frame`` tokens of a response the last ``forced`` are given; 0 gives none.
    """

    prompts: int
    prompt: int
    response: int
    group: int
    frame: int = 0
    forced: int = 0

    def tail(self) -> tuple[Given | Write, ...]:
        if not self.forced:
            return (Write(self.response, stop=(EOS,)),)
        given = Given(tuple(range(self.forced)))
        return tuple(
            part for _ in range(self.response // self.frame) for part in (Write(self.frame - self.forced), given)
        )


SHAPES = {
    "short": Shape(prompts=8, prompt=200, response=96, group=8),
    "video": Shape(prompts=2, prompt=336, response=80, group=16),
    "text": Shape(prompts=2, prompt=800, response=96, group=8),
    "multi_step": Shape(prompts=2, prompt=344, response=168, group=16, frame=24, forced=4),
}


def new_model(longest: int, hidden: int = 256, layers: int = 6) -> LlamaForCausalLM:
    torch.manual_seed(0)
    heads = hidden // 64
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=hidden,
            intermediate_size=4 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            max_position_embeddings=longest + 8,
            tie_word_embeddings=False,
            eos_token_id=EOS,
            pad_token_id=PAD,
            bos_token_id=None,
        )
    )


def prompts(shape: Shape, count: int) -> list[list[int]]:
    draws = torch.randint(0, PAD, (count, shape.prompt), generator=torch.Generator().manual_seed(1))
    return draws.tolist()


def reward(ids: Sequence[int]) -> float:
    return sum(i % 2 == 0 for i in ids) / max(len(ids), 1)


class EvenTokens:
    """The reward as a domain; the state of a transition is its prompt.

    Unless ``shared``, a rollout "writes" the prompt's second token, the only legal one, so that whatever follows is
    its own: the engine shares one token instead of the prompt, and reads the rest as it reads forced tokens, without
    a fused kernel, so that the rollout's share of the gain is flattering.
    """

    lower_is_better = frozenset[str]()

    def __init__(self, shape: Shape, shared: bool = True) -> None:
        self.tail, self.shared = shape.tail(), shared

    def encode(self, transition: Transition) -> Script:
        ids = tuple(transition.state)
        if self.shared:
            return Script((Given(ids), *self.tail))
        return Script((Given(ids[:1]), Write(1, allowed=range(ids[1], ids[1] + 1)), Given(ids[2:]), *self.tail))

    def decode(self, written: Written, transition: Transition) -> list[int]:
        return [i for segment in written[not self.shared :] for i in segment]

    def score(self, prediction: list[int], transition: Transition) -> Score:
        return Score(reward(prediction))

    def baselines(self, transition: Transition) -> Mapping[str, Any]:
        return {}

    def explain(self, prediction: list[int], transition: Transition) -> str:
        return str(prediction)


@dataclass
class Stopwatch:
    """Wall and processor seconds since it was made."""

    def __post_init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        return {"wall": time.perf_counter() - self.wall, "cpu": time.process_time() - self.cpu}


def memory(of: Literal["held", "peak"]) -> float:
    """What this process holds, or the most that it has held, in MiB. Elsewhere than on Linux both are the peak."""
    if sys.platform != "linux":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    name = {"held": "VmRSS", "peak": "VmHWM"}[of]
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 2**10
