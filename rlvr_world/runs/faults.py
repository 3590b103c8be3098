"""What a step that failed leaves behind: a folder from which one command makes it fail again.

RUN/faults/rl-seed0-000012/      model and optimizer as they were before the update that was not made
    fault.json                   the stage, the step, what was said
    rollouts.jsonl.gz            RL, where the step had made updates already: what it was learning from
"""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any, Protocol

import torch

from rlvr_world.runs.checkpoints import Counters, State, publish
from rlvr_world.training.grpo import GRPO, Pending
from rlvr_world.runs.guards import Guard
from rlvr_world.runs.records import from_json, to_json
from rlvr_world.types import Score

FAULT = "fault.json"
ROLLOUTS = "rollouts.jsonl.gz"


class Steps(Protocol):
    def step(self, step: int, progress: float) -> tuple[dict[str, float], int]: ...


def write_fault(
    run: Path, stage: Steps, state: State, name: str, counters: Counters, progress: float, error: Exception
) -> Path:
    """Write the folder of a step that raised ``error``; where it is."""
    final = run / "faults" / f"{name.replace('/', '-')}-{counters.step:06d}"
    partial = final.with_name(f".partial-{final.name}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    state.save(partial)
    said: dict[str, Any] = {"stage": name, "step": counters.step, "progress": progress, "said": str(error)}
    if isinstance(stage, GRPO) and stage.pending is not None:
        said["part"] = stage.pending.part
        rows = stage.prompts(counters.step)
        lines = [
            json.dumps({"group": g, **to_json(rollout, row, Score(reward))}) + "\n"
            for g, (row, group) in enumerate(zip(rows, stage.pending.groups, strict=True))
            for rollout, reward in zip(group, stage.pending.rewards_BG[g].tolist(), strict=True)
        ]
        (partial / ROLLOUTS).write_bytes(gzip.compress("".join(lines).encode(), mtime=0))
    (partial / FAULT).write_text(json.dumps(said, indent=1))
    publish(partial, final)
    return final


def repeat(fault: Path, stage: Steps, state: State, guard: Guard) -> Exception | None:
    """Do the step of such a folder again, with the stage as it was opened; what it raises, None where it does not."""
    said = json.loads((fault / FAULT).read_text())
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
    for line in gzip.decompress((fault / ROLLOUTS).read_bytes()).splitlines():
        kept = json.loads(line)
        groups[kept["group"]].append(from_json(kept, scripts[kept["group"]]))
        rewards[kept["group"]].append(kept["value"])
    return Pending(groups, torch.tensor(rewards, dtype=torch.float64), said["part"])
