"""Rows scored in a second, both scorings together: ``python tests/domains/text_game/bench_scoring.py [ROWS_FILE]``."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from rlvr_world.domains.text_game.answer import read_prediction
from rlvr_world.domains.text_game.prompt import build_answer
from rlvr_world.domains.text_game.rows import read_rows
from rlvr_world.domains.text_game.scoring import score_answer

SHARED = Path(__file__).resolve().parents[3] / "../shared/data/bytesized32/test.jsonl.gz"


def main(path: str | Path) -> None:
    rows = read_rows(path)
    right = [build_answer(row, marker=True) for row in rows]
    unchanged = ["The final answer is: " + '{"modified": [], "removed": [], "score": {}}'] * len(rows)
    for name, answers in (("right answers", right), ("no change", unchanged)):
        start = time.perf_counter()
        for row, text in zip(rows, answers, strict=True):
            score_answer(read_prediction(text), row, "task_specific")
        seconds = time.perf_counter() - start
        print(f"{name}: {len(rows) / seconds:,.0f} rows/s ({len(rows)} rows, parse + strict + published)")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else SHARED)
