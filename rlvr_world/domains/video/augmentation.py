"""Episodes in other colours: the augmentation of likelihood and tokenizer training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rlvr_world.domains.video.episodes import Episodes


class Jittered:
    """Episodes in other colours, one draw an episode: a data set of its own, with its own clips and cached tokens."""

    def __init__(self, plain: Episodes, copy: int, seed: int = 0) -> None:
        """``copy`` numbers the versions."""
        self.plain, self._seeds = plain, (seed, copy)
        self.name, self.ids, self.lengths = f"{plain.name}+colours{copy}.{seed}", plain.ids, plain.lengths
        self.actions, self.proprio, self.files = plain.actions, plain.proprio, plain.files

    def frames(self, episode: int, steps: Sequence[int]) -> np.ndarray:
        frames = torch.from_numpy(self.plain.frames(episode, steps)).float() / 255
        jittered = jitter(frames, np.random.default_rng((*self._seeds, episode)))
        return (jittered * 255).round().byte().numpy()


def jitter(frames_THW3: Tensor, rng: np.random.Generator) -> Tensor:
    """One draw for all frames: brightness, contrast and saturation within 10 %, hue within 5 % (paper, appendix)."""
    draw = rng.uniform(-1, 1, 4)
    brightness, contrast, saturation = (1 + 0.1 * draw[:3]).tolist()
    return recolour(frames_THW3, brightness, contrast, saturation, 0.05 * draw[3])


def recolour(frames_THW3: Tensor, brightness: float, contrast: float, saturation: float, turn: float) -> Tensor:
    """Frames in [0, 1] with these factors, 1 for no change, and the hue turned by this share of the colour circle.
    Hue and saturation act in the YIQ plane, where both are linear."""
    yiq = torch.tensor([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
    angle = torch.tensor(2 * torch.pi * turn)
    cos, sin = saturation * angle.cos(), saturation * angle.sin()
    turned = torch.eye(3)
    turned[1:, 1:] = torch.stack([torch.stack([cos, sin]), torch.stack([-sin, cos])])
    bright = (frames_THW3 * brightness).clamp(0, 1)
    grey = (bright @ yiq[0]).mean((1, 2))[:, None, None, None]
    return ((bright * contrast + grey * (1 - contrast)).clamp(0, 1) @ (yiq.inverse() @ turned @ yiq).T).clamp(0, 1)
