"""What is kept of steps, so that it can be looked at and made again: of each RL step some rollouts, the extremes and a
sample; of a step that failed a folder from which one command makes it fail again.

    RUN/rl/seed0/rollouts/000012.jsonl.gz      one rollout a line, with its id: step/group/number
    RUN/faults/rl-seed0-000012/      model and optimizer as they were before the update that was not made; of a bug none
        fault.json                   the stage, the step, what was said
        rollouts.jsonl.gz            RL, where the step had made updates already: what it was learning from

The rollouts of a stage are bounded: when they outgrow ``record.megabytes``, those of every other step go. What is kept
is a function of the rollouts alone, so that a run that was killed keeps the same bytes.
"""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rlvr_world.config import RecordConfig
from rlvr_world.errors import InputError, NonFinite
from rlvr_world.runs.checkpoints import Counters, State, fresh, publish
from rlvr_world.runs.guards import Guard
from rlvr_world.system import ranks
from rlvr_world.system.files import write_whole
from rlvr_world.training.grpo import GRPO, Pending, Rollouts, Scores
from rlvr_world.training.optimizer import TRAINER
from rlvr_world.training.shared import from_json, to_json
from rlvr_world.types import Rollout, Score, Transition

FOLDER, STRIDE = "rollouts", "stride.json"
FAULT = "fault.json"
ROLLOUTS = "rollouts.jsonl.gz"


class Recorder:
    """Keeps some rollouts of every step of one stage."""

    def __init__(self, stage: Path, config: RecordConfig, seed: int) -> None:
        self.folder, self.config, self.seed = stage / FOLDER, config, seed
        stored = self.folder / STRIDE
        self.stride: int = json.loads(stored.read_text()) if stored.exists() else 1
        self._thin()  # a killed run may have been in the middle of it

    def keep(self, step: int, transitions: Sequence[Transition], groups: Rollouts, scores: Scores) -> None:
        """Write the chosen rollouts of a step; one transition a group."""
        if step % self.stride or not self.config.extremes + self.config.sample:
            return
        flat = [(g, i) for g, group in enumerate(groups) for i in range(len(group))]
        values = [scores[g][i].value for g, i in flat]
        kept = [flat[n] for n in chosen(values, self.config, [self.seed, step])]
        rows = [{"id": f"{step}/{g}/{i}", **described(groups[g][i], transitions[g], scores[g][i])} for g, i in kept]
        file = self.folder / f"{step:06d}.jsonl.gz"
        self._bytes -= file.stat().st_size if file.exists() else 0
        write_whole(file, packed_lines(rows))
        self._bytes += file.stat().st_size
        while self._bytes > self.config.megabytes * 1e6 and len(self._files()) > 1:
            self.stride *= 2
            write_whole(self.folder / STRIDE, json.dumps(self.stride))
            self._thin()

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("*.jsonl.gz"))

    def _thin(self) -> None:
        for file in self._files():
            if int(file.name.partition(".")[0]) % self.stride:
                file.unlink()
        self._bytes = sum(file.stat().st_size for file in self._files())


def read_kept(stage: Path, step: int) -> dict[str, dict[str, Any]]:
    """The kept rollouts of a step by id; empty where none are."""
    file = stage / FOLDER / f"{step:06d}.jsonl.gz"
    return {row["id"]: row for row in read_lines(file)} if file.exists() else {}


def packed_lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """JSON lines, compressed; the same rows give the same bytes."""
    return gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode(), mtime=0)


def read_lines(file: Path) -> list[dict[str, Any]]:
    """The counterpart of ``packed_lines``. Raises InputError where the file does not read."""
    try:
        return [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]
    except (EOFError, OSError, ValueError) as error:
        raise InputError(f"{file}: expected kept rollouts, got what does not read ({error}); delete it") from error


def chosen(values: Sequence[float], config: RecordConfig, seed: Sequence[int]) -> list[int]:
    """Which of the rollouts with these rewards are kept, in order: lowest, highest, and a sample of the others."""
    order = sorted(range(len(values)), key=lambda n: (values[n], n))
    extremes = {*order[: config.extremes], *order[len(order) - config.extremes :]}
    others = [n for n in range(len(values)) if n not in extremes]
    drawn = np.random.default_rng(seed).choice(len(others), min(config.sample, len(others)), replace=False)
    return sorted(extremes | {others[n] for n in drawn.tolist()})


def described(rollout: Rollout, row: Transition, score: Score) -> dict[str, Any]:
    """A rollout as it is kept: its row and its score, then all that ``from_json`` reads."""
    scored = {"value": score.value, "parts": dict(score.parts), "malformed": score.malformed}
    return {"row": row.id, **scored, **to_json(rollout)}


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
    """Do the step of such a folder again, with the stage as it was opened; what it raises, None where it does not. From
    the update that failed on or, where rollouts begin in imagination, which is not kept, from its start."""
    said = json.loads((fault / FAULT).read_text())
    if (fault / TRAINER).exists():
        state.restore(fault)
    try:
        guard.check()
        if isinstance(stage, GRPO) and said.get("part") and not stage.closed_loop:
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
