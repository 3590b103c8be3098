"""Recorded episodes as a LeRobotDataset: ``python -m lerobot_env_rlvr_world.dataset OUT --task TEXT FILE.npz ...``."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from lerobot.datasets import LeRobotDataset


def write(out: Path, task: str, files: list[Path], fps: int = 10) -> int:
    """``files`` hold ``image`` uint8 [T, H, W, 3], ``action`` float [T, A] and, where it is felt, ``proprio`` float
    [T, P]; of ones that say who acted (``demo``, bool [T]) the expert's alone are taken. Returns how many were."""
    taken, dataset = 0, None
    for file in files:
        with np.load(file) as arrays:
            told = {name: arrays[name] for name in ("image", "action", "proprio", "demo") if name in arrays.files}
        if not np.all(told.get("demo", True)):
            continue
        names = {"observation.image": "image", "observation.state": "proprio", "action": "action"}
        found = {name: told[key] for name, key in names.items() if key in told}
        found |= {name: np.float32(values) for name, values in found.items() if name != "observation.image"}
        if dataset is None:
            features = {name: {"dtype": "float32", "shape": a.shape[1:], "names": None} for name, a in found.items()}
            features["observation.image"] |= {"dtype": "image", "names": ["height", "width", "channels"]}
            dataset = LeRobotDataset.create(out.name, fps, features, root=out, use_videos=False)
        for t in range(len(told["action"])):
            dataset.add_frame({name: values[t] for name, values in found.items()} | {"task": task})
        dataset.save_episode()
        taken += 1
    if dataset is not None:
        dataset.finalize()
    return taken


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--task", default="")
    parser.add_argument("--fps", type=int, default=10)
    args = parser.parse_args()
    print(f"{write(args.out, args.task, args.files, args.fps)} of {len(args.files)} episodes in {args.out}")
