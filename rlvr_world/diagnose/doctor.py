"""Before the first expensive hour: would RL learn anything from this start, and what would it cost?

A few hundred prompts are sampled as RL would sample them; what is found is held against fixed limits, each with the
field that changes it. Then one step is really done, for its time and memory.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from rlvr_world import recipes
from rlvr_world.config import Config
from rlvr_world.errors import InputError
from rlvr_world.models.loading import world_of
from rlvr_world.runs.jobs import after_sft, learner_and_domain
from rlvr_world.scoring import judge
from rlvr_world.training.grpo import GRPO, Rollouts, Scores
from rlvr_world.types import Finding

FLAT, MALFORMED, UNFINISHED = 0.9, 0.5, 0.3
"""Above these shares it is a no-go."""


def doctor(config: Config, model: str = "", prompts: int = 200) -> tuple[bool, str]:
    """Whether to go, and a table with the reasons; ``model`` is where RL starts, by default ``config.model.source``.
    Raises InputError for a start with random weights."""
    source = model or config.model.source
    if source == "scratch":
        first = "train sft first (rl.steps=0), then name the run or its checkpoint with --model"
        raise InputError(f"recipe {config.recipe}: RL would start from random weights here; {first}")
    recipe = recipes.find(config.recipe)
    splits = recipe.splits(config)
    learner, domain = learner_and_domain(recipe, after_sft(config), source, world_of(source), config.rl.optimizer)
    epoch = partial(splits.rl_epoch, config.seed)
    once = min(prompts, len(epoch(0)))
    many = replace(config.rl, prompts=once, dynamic_sampling=0, kl=0.0)  # sampling alone needs no reference
    stage = GRPO(learner, many, domain, epoch, config.seed)
    rows, groups, _ = stage.rollouts(0)
    judged = list(judge(domain, [[rollout.written for rollout in group] for group in groups], rows))
    scores = [[one for _, one in group] for group in judged]
    found = [*_rewards(scores), *_lengths(groups), *recipe.findings(domain, rows, judged)]
    found += _cost(config, GRPO(learner, config.rl, domain, epoch, config.seed))
    return not any(one.advice for one in found), _text(config, len(rows), found)


def _rewards(scores: Scores) -> list[Finding]:
    values = np.array([[one.value for one in group] for group in scores])
    flat = float((np.ptp(values, axis=1) == 0).mean())
    bad = float(np.mean([bool(one.malformed) for group in scores for one in group]))
    spread = f"mean {values.mean():.4g}, in-group deviation {values.std(axis=1).mean():.4g}, best of group "
    finer = "nothing to learn from: more sft.steps, a larger rl.group or rl.temperature, or a finer data.reward"
    longer = "the start does not know the format: more sft.steps, or a larger data.max_response"
    return [
        Finding("reward", f"{spread}{values.max(axis=1).mean():.4g}"),
        Finding("groups without spread", f"{flat:.0%}", finer if flat > FLAT else ""),
        Finding("malformed", f"{bad:.0%}", longer if bad > MALFORMED else ""),
    ]


def _lengths(groups: Rollouts) -> list[Finding]:
    lengths = [len(rollout.ids) for group in groups for rollout in group]
    cut = float(np.mean([not rollout.finished for group in groups for rollout in group]))
    most = max(group[0].script.max_response for group in groups)
    low, middle, high = np.quantile(lengths, [0.05, 0.5, 0.95])
    longer = "answers are cut off and cannot be right: raise data.max_response, or more sft.steps"
    return [
        Finding("response length", f"5 % {low:.0f}, median {middle:.0f}, 95 % {high:.0f} tokens, allowed {most}"),
        Finding("cut off at the longest", f"{cut:.0%}", longer if cut > UNFINISHED else ""),
    ]


def _cost(config: Config, stage: GRPO) -> list[Finding]:
    """One step, done and thrown away."""
    device = stage.learner.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    started = time.perf_counter()
    stage.step(0, 0.5)
    seconds = time.perf_counter() - started
    if device.type == "cuda":
        memory = f"{torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB of GPU memory at most"
    else:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        memory = f"{most:.1f} GiB is the process's peak, sampling before it included"
    hours = seconds * config.rl.steps * len(config.rl.seeds) / 3600
    return [
        Finding("a step", f"{seconds:.1f} s, {memory}"),
        Finding("all of RL", f"{hours:.1f} h: {config.rl.steps} steps, {len(config.rl.seeds)} seeds, no validation"),
    ]


def _text(config: Config, prompts: int, found: Sequence[Finding]) -> str:
    lines = [f"{config.recipe}: {prompts} prompts, {config.rl.group} rollouts each\n", "| | | |", "|---|---|---|"]
    lines += [f"| {one.name} | {one.text} | {'NO: ' + one.advice if one.advice else 'ok'} |" for one in found]
    bad = [one.name for one in found if one.advice]
    return "\n".join([*lines, "", f"no-go: {', '.join(bad)}" if bad else "go"])
