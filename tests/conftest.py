"""What every test stands on: no network, two threads (one where two processes test) that do not spin, and the data
folder beside the checkout."""

from __future__ import annotations

import gzip
import json
import os
import socket
from pathlib import Path
from typing import Any

# Before torch is imported anywhere: these are read once, and subprocesses inherit them.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
os.environ.setdefault("OMP_NUM_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else "2")
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["MPLBACKEND"] = "Agg"

import pytest
import torch
from hypothesis import HealthCheck, settings

settings.register_profile("shared machine", suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")  # how long an example takes to be drawn there says nothing of the code
torch.set_num_threads(min(2, int(os.environ["OMP_NUM_THREADS"])))


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder ``shared`` beside the checkout: real rows and reference outputs that the project does not ship."""
    folder = Path(__file__).resolve().parents[1].parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"no folder {folder}: it holds real rows and reference outputs that are not part of the project")
    return folder


def house_rows(count: int) -> list[dict[str, Any]]:
    """Rows in ByteSized32's layout: every other command opens a door, the others do nothing."""

    def state(shut: bool, action: str, count: int) -> dict[str, Any]:
        properties = {"isShut": shut, "knocks": count}
        door = {"name": "door (ID: 1)", "uuid": 1, "type": "Door", "properties": properties, "contains": []}
        agent = {"name": "agent (ID: 0)", "uuid": 0, "type": "Agent", "properties": {}, "contains": ["door (ID: 1)"]}
        texts = {"observation": "", "look": "", "inventory": "", "taskDesc": "Open the door."}
        return {**texts, "lastAction": action, "objects": [agent, door], "max_UUID": 2}

    score = {"score": 0, "gameOver": False, "gameWon": False}
    rows = []
    for number in range(count):
        action = "open door" if number % 2 else "look around"
        after = state(not number % 2, action, number)
        parts = {"current_state": state(True, "", number), "action_state": after, "tick_state": after}
        scores = {"current_score_state": score, "next_score_state": score}
        rows.append({**parts, **scores, "game": f"house-{number % 3}", "state_id": number})
    return rows


@pytest.fixture(scope="session")
def house_records() -> Any:
    """``house_rows``, for tests that change them."""
    return house_rows


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A function that writes rows (see ``house_rows``) to a .jsonl.gz file: how many of them, or these rows."""

    def write(rows: int | list[dict[str, Any]], name: str = "house.jsonl.gz") -> Path:
        records = house_rows(rows) if isinstance(rows, int) else rows
        path = tmp_path_factory.mktemp("house") / name
        path.write_bytes(gzip.compress("".join(json.dumps(r) + "\n" for r in records).encode()))
        return path

    return write
