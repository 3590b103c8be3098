"""``python -m benchmarks``: the same GRPO step through several engines, in turn, and how many times faster ours is.

Each engine works in a process of its own and does one step at a time on request, so that both sides of every pair
meet the same load of the machine. Ratios are of neighbouring steps; what is quoted is their median and range.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.work import SHAPES
from rlvr_world.config import what
from rlvr_world.errors import InputError
from rlvr_world.system.files import write_whole

Engine = Literal["own", "unshared", "trl"]
PHASES = ("rollout", "reward", "update")


@dataclass(frozen=True)
class BenchConfig:
    shapes: tuple[str, ...] = what(("short", "video", "text"), f"workloads, of {', '.join(SHAPES)}")
    against: tuple[Engine, ...] = what(("trl",), "what our engine is compared with: trl (extra peers), unshared")
    pairs: int = what(5, "alternating steps of each engine, after the warm-up", "steps")
    warmup: int = what(1, "steps of each engine that do not count", "steps")
    threads: int = what(2, "threads of each engine", "threads")
    precision: Literal["float32", "bfloat16"] = what("float32", "of every engine")
    forward_tokens: int = what(4096, "ours: tokens packed into one forward", "tokens")
    micro_batch: int = what(16, "trl: sequences of one forward", "sequences")


class Worker:
    """A process of one engine."""

    def __init__(self, config: BenchConfig, engine: str, shape: str) -> None:
        settings = {**asdict(config), "engine": engine, "shape": shape}
        threads = str(config.threads)
        inherited = {k: v for k, v in os.environ.items() if k != "GOMP_SPINCOUNT"}  # threads wait as torch has it
        self.engine = engine
        self.said = tempfile.TemporaryFile("w+")  # noqa: SIM115 (a pipe would fill up and stop the engine)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.engine", json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.said,
            text=True,
            env={**inherited, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "0"},
        )
        self.held = self._answer()["memory"]

    def step(self) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write("step\n")
        self.process.stdin.flush()
        return self._answer()

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()
        self.said.close()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.said.seek(0)
            why = self.said.read().strip().splitlines()
            raise InputError(f"bench: the engine {self.engine} stopped: {why[-1] if why else 'no reason given'}")
        return json.loads(line)


def run(config: BenchConfig, out: Path | None) -> None:
    """Run every shape against every peer, print the table, and write it with every step as JSON where asked."""
    unknown = [s for s in config.shapes if s not in SHAPES]
    if unknown:
        raise InputError(f"shapes: expected some of {', '.join(SHAPES)}, got {unknown[0]}")
    if "trl" in config.against and any(SHAPES[s].forced for s in config.shapes):
        raise InputError("shapes: TRL has no forced tokens; compare multi_step with against=unshared")
    results = [compare(config, shape, peer) for shape in config.shapes for peer in config.against]
    Console().print(_table(results))
    if out is not None:
        write_whole(out, json.dumps({"config": asdict(config), "results": results}, indent=1))


def compare(config: BenchConfig, shape: str, peer: str) -> dict[str, Any]:
    """Alternating steps of our engine and a peer; their medians, and the ratios of neighbours."""
    workers = [Worker(config, engine, shape) for engine in ("own", peer)]
    try:
        rounds = track(range(config.warmup + config.pairs), f"{shape} against {peer}")
        steps = [[w.step() for w in workers] for _ in rounds][config.warmup :]
    finally:
        for worker in workers:
            worker.stop()
    work = SHAPES[shape]
    tokens = work.prompts * work.group * work.response
    sides: dict[str, Any] = {
        w.engine: summary([pair[i] for pair in steps], w.held, tokens) for i, w in enumerate(workers)
    }
    ratios = {of: sorted(theirs[of] / ours[of] for ours, theirs in steps) for of in ("wall", "cpu")}
    return {"shape": shape, "peer": peer, "ratios": ratios, "engines": sides, "steps": steps}


def summary(steps: Sequence[dict[str, Any]], held: float, tokens: int) -> dict[str, float]:
    """Medians over steps; memory is the peak beyond what was held before the first step, in MiB."""
    result = {of: median(s[of] for s in steps) for of in ("wall", "cpu")}
    result |= {phase: median(s["phases"].get(phase, 0.0) for s in steps) for phase in PHASES}
    return {**result, "tokens_per_second": tokens / result["wall"], "memory": steps[-1]["memory"] - held}


def _table(results: Sequence[dict[str, Any]]) -> Table:
    table = Table("shape", "engine", "wall s", "CPU s", *(f"{p} s" for p in PHASES), "tokens/s", "peak MiB", "ratio")
    for result in results:
        for engine, side in result["engines"].items():
            shown = [side["wall"], side["cpu"], *(side[p] for p in PHASES)]
            wall, cpu = result["ratios"]["wall"], result["ratios"]["cpu"]
            ratio = f"{median(wall):.1f} ({wall[0]:.1f} to {wall[-1]:.1f}); CPU {median(cpu):.1f}"
            table.add_row(
                result["shape"],
                engine,
                *(f"{x:.2f}" for x in shown),
                f"{side['tokens_per_second']:.0f}",
                f"{side['memory']:.0f}",
                "1" if engine == "own" else ratio,
            )
    return table
