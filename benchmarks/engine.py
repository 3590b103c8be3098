"""One engine of the benchmark in a process of its own: a line on stdin asks for a step, a line of JSON answers.

``python -m benchmarks.engine SETTINGS``, the settings as JSON (``run.Settings``). A step's answer holds
``wall`` and ``cpu`` seconds of the whole step and wall seconds of its phases; the first line is the memory held
before any step, the last one the peak.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

Answer = dict[str, Any]


def main(settings: Answer) -> None:
    import torch

    torch.set_num_threads(settings["threads"])
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print must not look like an answer

    def say(answer: Answer) -> None:
        answers.write(json.dumps(answer) + "\n")

    if settings["engine"] == "trl":
        from benchmarks.peer import run
    else:
        from benchmarks.own import run
    run(settings, asked, say)


def asked() -> bool:
    """Waits for the next request; False when there is none."""
    return sys.stdin.readline() != ""


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
