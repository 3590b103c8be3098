"""What a step that failed leaves behind: a folder from which one command makes it fail again.

RUN/faults/rl-seed0-000012/      model and optimizer as they were before the update that was not made; of a bug none
    fault.json                   the stage, the step, what was said
    rollouts.jsonl.gz            RL, where the step had made updates already: what it was learning from
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch

from rlvr_world.errors import NonFinite
from rlvr_world.runs.checkpoints import Counters, State, fresh, publish
from rlvr_world.runs.guards import Guard
from rlvr_world.runs.records import described, packed_lines, read_lines
from rlvr_world.system import ranks
from rlvr_world.training.grpo import GRPO, Pending
from rlvr_world.training.optimizer import TRAINER
from rlvr_world.training.shared import from_json
from rlvr_world.types import Score

FAULT = "fault.json"
ROLLOUTS = "rollouts.jsonl.gz"


def write_fault(
    run: Path, stage: object, state: State, name: str, counters: Counters, progress: float, error: Exception
) -> Path:
    """Write the folder of a step that raised ``error``; where it is. Of ranks that all fail the quickest writes it."""
    final = run / "faults" / f"{name.replace('/', '-')}-{counters.step:06d}"
    partial, numbers = final.with_name(f".partial-{final.name}"), isinstance(error, NonFinite)
    if ranks.size() == 1:
        fresh(partial)
    elif not _quickest(partial):
        return final
    if numbers and not state.sharded:  # the weights are why; of a bug they would be gigabytes that say nothing
        state.save(partial)
    said: dict[str, Any] = {"stage": name, "step": counters.step, "progress": progress, "said": str(error)}
    if numbers and isinstance(stage, GRPO) and stage.pending is not None:
        said["part"], rewards = stage.pending.part, stage.pending.rewards_BG.tolist()
        rows = [
            {"group": g, **described(rollout, row, Score(reward))}
            for g, (row, group) in enumerate(zip(stage.prompts(counters.step), stage.pending.groups, strict=False))
            for rollout, reward in zip(group, rewards[g], strict=True)
        ]
        (partial / ROLLOUTS).write_bytes(packed_lines(rows))
    (partial / FAULT).write_text(json.dumps(said, indent=1))
    publish(partial, final)
    return final


def _quickest(partial: Path) -> bool:
    """Whether this rank is the first to make the folder; if not, it waits until the folder has its name."""
    partial.parent.mkdir(exist_ok=True)
    try:
        partial.mkdir()
    except FileExistsError:
        while partial.exists():
            time.sleep(0.1)
        return False
    return True


def repeat(fault: Path, stage: Any, state: State, guard: Guard) -> Exception | None:
    """Do the step of such a folder again, with the stage as it was opened; what it raises, None where it does not."""
    said = json.loads((fault / FAULT).read_text())
    if (fault / TRAINER).exists():
        state.restore(fault)
    try:
        guard.check()
        if isinstance(stage, GRPO) and said.get("part"):
            stage.learn_on(_pending(fault, stage, said), said["progress"])
        else:
            stage.step(said["step"], said["progress"])
    except (ArithmeticError, RuntimeError) as error:
        return error
    return None


def _pending(fault: Path, stage: GRPO, said: dict[str, Any]) -> Pending:
    scripts = [stage.domain.encode(row) for row in stage.prompts(said["step"])]
    groups: list[list[Any]] = [[] for _ in scripts]
    rewards: list[list[float]] = [[] for _ in scripts]
    for kept in read_lines(fault / ROLLOUTS):
        groups[kept["group"]].append(from_json(kept, scripts[kept["group"]]))
        rewards[kept["group"]].append(kept["value"])
    sampled = len(list(filter(None, groups)))  # of the batches that the step was allowed
    return Pending(groups[:sampled], torch.tensor(rewards[:sampled], dtype=torch.float64), said["part"])
