"""Many RL steps of a tiny run, and the memory that the process holds while it makes them.

    python tests/e2e/soak.py --steps 500

Fails where the last fifth of the steps holds over 2 % more than the second fifth (the first is warming up).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean
from typing import Any

if __name__ == "__main__":
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}

from rlvr_world.overrides import override
from rlvr_world.recipes import find
from rlvr_world.runs import runner
from rlvr_world.training.grpo import GRPO

TINY = """data.env.games=1 data.env.rows_per_game=40 data.max_prompt=2000 data.max_response=24 threads=1
model.vocabulary=320 model.layers=2 model.hidden=64 model.heads=2 model.device=cpu model.precision=float32 sft.steps=20
sft.batch=8 sft.eval_every=0 rl.prompts=4 rl.group=4 rl.save_every=50 rl.eval_every=50 rl.drop_zero_variance=false
control.enabled=false eval.rows=4 eval.valid_rows=4 guards.flat_steps=0 guards.still_steps=0"""


def resident() -> float:
    """MB of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=500)
    steps = parser.parse_args().steps
    held: list[float] = []
    step = GRPO.step

    def measured(self: GRPO, number: int, progress: float) -> Any:
        result = step(self, number, progress)
        held.append(resident())
        return result

    GRPO.step = measured  # type: ignore[method-assign]
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        settings = [*TINY.split(), f"rl.steps={steps}", f"data.cache={folder}/cache"]
        runner.train(override(find("demo").config(), settings), Path(folder) / "run")
    fifth = steps // 5
    parts = [mean(held[i * fifth : (i + 1) * fifth]) for i in range(5)]
    growth = parts[4] / parts[1] - 1
    print("resident memory by fifths of the steps, MB: " + ", ".join(f"{part:.1f}" for part in parts))
    print(f"{len(held)} RL steps in {time.monotonic() - started:.0f} s, growth {growth:+.2%}")
    return 0 if abs(growth) <= 0.02 else 1


if __name__ == "__main__":
    sys.exit(main())
