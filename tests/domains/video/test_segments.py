"""Segments for the tokenizer: functions of the step, in bounds, augmented as one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from rlvr_world.domains.video.segments import Segments
from rlvr_world.errors import InputError
from rlvr_world.vision.config import VisualTokenizerConfig


class Counting:
    """Two episodes whose frames show their episode (red) and step (green)."""

    name, ids, lengths, files = "counting", ["a", "b"], [6, 30], ()

    def frames(self, episode: int, steps: Sequence[int]) -> np.ndarray:
        frames = np.zeros((len(steps), 16, 16, 3), np.uint8)
        frames[..., 0], frames[..., 1] = 100 * episode, np.array(steps)[:, None, None]
        return frames

    def actions(self, episode: int) -> np.ndarray:
        return np.zeros((self.lengths[episode], 1), np.float32)

    def proprio(self, episode: int) -> None:
        return None


def segments(stride: int = 2, **settings: object) -> Segments:
    config = VisualTokenizerConfig(**{"batch": 8, "segment": 3, "jitter": False, "crop": 1.0, **settings})  # type: ignore[arg-type]
    return Segments(Counting(), [0, 1], (16, 16), stride, config, seed=3)


def steps_of(batch: torch.Tensor) -> torch.Tensor:
    return (batch[:, :, 1, 0, 0] * 255).round().long()


def test_a_step_always_has_the_same_frames() -> None:
    assert torch.equal(segments()(5), segments()(5))
    assert not torch.equal(segments()(5), segments()(6))


def test_frames_are_a_stride_apart_and_come_from_both_episodes() -> None:
    batch = torch.cat([segments()(i) for i in range(4)])
    steps = steps_of(batch)
    assert (steps.diff(dim=1) == 2).all()
    red = batch[:, 0, 0, 0, 0]
    assert {0.0, 100 / 255} == {round(v, 8) for v in red.double().tolist()} or len(red.unique()) == 2
    assert steps[red == 0].max() <= 5


def test_later_frames_are_drawn_from_the_reach_and_short_episodes_left_out() -> None:
    steps = steps_of(torch.cat([segments(reach=12)(i) for i in range(8)]))
    ahead = steps[:, 1:] - steps[:, :1]
    assert ahead.min() >= 1
    assert 6 < ahead.max() <= 12
    assert (ahead.diff(dim=1) > 0).all()


def test_one_draw_of_colours_and_crop_for_a_segment() -> None:
    plain, coloured = segments()(0), segments(jitter=True, crop=0.8)(0)
    assert coloured.shape == plain.shape
    assert coloured.min() >= 0
    assert coloured.max() <= 1
    assert not torch.equal(coloured, plain)


def test_episodes_that_are_all_too_short_are_named() -> None:
    with pytest.raises(InputError, match=r"counting: its longest training episode has 30 frames, .* spans 41"):
        segments(reach=40)
