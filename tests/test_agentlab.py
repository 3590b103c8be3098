"""The script that makes rows of AgentLab's pickles, on ones that a stand-in for BrowserGym wrote."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from rlvr_world.domains.web_page.rows import read_rows

SCRIPT = Path(__file__).resolve().parents[1] / "docs/examples/agentlab.py"
LOOP = """class Saved:
    def __init__(self, **fields):
        self.__dict__.update(fields)
"""
WRITE = """
import gzip, pickle
from pathlib import Path
from loop import Saved

for seed in (0, 1):
    folder = Path("study") / f"2026-01-01_agent_on_miniwob.click-test_{seed}"
    folder.mkdir(parents=True)
    env = Saved(task_name="miniwob.click-test", task_seed=seed)
    (folder / "exp_args.pkl").write_bytes(pickle.dumps(Saved(env_args=env)))
    for step in range(11):
        tree = f"[1] RootWebArea 'Page {step}'" + chr(10) + chr(9) + "[2] button 'go'"
        obs = {"axtree_txt": tree, "goal": "Press it", "url": "http://x/", "last_action_error": ""}
        saved = Saved(step=step, obs=obs, action="click('2')" if step < 10 else None)
        (folder / f"step_{step}.pkl.gz").write_bytes(gzip.compress(pickle.dumps(saved)))
"""


def test_steps_become_rows(tmp_path: Path) -> None:
    (tmp_path / "loop.py").write_text(LOOP)
    (tmp_path / "write.py").write_text(WRITE)
    (tmp_path / "agentlab.py").write_text(SCRIPT.read_text())  # beside what its pickles name
    for arguments in (["write.py"], ["agentlab.py", "study", "rows.jsonl"]):
        subprocess.run([sys.executable, *arguments], cwd=tmp_path, check=True, timeout=60)
    rows = read_rows(tmp_path / "rows.jsonl")
    assert len(rows) == 20
    assert [row.state.page.nodes[0].text for row in rows[:11]] == [
        f"RootWebArea 'Page {step % 10}'" for step in range(11)
    ]
    assert (rows[0].action, rows[0].world, rows[0].state.goal) == ("click('2')", "miniwob.click-test", "Press it")
