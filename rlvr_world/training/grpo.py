"""Reinforcement learning on verifiable rewards with GRPO (paper, section 3; RLVR-World, arXiv 2505.13934).

A step: sample a group of predictions for each prompt, decode and score each against what really
happened, turn rewards into advantages within the group, update. The sampler's own log-probs are the
old policy's: there is no second forward. The atomic unit is the whole step, so a run stopped
between steps and resumed is the same run.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache

import torch
from peft import PeftModel
from torch import Tensor

from rlvr_world.config import RLConfig
from rlvr_world.models.lora import reference_disabled
from rlvr_world.runs.records import Recorder
from rlvr_world.sampling.engine import Sampling, sample
from rlvr_world.scoring import judge
from rlvr_world.training.advantages import group_advantages, rollout_weights, zero_variance
from rlvr_world.training.learner import Learner
from rlvr_world.training.losses import finite, kl_estimate, policy_loss
from rlvr_world.training.packing import Branch, Group, Packed, legal_ranges, response_lengths
from rlvr_world.training.sft import rows_of_step
from rlvr_world.types import (
    Domain,
    Rollout,
    Score,
    Script,
    Transition,
    Write,
)

EpochRows = Callable[[int], Sequence[Transition]]
"""The rows of an epoch; as many in every epoch."""


REPEATED = 8
"""Length of the runs of tokens whose second occurrence in a rollout counts as repetition."""


@dataclass(frozen=True)
class Pending:
    """What a step is learning from."""

    groups: Sequence[Sequence[Rollout]]
    rewards_BG: Tensor
    part: int
    """The mini-batch that is next, counted from 0; the updates before it are made."""


class GRPO:
    """One stage of reinforcement learning: sample, score, update."""

    full_speed = None

    def __init__(
        self,
        learner: Learner,
        config: RLConfig,
        domain: Domain,
        epoch_rows: EpochRows,
        seed: int,
        recorder: Recorder | None = None,
    ) -> None:
        self.learner, self.config, self.domain, self.seed = learner, config, domain, seed
        self.recorder = recorder
        self.pending: Pending | None = None
        self.epoch_rows = lru_cache(maxsize=2)(epoch_rows)
        self.rows = len(self.epoch_rows(0))
        self.reference = None
        if config.kl > 0 and not isinstance(learner.policy, PeftModel):
            self.reference = copy.deepcopy(learner.policy).eval().requires_grad_(False)

    def step(self, step: int, progress: float) -> tuple[dict[str, float], int]:
        """One rollout phase and its updates; metrics and the tokens that all forwards processed."""
        clock = _Clock()
        self.pending = None
        transitions, groups = self.rollouts(step)
        clock.lap("rollout")
        written = [[r.written for r in group] for group in groups]
        scores = [[score for _, score in judged] for judged in judge(self.domain, written, transitions)]
        if self.recorder is not None:
            self.recorder.keep(step, transitions, groups, scores)
        clock.lap("reward")
        rewards_BG = torch.tensor([[s.value for s in group] for group in scores], dtype=torch.float64)
        metrics = {**summary(groups, scores, transitions), **self.learn_on(Pending(groups, rewards_BG, 0), progress)}
        clock.lap("update")
        rolled = sum(len(g[0].script.prompt) + sum(len(r.ids) for r in g) for g in groups)
        return {**metrics, **clock.laps}, rolled + int(metrics["trained_tokens"])

    def prompts(self, step: int) -> list[Transition]:
        """A step's rows, a function of (seed, step); drawing crosses epochs as SFT's does."""
        positions = range(step * self.config.prompts, (step + 1) * self.config.prompts)
        chosen = rows_of_step(self.rows, self.config.prompts, step, self.seed)
        epochs = {e: self.epoch_rows(e) for e in {p // self.rows for p in positions}}
        return [epochs[p // self.rows][i] for p, i in zip(positions, chosen, strict=True)]

    def rollouts(self, step: int) -> tuple[list[Transition], list[list[Rollout]]]:
        """The rows of a step and what the policy, as it is, writes for each."""
        transitions = self.prompts(step)
        scripts = [self.domain.encode(t) for t in transitions]
        streams = [(self.seed, step, i) for i in range(len(scripts))]
        groups = sample(
            self.learner.policy,
            scripts,
            self.config.group,
            Sampling(self.config.temperature),
            streams,
            policy_version=step,
            max_rows=self.config.max_rows,
        )
        return transitions, groups

    def learn_on(self, pending: Pending, progress: float) -> dict[str, float]:
        """The updates of one step. Weights are set over a mini-batch before groups without variance are dropped.

        ``self.pending`` says where it is, for whoever wants to know what failed.
        """
        rollouts, rewards_BG = pending.groups, pending.rewards_BG
        scripts = [group[0].script for group in rollouts]
        flat_B = zero_variance(rewards_BG)
        advantages_BG = group_advantages(rewards_BG, self.config.advantage).float()
        longest = max(sum(s.max_tokens for s in script.tail if isinstance(s, Write)) for script in scripts)
        collected: list[dict[str, float]] = []
        trained = 0
        for number, part in enumerate(torch.arange(len(scripts)).chunk(self.config.minibatches)):
            if number < pending.part:
                continue
            self.pending = Pending(rollouts, rewards_BG, number)
            groups = self._groups(part.tolist(), scripts, rollouts, advantages_BG, longest)
            if self.config.drop_zero_variance:
                groups = [g for g, b in zip(groups, part.tolist(), strict=True) if not flat_B[b]]
            if not groups:
                continue
            trained += sum(g.tokens for g in groups)
            watch = _Watch(first=not collected)
            done = self.learner.update(
                groups, self._loss(watch), progress, self.config.forward_tokens, self.config.temperature
            )
            collected.append({**done, **watch.metrics()})
        names = sorted({k for c in collected for k in c})
        values = {k: [c[k] for c in collected if k in c] for k in names}
        means = {k: sum(v) / len(v) for k, v in values.items()}
        return {**means, "zero_variance": flat_B.double().mean().item(), "trained_tokens": trained}

    def _groups(
        self,
        part: list[int],
        scripts: Sequence[Script],
        rollouts: Sequence[Sequence[Rollout]],
        advantages_BG: Tensor,
        longest: int,
    ) -> list[Group]:
        lengths_N = torch.tensor([int(r.sampled.sum()) for b in part for r in rollouts[b]])
        weights = iter(rollout_weights(lengths_N, self.config.aggregation, longest).tolist())
        return [
            Group(
                scripts[b].prompt,
                tuple(
                    Branch(r.ids, r.sampled, next(weights), a, r.logps, legal_ranges(r.script, response_lengths(r)))
                    for r, a in zip(rollouts[b], advantages_BG[b].tolist(), strict=True)
                ),
            )
            for b in part
        ]

    def _loss(self, watch: _Watch) -> Callable[[Tensor, Tensor, Packed], Tensor]:
        config = self.config

        def loss_of(logp_T: Tensor, entropy_T: Tensor, packed: Packed) -> Tensor:
            rollout_T = packed.branch_T if config.ratio == "sequence" else None
            loss_T, clipped_T = policy_loss(
                logp_T, packed.old_logp_T, packed.advantage_T, config.clip_low, config.clip_high, rollout_T
            )
            watch.add(packed, entropy=entropy_T, clip_fraction=clipped_T.float())
            if watch.first:  # later updates have another policy than the one that sampled
                watch.largest(logp_gap=(logp_T - packed.old_logp_T).abs())
            if config.kl > 0:
                kl_T = kl_estimate(logp_T, self._reference_logps(packed), config.kl_estimator)
                watch.add(packed, kl=kl_T)
                loss_T = loss_T + config.kl * kl_T
            if config.entropy > 0:
                loss_T = loss_T - config.entropy * entropy_T
            return finite(loss_T, "loss")

        return loss_of

    @torch.no_grad()
    def _reference_logps(self, packed: Packed) -> Tensor:
        """Under the policy that RL started from: a frozen copy, or with LoRA the base with the adapter off."""
        policy = self.learner.policy
        with reference_disabled(policy) if isinstance(policy, PeftModel) else nullcontext():
            return self.learner.logps(packed, self.config.temperature, self.reference)[0]


def summary(
    groups: Sequence[Sequence[Rollout]], scores: Sequence[Sequence[Score]], transitions: Sequence[Transition]
) -> dict[str, float]:
    """What the rollouts of a step were like."""
    flat = [s for group in scores for s in group]
    values = torch.tensor([s.value for s in flat], dtype=torch.float64)
    lengths = [len(r.ids) for group in groups for r in group]
    result = {
        "reward": values.mean().item(),
        "reward_std": values.std().item(),
        "malformed": sum(bool(s.malformed) for s in flat) / len(flat),
        "response_length": sum(lengths) / len(lengths),
        "unfinished": sum(not r.finished for group in groups for r in group) / len(flat),
        "repetition": sum(repetition(r) for group in groups for r in group) / len(flat),
    }
    for kind in sorted({t.kind for t in transitions}):
        of_kind = [s for t, group in zip(transitions, scores, strict=True) if t.kind == kind for s in group]
        right = [s.parts["exact"] for s in of_kind if "exact" in s.parts]
        if right:
            result[f"accuracy/{kind}"] = sum(right) / len(right)
    for part in sorted({name for s in flat for name in s.parts}):
        measured = [s.parts[part] for s in flat if part in s.parts]
        result[f"score/{part}"] = sum(measured) / len(measured)
    return result


def repetition(rollout: Rollout) -> float:
    """Of the runs of eight tokens that a rollout wrote, the share that had occurred in it before; in [0, 1]."""
    ids = [token for written in rollout.written for token in written]
    runs = list(zip(*(ids[i:] for i in range(REPEATED)), strict=False))
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


class _Watch:
    """Token-weighted means and maxima over the micro-batches of one update, the first of its step or a later one."""

    def __init__(self, first: bool) -> None:
        self.first = first
        self.sums: dict[str, float] = {}
        self.tokens = 0
        self.maxima: dict[str, float] = {}

    def add(self, packed: Packed, **values: Tensor) -> None:
        if "entropy" in values:
            self.tokens += len(packed.target_T)
        for name, value_T in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value_T.detach().sum().item()

    def largest(self, **values: Tensor) -> None:
        for name, value_T in values.items():
            self.maxima[name] = max(self.maxima.get(name, 0.0), value_T.detach().max().item())

    def metrics(self) -> dict[str, float]:
        return {**{k: v / self.tokens for k, v in self.sums.items()}, **self.maxima}


class _Clock:
    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[f"time/{name}"] = now - self._last
        self._last = now
