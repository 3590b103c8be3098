"""Reinforcement learning on verifiable rewards with GRPO (paper, section 3; RLVR-World, arXiv 2505.13934).

A step: sample a group of predictions for each prompt, decode and score each against what really happened, turn
rewards into advantages within the group, update. The sampler's own log-probs are the old policy's: there is no second
forward. The atomic unit is the whole step, so a run stopped between steps and resumed is the same run.

Which prompts a step learns from: those that come next, or more batches of them until enough groups have spread
(dynamic sampling, DAPO, arXiv 2503.14476); in the order of an epoch, or drawn by the spread that they last had.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor

from rlvr_world.config import RLConfig
from rlvr_world.models.shards import whole
from rlvr_world.sampling.engine import Sampling, sample
from rlvr_world.sampling.servers import Servers
from rlvr_world.system import ranks
from rlvr_world.training.advantages import drawn_by_spread, group_advantages, rollout_weights, zero_variance
from rlvr_world.training.learner import Learner, TokenLoss
from rlvr_world.training.losses import finite, kl_estimate, policy_loss
from rlvr_world.training.packing import Branch, Group, Packed, legal_ranges, pack, response_lengths
from rlvr_world.training.sft import rows_of_step
from rlvr_world.training.shared import closed_loop, sampled, scored
from rlvr_world.types import Domain, Rollout, Score, Script, Transition, Write

Rollouts = Sequence[Sequence[Rollout]]
"""Of every prompt its group."""
Scores = Sequence[Sequence[Score]]
Record = Callable[[int, Sequence[Transition], Rollouts, Scores], None]
"""Keeps rollouts of a step: its number, rows, what was written and how it scored."""
OTHERS = 4
"""Predictions under other actions that those of a group are compared with, where following actions is rewarded."""
REPEATED = 8
"""Length of the runs of tokens whose second occurrence in a rollout counts as repetition."""


@dataclass(frozen=True)
class Pending:
    """What a step is learning from."""

    groups: Rollouts
    """All that were sampled."""
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
        epoch_rows: Callable[[int], Sequence[Transition]],
        seed: int,
        record: Record | None = None,
        servers: Servers | None = None,
    ) -> None:
        """``epoch_rows``: the rows of an epoch, as many in every epoch. ``servers`` sample instead of the learner."""
        self.learner, self.config, self.domain, self.seed = learner, config, domain, seed
        self.record, self.servers = record, servers
        self.pending: Pending | None = None
        self.epoch_rows = lru_cache(maxsize=2)(epoch_rows)
        self.rows = len(self.epoch_rows(0))
        self.ids = lru_cache(maxsize=1)(lambda epoch: [row.id for row in self.epoch_rows(epoch)])
        self.followed = getattr(domain, "action_margin", 0.0)  # weight of following actions, where a domain has one
        self.closed_loop = getattr(domain, "closed_loop", 0)  # clips, at most, that come before one that is rewarded
        self.batches = max(1, config.dynamic_sampling)
        self.reference = None
        if config.kl > 0 and not isinstance(learner.policy, PeftModel):
            self.reference = learner.frozen()

    def step(self, step: int, progress: float) -> tuple[dict[str, float], int]:
        """One rollout phase and its updates; metrics and the tokens that all forwards processed."""
        self.pending = None
        rows, groups, scores, seconds = self._sampled(step)
        if self.record is not None:
            self.record(step, rows, groups, scores)
        others, begun, rewards_BG = seconds.pop("others"), time.perf_counter(), rewards(scores)
        metrics = {**summary(groups, scores, rows), **self.learn_on(Pending(groups, rewards_BG, 0), progress)}
        metrics |= seconds | {"time/update": time.perf_counter() - begun}
        if self.config.draw == "spread":
            spread_B = rewards_BG.std(dim=1, correction=0).masked_fill(zero_variance(rewards_BG), 0.0)
            self.learner.spread |= zip((row.id for row in rows), spread_B.tolist(), strict=True)
        rolled = sum(len(g[0].script.prompt) + sum(len(r.ids) for r in g) for g in groups)
        return metrics, rolled + int(others + metrics["trained_tokens"])

    def _sampled(self, step: int) -> tuple[list[Transition], Rollouts, Scores, dict[str, float]]:
        """The rows, rollouts and scores of a step, how long the two phases took, and the tokens of other draws:
        one batch of prompts, or as many as dynamic sampling has need of."""
        rows: list[Transition] = []
        groups: list[list[Rollout]] = []
        scores: list[list[Score]] = []
        seconds, weight = {"time/rollout": 0.0, "time/reward": 0.0, "others": 0.0}, self.followed
        for batch in range(self.batches):
            begun = time.perf_counter()
            more_rows, more, before = self.rollouts(step, batch)
            seconds["others"] += before
            others, swapped = self._under_others(step, batch, more_rows) if weight else ([], [])
            drawn = time.perf_counter()
            made = scored(self.domain, more, more_rows)
            if others:
                seconds["others"] += sum(len(r.script.prompt) + len(r.ids) for [r] in others)
                apart = iter(rewards(scored(self.domain, others, swapped)).view(len(made), -1).tolist())
                made = [followed(group, next(apart), weight) for group in made]
            scores += made
            rows, groups = rows + more_rows, groups + more
            seconds["time/rollout"] += drawn - begun
            seconds["time/reward"] += time.perf_counter() - drawn
            if int((~zero_variance(rewards(scores))).sum()) >= self.config.prompts:
                break
        return rows, groups, scores, seconds

    def prompts(self, step: int) -> list[Transition]:
        """The rows that a step may sample for, all its batches one after the other: a function of (seed, step), and
        where rows are drawn by spread, of what checkpoints keep of it. Drawing crosses epochs as SFT's does; what
        dynamic sampling has no need of is passed over."""
        count = self.config.prompts * self.batches
        positions = range(step * count, (step + 1) * count)
        if self.config.draw == "spread":
            epoch = positions.start // self.rows
            spreads = [self.learner.spread.get(name) for name in self.ids(epoch)]
            return [self.epoch_rows(epoch)[i] for i in drawn_by_spread(spreads, count, [self.seed, step])]
        chosen = rows_of_step(self.rows, count, step, self.seed)
        return [self.epoch_rows(p // self.rows)[i] for p, i in zip(positions, chosen, strict=True)]

    def rollouts(self, step: int, batch: int = 0) -> tuple[list[Transition], list[list[Rollout]], int]:
        """The rows of a batch of a step, what the policy, as it is, writes for each, and the tokens of what it wrote
        on the way there."""
        config, first, before = self.config, batch * self.config.prompts, 0
        transitions = self.prompts(step)[first : first + config.prompts]
        streams = [(self.seed, step, first + i) for i in range(len(transitions))]
        if self.closed_loop:
            last = [int(np.random.default_rng(key).integers(1 + self.closed_loop)) for key in streams]
            draw = partial(self._draw, step, 1)
            transitions, before = closed_loop(self.domain, draw, transitions, streams, last)
        scripts = [self.domain.encode(t) for t in transitions]
        if self.servers is not None:
            self.servers.follow(step, scripts[0], self.learner.publish, self._logps)
        return transitions, sampled(partial(self._draw, step, config.group), scripts, streams), before

    def _under_others(self, step: int, batch: int, rows: Sequence[Transition]) -> tuple[Rollouts, list[Transition]]:
        """Of every row what the policy writes under the action of each of the next ``OTHERS`` in the batch
        (``domain.swap_action``), and these rows."""
        domain: Any = self.domain
        pairs = [(i, k) for i in range(len(rows)) for k in range(1, min(OTHERS + 1, len(rows)))]
        swapped = [domain.swap_action(rows[i], rows[(i + k) % len(rows)]) for i, k in pairs]
        streams = [(self.seed, step, batch * self.config.prompts + i, k) for i, k in pairs]
        return sampled(partial(self._draw, step, 1), [self.domain.encode(row) for row in swapped], streams), swapped

    def _draw(
        self, step: int, group: int, scripts: Sequence[Script], streams: Sequence[tuple[int, ...]]
    ) -> list[list[Rollout]]:
        """A group for each script, from the servers or the policy here."""
        config, drawn = self.config, Sampling(self.config.temperature)
        if self.servers is not None:
            return self.servers.sample(scripts, group, drawn, streams)
        with whole(self.learner.policy):
            groups = sample(self.learner.policy, scripts, group, drawn, streams, config.max_rows)
        return [[replace(rollout, policy_version=step) for rollout in of_script] for of_script in groups]

    @torch.no_grad()
    def _logps(self, prompt: Sequence[int], ids: Sequence[int]) -> np.ndarray:
        """Of every token of an answer, under the policy."""
        answer = Branch(torch.tensor(ids), torch.ones(len(ids), dtype=torch.bool), 1.0)
        packed = pack([Group(tuple(prompt), (answer,))]).to(self.learner.device)
        return self.learner.logps(packed)[0].cpu().numpy()

    def learn_on(self, pending: Pending, progress: float) -> dict[str, float]:
        """The updates of one step. ``self.pending`` says where it is, for whoever wants to know what failed."""
        config = self.config
        collected: list[dict[str, float]] = []
        trained = 0
        for number, groups in enumerate(self._minibatches(pending)):
            if number < pending.part or not groups:
                continue
            self.pending = Pending(pending.groups, pending.rewards_BG, number)
            trained += sum(g.tokens for g in groups)
            watch = _Watch(first=not collected)
            loss_of = self._loss(watch)
            done = self.learner.update(groups, loss_of, progress, config.forward_tokens, config.temperature)
            collected.append({**done, **watch.metrics()})
        names = sorted({k for c in collected for k in c})
        means = {k: _mean([c[k] for c in collected if k in c]) for k in names}
        flat = zero_variance(pending.rewards_BG).double().mean().item()
        return {**means, "zero_variance": flat, "sampled_groups": len(pending.groups), "trained_tokens": trained}

    def _minibatches(self, pending: Pending) -> Iterator[list[Group]]:
        """The groups of each update: with dynamic sampling the first that have spread, else all. Weights are set over
        them; then those without spread are left out where nothing but the policy loss, which is 0 there, is learned."""
        config, flat_B = self.config, zero_variance(pending.rewards_BG)
        batch = torch.nonzero(~flat_B)[: config.prompts, 0] if config.dynamic_sampling else torch.arange(len(flat_B))
        if not len(batch):
            return
        rollouts, flat_B = [pending.groups[b] for b in batch.tolist()], flat_B[batch]
        drop = config.drop_zero_variance and not config.kl and not config.entropy
        advantages_BG = group_advantages(pending.rewards_BG[batch], config.advantage, config.best_of)
        longest = max(sum(s.max_tokens for s in g[0].script.tail if isinstance(s, Write)) for g in rollouts)
        for part in torch.arange(len(rollouts)).chunk(config.minibatches):
            lengths_N = torch.tensor([int(r.sampled.sum()) for b in part.tolist() for r in rollouts[b]])
            weights = iter(rollout_weights(lengths_N, config.aggregation, longest).tolist())
            groups = []
            for b in part.tolist():
                branches = tuple(
                    Branch(r.ids, r.sampled, next(weights), a, r.logps, legal_ranges(r.script, response_lengths(r)))
                    for r, a in zip(rollouts[b], advantages_BG[b].tolist(), strict=True)
                )
                if not (drop and flat_B[b]):
                    groups.append(Group(rollouts[b][0].script.prompt, branches))
            yield groups

    def _loss(self, watch: _Watch) -> TokenLoss:
        config = self.config

        def loss_of(logp_T: Tensor, entropy_T: Tensor, packed: Packed) -> Tensor:
            rollout_T = packed.branch_T if config.ratio == "sequence" else None
            clip = config.clip_low, config.clip_high
            loss_T, clipped_T = policy_loss(logp_T, packed.old_logp_T, packed.advantage_T, *clip, rollout_T)
            watch.tokens += len(packed.target_T)
            watch.add(clip_fraction=clipped_T.float())
            if watch.first and len(logp_T):  # later updates have another policy than the one that sampled
                watch.gap = max(watch.gap, (logp_T - packed.old_logp_T).detach().abs().max().item())
            if self.servers is not None and self.servers.band:
                outside_T = (logp_T.detach() - packed.old_logp_T).abs() > math.log(self.servers.band)
                watch.add(outside_band=outside_T.float())
                loss_T = loss_T.masked_fill(outside_T, 0.0)
            if config.kl > 0:
                kl_T = kl_estimate(logp_T, self._reference_logps(packed), config.kl_estimator)
                watch.add(kl=kl_T)
                loss_T = loss_T + config.kl * kl_T
            if config.entropy > 0:
                loss_T = loss_T - config.entropy * entropy_T
            return finite(loss_T, "loss")

        return loss_of

    @torch.no_grad()
    def _reference_logps(self, packed: Packed) -> Tensor:
        """Under the policy that RL started from: a frozen copy, or with LoRA the base with the adapter off."""
        policy = self.learner.policy
        with policy.disable_adapter() if isinstance(policy, PeftModel) else nullcontext():
            return self.learner.logps(packed, self.config.temperature, self.reference)[0]


def rewards(scores: Scores) -> Tensor:
    """Shape [B, G], float64."""
    return torch.tensor([[s.value for s in group] for group in scores], dtype=torch.float64)


def followed(group: Sequence[Score], others: Sequence[float], weight: float) -> list[Score]:
    """The scores of a row's group with what following its action earns: ``weight`` times the share of ``others``, what
    predictions under other actions come to against the same truth, that are below. A copy earns nothing by it."""
    shares = [sum(score.value > other for other in others) / len(others) for score in group]
    return [
        replace(score, value=score.value + weight * share, parts={**score.parts, "action_margin": share})
        for score, share in zip(group, shares, strict=True)
    ]


def summary(groups: Rollouts, scores: Scores, transitions: Sequence[Transition]) -> dict[str, float]:
    """What the rollouts of a step were like, whether or not they are learned from. ``entropy`` is estimated by the mean
    of -log-prob of what was drawn, in nats a token."""
    flat = [s for group in scores for s in group]
    rollouts = [r for group in groups for r in group]
    values = torch.tensor([s.value for s in flat], dtype=torch.float64)
    result = {
        "reward": values.mean().item(),
        "reward_std": values.std().item(),
        "malformed": _mean([bool(s.malformed) for s in flat]),
        "response_length": _mean([len(r.ids) for r in rollouts]),
        "unfinished": _mean([not r.finished for r in rollouts]),
        "repetition": _mean([repetition(r) for r in rollouts]),
        "entropy": -sum(r.logps.sum().item() for r in rollouts) / max(1, sum(int(r.sampled.sum()) for r in rollouts)),
    }
    for kind in sorted({t.kind for t in transitions}):
        of_kind = [s for t, group in zip(transitions, scores, strict=True) if t.kind == kind for s in group]
        if right := [s.parts["exact"] for s in of_kind if "exact" in s.parts]:
            result[f"accuracy/{kind}"] = _mean(right)
    for part in sorted({name for s in flat for name in s.parts}):
        result[f"score/{part}"] = _mean([s.parts[part] for s in flat if part in s.parts])
    return result


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def repetition(rollout: Rollout) -> float:
    """Of the runs of eight tokens that a rollout wrote, the share that had occurred in it before; in [0, 1]."""
    ids = [token for written in rollout.written for token in written]
    runs = list(zip(*(ids[i:] for i in range(REPEATED)), strict=False))
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


class _Watch:
    """What the micro-batches of one update show, the first of its step or a later one."""

    def __init__(self, first: bool) -> None:
        self.first, self.tokens, self.gap = first, 0, 0.0
        self.sums: dict[str, float] = {}

    def add(self, **values: Tensor) -> None:
        for name, value_T in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value_T.detach().sum().item()

    def metrics(self) -> dict[str, float]:
        """Means over tokens; of the first update also the largest gap to the log-probs of the sampler."""
        gap = {"logp_gap": max(ranks.everyone(self.gap))} if self.first else {}
        sums = ranks.added({**self.sums, "tokens": self.tokens})
        tokens = sums.pop("tokens")
        return {**{k: v / tokens for k, v in sums.items()}, **gap}
