"""A policy of LeRobot, trained and tried by LeRobot itself in an imagined drawer: the commands of docs/policies.md,
with small numbers. LEROBOT_PYTHON names the Python of the environment that the first of them makes.

LEROBOT_PYTHON=lerobot/bin/python pytest tests/policies/test_lerobot_plays.py
"""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from rlvr_world.cli import main
from tests.conftest import free_port
from tests.e2e.test_policy_eval import TINY

PYTHON = os.environ.get("LEROBOT_PYTHON", "")
ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="LEROBOT_PYTHON names no Python that has lerobot"),
    pytest.mark.skipif(find_spec("metaworld") is None, reason="metaworld is not installed"),
]
SMALLER = {"--steps=5000": "--steps=2", "n_episodes=40": "n_episodes=3", "batch_size=40": "batch_size=3"}


def commands(folder: Path) -> list[str]:
    """Of the page's section, a line each, at other ports."""
    page = (ROOT / "docs" / "policies.md").read_text()
    section = re.search(r"\n## LeRobot\n(.*?)\n## ", page, re.DOTALL)
    assert section is not None
    text = "".join(re.findall(r"```(?:sh|text)\n(.*?)```", section[1], re.DOTALL)).replace("\\\n", " ")
    for old, new in {"~/.cache/rlvr_world/video": f"{folder}/cache", "runs/drawer": f"{folder}/run", **SMALLER}.items():
        assert old in text
        text = text.replace(old, new)
    ports = {"8000": str(free_port()), "8001": str(free_port())}
    return re.sub(r"\b800[01]\b", lambda found: ports[found[0]], text).splitlines()


def env(folder: Path) -> dict[str, str]:
    """What a user's shell has, where both environments are on the path."""
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTEST_XDIST_WORKER")}
    own = Path(sys.executable).parent
    return clean | {"HF_HUB_OFFLINE": "1", "HOME": str(folder), "PATH": f"{own}:{clean['PATH']}"}


def run(command: str, folder: Path) -> str:
    asked = ["bash", "-c", command]
    done = subprocess.run(asked, cwd=folder, env=env(folder), capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout + done.stderr


@contextmanager
def beside(command: str, folder: Path) -> Iterator[None]:
    """While it serves."""
    port = int(re.findall(r"--port (\d+)", command)[0])
    serving = subprocess.Popen(shlex.split(command), cwd=folder, env=env(folder))
    try:
        for _ in range(1200):
            assert serving.poll() is None, f"ended: {command}"
            with socket.socket() as asked:
                if asked.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield
    finally:
        serving.terminate()
        serving.wait(30)


def test_the_commands_of_the_page(tmp_path: Path) -> None:
    (tmp_path / "lerobot").symlink_to(Path(PYTHON).absolute().parents[1])
    (tmp_path / "own.py").write_text("def green(frames):\n    return frames[..., 1].mean((1, 2)) > 110\n")
    settings = [f"data.cache={tmp_path}/cache", "data.env.length=8", *TINY.replace("=24", "=40").split()]
    assert main(["train", "drawer", "--out", str(tmp_path / "run"), *settings]) == 0
    serve, install, dataset, train, evaluate, policy, tried = commands(tmp_path)
    assert install.startswith("python3.12 -m venv lerobot && lerobot/bin/pip install")
    judge, port = f" --judge {tmp_path}/own.py:green", re.findall(r"http://127.0.0.1:(\d+)", evaluate)[0]
    assert re.search(r"\d+ of 20 episodes in demos", run(dataset, tmp_path))
    run(train, tmp_path)
    with beside(serve.split("#")[0] + f"--port {port}{judge}", tmp_path):
        run(f"{evaluate} --output_dir=evaluated", tmp_path)
    told = json.loads((tmp_path / "evaluated" / "eval_info.json").read_text())
    assert told["overall"]["n_episodes"] == 3
    assert 0 <= told["overall"]["pc_success"] <= 100
    assert len([*(tmp_path / "evaluated").rglob("*.mp4")]) == 3
    with beside(policy, tmp_path):
        run(f"{tried} --starts 3{judge}", tmp_path)
    report = json.loads((tmp_path / "run" / "policies" / "open" / "report.json").read_text())
    assert [*report["policies"]] == ["act", "random"]
    assert len(report["success"]["sft"][0]) == 3
