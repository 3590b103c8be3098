"""What is learned from N frames that the real world has told about: cloned policies, and the judge of imagined ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import nn

from rlvr_world.recipes.tasks import Labelled
from rlvr_world.system.files import write_whole
from rlvr_world.system.progress import track

STEPS, BATCH = 1500, 64
Frames = Callable[[np.ndarray], np.ndarray]  # uint8 [N, H, W, 3] -> something of each, [N, ...]


def learn(frames: np.ndarray, targets: np.ndarray, steps: int, file: Path) -> Frames:
    """A small convolutional network that reads ``targets`` float32 [N, O] off frames. What lies in ``file`` is not
    trained again. Light and noise of the frames are varied."""
    torch.manual_seed(0)
    convolutions = [nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in ((3, 16), (16, 32), (32, 64))]
    layers = [layer for one in convolutions for layer in (one, nn.ReLU())]
    head = [nn.Linear(1024, 128), nn.ReLU(), nn.Linear(128, targets.shape[1])]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), *head)
    mean, deviation = targets.mean(0), targets.std(0) + 1e-6
    if file.is_file():
        net.load_state_dict(load_file(file))
    else:
        optimizer, rng = torch.optim.AdamW(net.parameters(), weight_decay=1e-3), np.random.default_rng(0)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps)
        truth = torch.from_numpy((targets - mean) / deviation).float()
        for _ in track(range(steps), f"learning {file.stem}", "steps"):
            drawn = rng.integers(len(frames), size=BATCH)
            seen = _pixels(frames[drawn])
            seen = seen + 0.06 * torch.randn_like(seen) + 0.1 * torch.randn(BATCH, 3, 1, 1)
            (net(seen) - truth[drawn]).abs().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
        write_whole(file, save(net.state_dict()))

    @torch.no_grad()
    def read(frames: np.ndarray) -> np.ndarray:
        return torch.cat([net(part) for part in _pixels(frames).split(256)]).numpy() * deviation + mean

    return read


def _pixels(frames: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(frames).movedim(-1, 1).float() / 127.5 - 1


def judge(labelled: Callable[[str], Labelled], round_trip: Frames, file: Path) -> tuple[Frames, dict[str, Any]]:
    """Success is a threshold of the measure that is read off a frame, learned from frames and their round trips; the
    threshold is the one that is right most often on those of validation; what it gets wrong is told of those of test.
    A frame gets a number, how far it is beyond the threshold, in the judge's own errors (the root of their mean square
    on frames and round trips of validation): above 0 is success."""
    train, valid, test = map(labelled, ("train", "valid", "test"))
    learned = train.frames if file.is_file() else np.concatenate([train.frames, round_trip(train.frames)])
    read = learn(learned, np.tile(train.measure, 2)[:, None], STEPS, file)
    sign = float(np.sign(np.corrcoef(train.measure, train.success)[0, 1]))
    seen = sign * np.concatenate([read(valid.frames), read(round_trip(valid.frames))])[:, 0]
    truth, grid = np.tile(valid.success, 2), np.linspace(seen.min(), seen.max(), 201)
    error = float(np.sqrt(np.mean((sign * seen - np.tile(valid.measure, 2)) ** 2))) + 1e-9
    threshold = float(max(grid, key=lambda at: float(np.mean((seen > at) == truth))))
    views = {"right on real frames": test.frames, "right on round trips": round_trip(test.frames)}
    beyond: Frames = lambda frames: (sign * read(frames)[:, 0] - threshold) / error  # noqa: E731
    right = {name: round(float(np.mean((beyond(frames) > 0) == test.success)), 4) for name, frames in views.items()}
    right |= {"always failure": round(float(np.mean(~test.success)), 4)}
    return beyond, {"threshold": round(sign * threshold, 4), "error": round(error, 4), **right}
