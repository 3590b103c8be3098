"""A thirtieth of ``server_load.py``; docs/serving.md has what all of it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("textworld", reason="its games come from TextWorld: pip install 'rlvr-world[textgame]'")
pytest.importorskip("uvicorn", reason="pip install 'rlvr-world[serve]'")


@pytest.mark.slow
def test_nothing_is_lost_doubled_or_broken() -> None:
    script = Path(__file__).with_name("server_load.py")
    sizes = ["--sessions", "16", "--steps", "320", "--noise", "3200"]
    done = subprocess.run(
        [sys.executable, str(script), *sizes], capture_output=True, text=True, timeout=300, check=False
    )
    steps, memory, noise, ended = done.stdout.splitlines() or [done.stderr] * 4
    assert steps.startswith("320 steps")
    assert steps.endswith(" 0 wrong")
    assert float(memory.split()[-2]) < 10, "so few steps still fill caches"
    assert noise.endswith(": 0 broken, 0 lines of errors")
    assert ended.startswith("SIGTERM: ended")
