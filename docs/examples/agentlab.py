"""Rows out of what AgentLab and BrowserGym keep of an experiment, run where they are installed:

python agentlab.py STUDY_FOLDER rows.jsonl

The steps are pickles, and loading a pickle runs whatever is in it: give this your own studies alone.
"""

from __future__ import annotations

import gzip
import json
import pickle
import sys
from pathlib import Path


def main(study: Path, out: Path) -> None:
    lines = 0
    with out.open("w") as rows:
        for arguments in sorted(study.rglob("exp_args.pkl")):
            env = pickle.loads(arguments.read_bytes()).env_args  # noqa: S301
            files = arguments.parent.glob("step_*.pkl.gz")
            for file in sorted(files, key=lambda file: int(file.name.split(".")[0].removeprefix("step_"))):
                step = pickle.loads(gzip.decompress(file.read_bytes()))  # noqa: S301
                if not (step.obs or {}).get("axtree_txt"):
                    continue  # an agent that was not shown the tree, or an episode that failed
                row = {"task_name": env.task_name, "task_seed": env.task_seed, "episode": arguments.parent.name}
                row |= {"step": step.step, "axtree_txt": step.obs["axtree_txt"], "action": step.action or "noop()"}
                row |= {key: step.obs.get(key, "") for key in ("url", "goal", "last_action_error")}
                rows.write(json.dumps(row) + "\n")
                lines += 1
    print(f"{out}: {lines} steps; next: rlvr-world init {out}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
