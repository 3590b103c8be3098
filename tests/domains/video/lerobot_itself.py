"""Run where lerobot is installed, for test_lerobot_itself.py: its writer writes, its reader reads.

LEROBOT_PYTHON lerobot_itself.py FOLDER

Writes data sets ``videos`` and ``images``, and of each what lerobot reads as ``NAME.npz``; prints the versions.
"""

from __future__ import annotations

import inspect
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

FPS, LENGTHS, CAMERAS = 15, (23, 9, 31), {"observation.images.top": (64, 96), "observation.images.wrist": (48, 64)}
TASKS = ("push the block", "lift the block")


def picture(rng: np.random.Generator, episode: int, step: int, size: tuple[int, int]) -> np.ndarray:
    """uint8 [H, W, 3]: a slope of colours, a square that moves, a little noise; each frame its own, compressed too."""
    y, x = np.mgrid[: size[0], : size[1]]
    shown = np.stack([y * 2 + 40 * episode, x * 2, np.full_like(x, 30 + 4 * step + 40 * (step % 2))], axis=-1).astype(
        float
    )
    at = (3 * step) % (size[1] - 12)
    shown[8:20, at : at + 12] = (230, 40, 40)
    return np.clip(shown + rng.normal(0, 2, shown.shape), 0, 255).astype(np.uint8)


def record(root: Path, videos: bool) -> None:
    features: dict[str, Any] = {
        name: {"dtype": "video" if videos else "image", "shape": (*size, 3), "names": ["height", "width", "channels"]}
        for name, size in CAMERAS.items()
    }
    features["observation.state"] = {"dtype": "float32", "shape": (3,), "names": ["a", "b", "grip"]}
    features["action"] = {"dtype": "float32", "shape": (4,), "names": ["x", "y", "z", "grip"]}
    data = LeRobotDataset.create("own/set", FPS, features, root=root, use_videos=videos)
    rng = np.random.default_rng(0)
    for episode, length in enumerate(LENGTHS):
        for step in range(length):
            frame: dict[str, Any] = {name: picture(rng, episode, step, size) for name, size in CAMERAS.items()}
            frame |= {"observation.state": rng.normal(size=3).astype(np.float32)}
            frame |= {"action": rng.normal(size=4).astype(np.float32)}
            task = TASKS[episode % len(TASKS)]
            if "task" in inspect.signature(data.add_frame).parameters:  # before 0.4
                data.add_frame(frame, task=task)
            else:
                data.add_frame(frame | {"task": task})
        data.save_episode()
    if hasattr(data, "finalize"):
        data.finalize()


def read(root: Path, **settings: Any) -> dict[str, np.ndarray]:
    """All steps as lerobot gives them; pictures uint8 [N, H, W, 3]."""
    data = LeRobotDataset("own/set", root=root, **settings)
    steps = [data[index] for index in range(len(data))]
    found = {key: np.stack([np.asarray(step[key]) for step in steps]) for key in steps[0]}
    for name in CAMERAS:
        found[name] = np.rint(found[name].transpose(0, 2, 3, 1) * 255).astype(np.uint8)
    return found


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for kind in ("videos", "images"):
        record(folder / kind, kind == "videos")
        np.savez(folder / f"{kind}.npz", **read(folder / kind))
    print("lerobot", version("lerobot"), "torch", version("torch"))
