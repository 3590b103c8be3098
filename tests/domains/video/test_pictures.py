from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image

from rlvr_world.domains.video.pictures import error_map, gif, strip


def test_strip_shows_each_frame_in_its_place() -> None:
    frames = torch.rand(2, 3, 64, 96)
    image = Image.open(io.BytesIO(strip(frames)))
    assert (image.format, image.size) == ("PNG", (2 * 192 + 2, 128))  # twice as large: 64 < 128
    pixels = np.asarray(image)
    assert np.array_equal(pixels[::2, 194::2], (frames[1] * 255).round().permute(1, 2, 0).numpy())
    assert (pixels[:, 192:194] == 255).all()


def test_large_frames_keep_their_size() -> None:
    assert Image.open(io.BytesIO(strip(torch.zeros(1, 3, 256, 320)))).size == (320, 256)


def test_gif_has_every_frame_and_pace() -> None:
    image = Image.open(io.BytesIO(gif(torch.linspace(0, 1, 5)[:, None, None, None].expand(5, 3, 16, 16), fps=5)))
    assert (image.format, image.n_frames, image.info["duration"], image.size) == ("GIF", 5, 200, (128, 128))
    image.seek(4)
    assert np.asarray(image.convert("RGB")).min() == 255


def test_error_map_is_grey_and_bright() -> None:
    truth = torch.full((1, 3, 2, 2), 0.5)
    predicted = truth.clone()
    predicted[0, 0, 0, 0] += 0.3
    predicted[0, :, 1, 1] = 0
    error = error_map(predicted, truth)
    assert error.shape == truth.shape
    assert torch.allclose(error[0, :, 0, 0], torch.full((3,), 0.3))
    assert torch.allclose(error[0, :, 1, 1], torch.ones(3))
    assert error[0, :, 0, 1].max() == 0
