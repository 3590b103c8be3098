"""``python -m benchmarks --cost``: what a GRPO step costs as prompts, group and length are doubled thrice.

Each size is timed in turn, round after round, and the quickest of its steps counts, in seconds of the processor: other
work on the machine adds little to them. Nothing but attention may grow faster than the tokens that are read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from rich.progress import track

from benchmarks.own import stage_of, timed
from benchmarks.work import Shape
from rlvr_world.config import what
from rlvr_world.evaluation.tables import markdown
from rlvr_world.system.files import write_whole
from rlvr_world.system.memory import keep_memory

AXES = {"prompts": ("prompts",), "group": ("group",), "length": ("prompt", "response")}
"""What is doubled, and the fields of a shape that it stands for."""


@dataclass(frozen=True)
class CostConfig:
    prompts: int = what(4, "prompts of the smallest step", "prompts")
    group: int = what(4, "rollouts a prompt of the smallest step", "rollouts")
    prompt: int = what(96, "tokens of a prompt of the smallest step", "tokens")
    response: int = what(32, "tokens of a response of the smallest step", "tokens")
    doublings: int = what(3, "how often each of them is doubled", "times")
    rounds: int = what(4, "steps of each size, of which the quickest counts", "steps")
    threads: int = what(1, "threads", "threads")
    precision: Literal["float32", "bfloat16"] = what("float32", "of the forwards")


def run(config: CostConfig, out: Path | None) -> None:
    """Time every size and print the table; where asked, write it and a plot into the folder ``out``."""
    keep_memory()
    torch.set_num_threads(config.threads)
    smallest = Shape(config.prompts, config.prompt, config.response, config.group)
    sizes = [(axis, 2**n) for axis in AXES for n in range(config.doublings + 1)]
    stages = [stage_of(larger(smallest, axis, times), config.precision, 4096) for axis, times in sizes]
    steps: list[list[dict[str, Any]]] = [[] for _ in stages]
    for number in track(range(config.rounds), "cost"):
        for stage, done in zip(stages, steps, strict=True):
            done.append(timed(stage, number))
    rows = [{"axis": axis, "times": times, **quickest(done)} for (axis, times), done in zip(sizes, steps, strict=True)]
    print(table(rows))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_whole(out / "cost.json", json.dumps({"config": asdict(config), "rows": rows}, indent=1))
        _plot(rows, out / "cost.png")


def larger(shape: Shape, axis: str, times: int) -> Shape:
    """The shape with one of ``AXES`` so many times as large."""
    return replace(shape, **{name: times * getattr(shape, name) for name in AXES[axis]})


def quickest(steps: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Processor seconds and tokens of the step that took the fewest seconds a token: rollouts can end early."""
    best = min(steps, key=lambda step: step["cpu"] / step["tokens"])
    return {"cpu": best["cpu"], "tokens": best["tokens"]}


def exponents(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """By axis, to which power of the tokens the seconds grow over the last doubling, where fixed costs are least."""
    found = {}
    for axis in AXES:
        before, last = [row for row in rows if row["axis"] == axis][-2:]
        found[axis] = math.log(last["cpu"] / before["cpu"]) / math.log(last["tokens"] / before["tokens"])
    return found


def table(rows: Sequence[dict[str, Any]]) -> str:
    """In Markdown, with the growth from each size to the next."""
    lines = [["size", "tokens", "CPU s a step", "seconds grow", "tokens grow"]]
    for before, row in zip([None, *rows], rows, strict=False):
        grown = ["", ""]
        if before is not None and before["axis"] == row["axis"]:
            grown = [f"{row[of] / before[of]:.2f}" for of in ("cpu", "tokens")]
        lines.append([f"{row['axis']} × {row['times']}", f"{row['tokens']:,}", f"{row['cpu']:.2f}", *grown])
    powers = ", ".join(f"{power:.2f} ({axis})" for axis, power in exponents(rows).items())
    return "\n".join([markdown(lines), "", f"Over the last doubling seconds grow as tokens to the power of {powers}."])


def _plot(rows: Sequence[dict[str, Any]], file: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for axis in AXES:
        along = [row for row in rows if row["axis"] == axis]
        axes.loglog([r["tokens"] for r in along], [r["cpu"] for r in along], "o-", label=f"{axis} doubled")
    ends = [min(r["tokens"] for r in rows), max(r["tokens"] for r in rows)]
    axes.loglog(ends, [rows[0]["cpu"] * n / rows[0]["tokens"] for n in ends], "k:", label="as the tokens")
    axes.set(xlabel="tokens that the forwards of a step read", ylabel="CPU seconds a step")
    axes.legend()
    figure.savefig(file, dpi=110)
