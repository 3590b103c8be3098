"""``python -m benchmarks a=b ... [--out FILE]``: the engine against its peers, at the same work."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.run import BenchConfig, run
from rlvr_world.errors import InputError
from rlvr_world.overrides import describe, override


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Time a GRPO step of this engine and of others in turn, at the same work.",
        epilog=f"settings:\n{describe(BenchConfig())}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("settings", metavar="a=b", nargs="*", help="settings of the benchmark")
    parser.add_argument("--out", metavar="FILE", type=Path, help="write every step here, as JSON")
    args = parser.parse_args()
    try:
        run(override(BenchConfig(), args.settings), args.out)
    except InputError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    return 0


raise SystemExit(main())
