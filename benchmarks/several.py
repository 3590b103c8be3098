"""``torchrun --nproc-per-node N -m benchmarks --ranks``: the same GRPO step by one process and by all of them, in turn.

While one process works the others wait. Each rank holds the whole model and samples, scores and learns from its share
of the prompts; the seconds of the clock say what that is worth here, and those of all processors what it costs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch

from benchmarks.own import stage_of, timed
from benchmarks.work import SHAPES
from rlvr_world.config import what
from rlvr_world.errors import InputError
from rlvr_world.evaluation.tables import markdown
from rlvr_world.system import ranks
from rlvr_world.system.files import write_whole
from rlvr_world.system.memory import keep_memory
from rlvr_world.training.grpo import GRPO


@dataclass(frozen=True)
class RanksConfig:
    shapes: tuple[str, ...] = what(("short", "video", "text"), f"workloads, of {', '.join(SHAPES)}")
    pairs: int = what(3, "steps by one process and by all, after one of each that does not count", "steps")
    threads: int = what(1, "threads of each process", "threads")
    precision: Literal["float32", "bfloat16"] = what("float32", "of the forwards")
    forward_tokens: int = what(4096, "tokens packed into one forward", "tokens")


def run(config: RanksConfig, out: Path | None) -> None:
    """Time every shape and print the table; where asked, write it with every step as JSON.

    Raises InputError for an unknown shape, and for a single process."""
    if unknown := [s for s in config.shapes if s not in SHAPES]:
        raise InputError(f"shapes: expected some of {', '.join(SHAPES)}, got {unknown[0]}")
    keep_memory()
    torch.set_num_threads(config.threads)
    with ranks.joined("cpu"):
        if ranks.size() == 1:
            raise InputError("--ranks: expected several processes, got one; torchrun --nproc-per-node 2 -m benchmarks")
        results = [compare(config, shape) for shape in config.shapes]
        if ranks.first():
            print(table(results))
            if out is not None:
                write_whole(out, json.dumps({"config": asdict(config), "results": results}, indent=1))


def compare(config: RanksConfig, shape: str) -> dict[str, Any]:
    """Steps of one process and of all in turn, each from the same start and on the same prompts."""
    alone, together = (stage_of(SHAPES[shape], config.precision, config.forward_tokens) for _ in range(2))
    pairs = []
    for step in range(1 + config.pairs):
        with ranks.first_ahead():
            one = timed(alone, step) if ranks.first() else {}
        pairs.append((ranks.everyone(one)[0], _by_all(together, step)))
    return {"shape": shape, "ranks": ranks.size(), "steps": pairs[1:]}


def _by_all(stage: GRPO, step: int) -> dict[str, Any]:
    """A step of all ranks: seconds of the slowest by the clock, of all together by their processors."""
    parts = ranks.everyone(timed(stage, step))
    wall, cpu = max(p["wall"] for p in parts), sum(p["cpu"] for p in parts)
    return {"wall": wall, "cpu": cpu, "tokens": parts[0]["tokens"], "memory": max(p["memory"] for p in parts)}


def table(results: Sequence[dict[str, Any]]) -> str:
    """One line a shape; ratios are of neighbouring steps, their median and range."""
    rows = []
    for result in results:
        one, several = zip(*result["steps"], strict=True)
        ratios = sorted(a["wall"] / b["wall"] for a, b in result["steps"])
        seconds = [f"{median(s[of] for s in side):.2f}" for of in ("wall", "cpu") for side in (one, several)]
        faster = f"{median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        rows.append([result["shape"], f"{several[0]['tokens']:,}", *seconds, faster])
    several = f"{results[0]['ranks']} ranks"
    heads = ["shape", "tokens", "s, one process", f"s, {several}", "CPU s, one", f"CPU s, {several}", "times as fast"]
    return markdown([heads, *rows])
