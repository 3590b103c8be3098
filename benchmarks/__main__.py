"""``python -m benchmarks a=b ... [--out FILE]``: the engine against its peers, at the same work; with ``--cost`` by
itself, at work that grows, with ``--ranks`` under torchrun by one process and by several."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks import cost, run, several
from rlvr_world.errors import InputError
from rlvr_world.overrides import describe, override


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Time a GRPO step of this engine and of others in turn, at the same work.",
        epilog=f"settings:\n{describe(run.BenchConfig())}\n\nwith --cost:\n{describe(cost.CostConfig())}"
        f"\n\nwith --ranks:\n{describe(several.RanksConfig())}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("settings", metavar="a=b", nargs="*", help="settings of the benchmark")
    parser.add_argument("--cost", action="store_true", help="this engine alone, prompts, group and length doubled")
    parser.add_argument("--ranks", action="store_true", help="this engine by one process and, under torchrun, several")
    parser.add_argument("--out", metavar="PLACE", type=Path, help="a file for every step, as JSON; a folder for --cost")
    args = parser.parse_args()
    try:
        if args.cost:
            cost.run(override(cost.CostConfig(), args.settings), args.out)
        elif args.ranks:
            several.run(override(several.RanksConfig(), args.settings), args.out)
        else:
            run.run(override(run.BenchConfig(), args.settings), args.out)
    except InputError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    return 0


raise SystemExit(main())
