"""What stops a run before harm is done: numbers that are not finite, steps that teach nothing, a policy that collapses.

Every rule is a field of ``GuardConfig`` and reads the rows of metrics.jsonl, so a resumed run, which reads them again,
decides as an uninterrupted one does. Numbers that are not finite are found in hooks of the optimizer, before it steps.
"""

from __future__ import annotations

import contextlib
import difflib
import math
import operator
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from rlvr_world.config import CheckpointConfig, GuardConfig
from rlvr_world.errors import Halted, InputError, NonFinite
from rlvr_world.models.shards import local
from rlvr_world.system import ranks
from rlvr_world.training.optimizer import Watched

Row = Mapping[str, Any]
"""A row of metrics.jsonl; None stands for a number that is not finite."""
LEAST_DROP = 0.02
"""Held-out reward that falls by less than this, in units of the reward, is no collapse."""
LOGGED = (
    *("reward", "reward_std", "malformed", "response_length", "unfinished", "repetition", "entropy", "loss", "kl"),
    *("grad_norm", "learning_rate", "clip_fraction", "logp_gap", "zero_variance", "sampled_groups", "trained_tokens"),
    *("weight_change", "step", "tokens"),
)
"""Numbers of every RL step that makes an update, whatever the domain."""
_LIMIT = re.compile(r"\s*([^<>=\s]+)\s*(<=|>=)\s*([-+0-9.eE]+)\s*")
_PROBE = 16
"""Weights of each parameter that are looked at for a change."""


class Collapsed(Exception):
    """The policy has left a limit of ``GuardConfig`` for good; the reason."""


class Best:
    """The step at which validation found a number best: ``name`` highest, ``-name`` lowest, "" none."""

    def __init__(self, name: str) -> None:
        self.name, self.sign = name.removeprefix("-"), -1 if name.startswith("-") else 1
        self.step: int | None = None
        self.value = -math.inf
        """The best so far, with the sign that makes more better."""

    def see(self, row: Row) -> bool:
        """Take note of a row; whether it is the best so far."""
        value = row.get(self.name)
        if value is None or self.sign * value <= self.value:
            return False
        self.step, self.value = row["step"], self.sign * value
        return True


def require(
    setting: str, name: str, logged: Collection[str], mend: str = ": change it in the run's config.json and resume"
) -> None:
    """Raise InputError, with the nearest name, where what a setting names is not ``logged``: it would never act."""
    if name in logged:
        return
    known = [key for key in logged if key.startswith("eval/") == name.startswith("eval/")] or list(logged)
    near = max(known, key=lambda key: difflib.SequenceMatcher(None, name, key).ratio())
    raise InputError(f"{setting}: expected a number that is logged, got {name!r}; the nearest is {near!r}{mend}")


class Guard:
    """The rules over one stage: ``watch`` its optimizers, then ``see`` each row of its log."""

    def __init__(self, config: GuardConfig, checkpoints: CheckpointConfig, collapses: bool = False) -> None:
        """``collapses``: whether the rules on collapse apply; they are about reinforcement learning."""
        if collapses and config.collapse == "rollback" and not checkpoints.best:
            raise InputError("guards.collapse=rollback: expected checkpoints.best to name what is best; set it")
        self.config = config
        self.limits = [_limit(text) for text in config.limits] if collapses else []
        own = [name for name, _, _, text in self.limits if text not in GuardConfig().limits]
        self.named = [name for name in own if not name.startswith("accuracy/")]
        """What limits that were set are on, and every row has: some kinds of rows are missing from a step, and so is
        the default's KL where there is none."""
        self.best = Best(checkpoints.best if collapses and config.drop > 0 else "")
        self.kept: set[str] = set()
        self.counts: Counter[str] = Counter()
        self.change = 0.0
        self._weights: list[tuple[str, Tensor]] = []

    def check(self) -> None:
        """Raise NonFinite where a watched weight is not finite: before a step, which would only spread it."""
        if self.config.finite and self._weights:
            _check(self._weights, "weights")

    def watch(self, watched: Watched) -> Guard:
        """Look at every update of each optimizer; the guard itself."""
        for optimizer, module in watched:
            self._watch(optimizer, module)
        return self

    def _watch(self, optimizer: torch.optim.Optimizer, module: torch.nn.Module) -> None:
        named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
        self._weights += named
        before: list[Tensor] = []

        def look(*_: Any) -> None:
            if self.config.finite:
                _check(((name, p.grad) for name, p in named if p.grad is not None), "gradient")
            before[:] = [_probe(p for _, p in named)]

        def compare(*_: Any) -> None:
            if self.config.finite:
                _check(named, "weights")
            self.change = max(self.change, float((_probe(p for _, p in named) - before[0]).abs().max()))

        optimizer.register_step_pre_hook(look)
        optimizer.register_step_post_hook(compare)

    def measured(self) -> dict[str, float]:
        """``weight_change``: the most that a probe of the weights has moved since this was last asked."""
        change, self.change = self.change, 0.0
        return {"weight_change": max(ranks.everyone(change))}

    def see(self, row: Row) -> None:
        """Hold a row against the rules. Raises Halted with a diagnosis, or Collapsed."""
        self._see_names(row)
        if row["step"] > 0:
            self._see_silence(row)
        gap = row.get("logp_gap")
        if self.config.logp_gap and gap is not None and gap > self.config.logp_gap:
            raise Halted(
                f"step {row['step']}: trainer and sampler differ by {gap:.3g} nats on a token, allowed "
                f"{self.config.logp_gap:g} (guards.logp_gap): they do not run the same model; compare their "
                "model.precision and rl.temperature"
            )
        for name, keeps, bound, text in self.limits:
            if name in row:
                good = row[name] is not None and keeps(row[name], bound)
                self._collapse(text, good, f"{name} is {row[name]} at step {row['step']}, the limit is {text}")
        best, value = self.best, row.get(self.best.name)
        if value is not None:
            lost = max(LEAST_DROP, self.config.drop * abs(best.value)) if best.step is not None else math.inf
            was = f"it was {best.sign * best.value:.4g} at step {best.step}"
            said = f"{best.name} is {value:.4g} at step {row['step']}, {was}"
            self._collapse("drop", best.sign * value >= best.value - lost, said)
            best.see(row)

    def _see_names(self, row: Row) -> None:
        """Limits that were set are to be on numbers of the log: of validations, or of steps that made an update."""
        for name in self.named:
            if any(key.startswith("eval/") for key in row) if name.startswith("eval/") else "grad_norm" in row:
                require("guards.limits", name, row)

    def _see_silence(self, row: Row) -> None:
        step, flat, still = row["step"], self.config.flat_steps, self.config.still_steps
        if "zero_variance" in row and self._streak("flat", row["zero_variance"] != 1.0) == flat > 0:
            raise Halted(
                f"step {step}: in {flat} steps no group had two different rewards (guards.flat_steps), so nothing was "
                f"learned; the mean reward is {row.get('reward')}, malformed {row.get('malformed')}: train the start "
                "longer (sft.steps), or raise rl.group or rl.temperature, or choose a reward that tells answers apart"
            )
        if self._streak("gradient", row.get("grad_norm") != 0.0) == still > 0:
            raise Halted(
                f"step {step}: {still} steps in a row had a gradient of exactly zero (guards.still_steps); nothing "
                "that is trained has an effect on the loss: look at rl.advantage, clipping and the rewards"
            )
        if "weight_change" in row and self._streak("weights", row["weight_change"] != 0.0) == still > 0:
            raise Halted(
                f"step {step}: {still} steps in a row left the weights unchanged (guards.still_steps); the learning "
                f"rate is {row.get('learning_rate')}: raise it, or look at rl.drop_zero_variance and zero_variance"
            )

    def _streak(self, name: str, ends: bool) -> int:
        self.counts[name] = 0 if ends else self.counts[name] + 1
        return self.counts[name]

    def _collapse(self, name: str, good: bool, said: str) -> None:
        """A limit counts from when it was first kept: an untrained model is no collapsed one."""
        if good:
            self.kept.add(name)
        if self._streak(name, good or name not in self.kept) >= self.config.patience:
            raise Collapsed(f"{said} ({self.config.patience} in a row, guards.patience)")


def _limit(text: str) -> tuple[str, Callable[[float, float], bool], float, str]:
    match = _LIMIT.fullmatch(text)
    with contextlib.suppress(ValueError):
        if match:
            return match[1], operator.le if match[2] == "<=" else operator.ge, float(match[3]), text
    raise InputError(f"guards.limits: expected a metric, <= or >=, and a number, as in kl<=20, got {text!r}")


def _check(named: Iterable[tuple[str, Tensor]], site: str) -> None:
    """One reading of the device for all: the largest size of a tensor is not finite where one of its numbers is not."""
    names, tensors = zip(*named, strict=True)  # an optimizer steps when there are gradients
    finite = torch.isfinite(torch.stack([local(t.detach()).abs().amax().float() for t in tensors])).tolist()
    if any(isinstance(t, DTensor) for t in tensors):  # what one rank finds in its share stops all
        finite = [all(told) for told in zip(*ranks.everyone(finite), strict=True)]
    if bad := [name for name, good in zip(names, finite, strict=True) if not good]:
        raise NonFinite(f"{site} not finite in {len(bad)} of {len(names)} parameters, such as {bad[0]}")


def _probe(parameters: Iterable[Tensor]) -> Tensor:
    own = (local(p.detach()) for p in parameters)
    return torch.cat([p.flatten()[:: max(1, p.numel() // _PROBE)][:_PROBE].float() for p in own])
