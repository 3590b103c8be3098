"""What damaged answers earn, by the paper's formula and by ours, over the changed rows of a file.

python tests/domains/text_game/damaged_answers.py rows/test.jsonl.gz
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from statistics import mean
from typing import Any

from rlvr_world.domains.text_game.answer import read_prediction
from rlvr_world.domains.text_game.prompt import build_answer
from rlvr_world.domains.text_game.rows import read_rows
from rlvr_world.domains.text_game.scoring import reward_value, score_strict
from rlvr_world.types import Transition

Answer = dict[str, Any]


def _others(row: Transition, answer: Answer) -> list[dict[str, Any]]:
    """The objects that the right answer leaves alone."""
    named = {*answer["removed"], *(obj["uuid"] for obj in answer["modified"])}
    return [obj for obj in row.state.objects if obj["uuid"] not in named]


DAMAGE: dict[str, Callable[[Transition, Answer], Answer]] = {
    "right": lambda row, a: a,
    "and one name wrong": lambda row, a: {
        **a, "modified": [*a["modified"], *({**obj, "name": "x"} for obj in _others(row, a)[:1])]
    },
    "and every other name wrong": lambda row, a: {
        **a, "modified": [*a["modified"], *({**obj, "name": "x"} for obj in _others(row, a))]
    },
    "and everything else deleted": lambda row, a: {
        **a, "removed": [*a["removed"], *(obj["uuid"] for obj in _others(row, a))]
    },
    "only the first object of it": lambda row, a: {**a, "modified": a["modified"][:1], "removed": []},
    "nothing changes": lambda row, a: {"modified": [], "removed": [], "score": {}},
}  # fmt: skip


def main(path: str) -> None:
    rows = [row for row in read_rows(path) if row.kind == "changed"]
    print("| answer | paper's formula | strict |\n|---|--:|--:|")
    for name, damage in DAMAGE.items():
        paper, strict = [], []
        for row in rows:
            answer = damage(row, json.loads(build_answer(row, marker=False)))
            parts = score_strict(read_prediction(json.dumps(answer)).diff, row)
            strict.append(reward_value(parts, "task_specific"))
            paper.append(reward_value({**parts, "changes": parts["changed"]}, "task_specific"))
        print(f"| {name} | {mean(paper):.3f} | {mean(strict):.3f} |")


if __name__ == "__main__":
    main(sys.argv[1])
