"""Frames as PNG strips and GIFs, for reports. Shape legend: T frames, H height, W width."""

from __future__ import annotations

import io

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

SEEN = 128
"""Pixels that a shown frame has at least on its shorter side; smaller ones are enlarged by a whole factor."""
GAIN = 3
"""Errors are shown this many times brighter: those that matter are a few hundredths."""


def error_map(predicted: Tensor, truth: Tensor) -> Tensor:
    """Grey pictures of the absolute error, mean over colours, three times as bright: float32 like ``truth``."""
    error = (predicted - truth).abs().mean(-3, keepdim=True) * GAIN
    return error.clamp(0, 1).expand_as(truth)


def strip(frames: Tensor) -> bytes:
    """PNG of frames float32 [T, 3, H, W] in [0, 1], shown from left to right with a white gap between them."""
    first, *others = _enlarged(frames)
    file = io.BytesIO()
    _image(torch.cat([first, *(F.pad(frame, (2, 0), value=1.0) for frame in others)], -1)).save(file, "PNG")
    return file.getvalue()


def gif(frames: Tensor, fps: float = 4) -> bytes:
    """An endless GIF of frames float32 [T, 3, H, W] in [0, 1]."""
    first, *rest = [_image(frame) for frame in _enlarged(frames)]
    file = io.BytesIO()
    first.save(file, "GIF", save_all=True, append_images=rest, duration=round(1000 / fps), loop=0)
    return file.getvalue()


def _enlarged(frames: Tensor) -> Tensor:
    factor = max(1, SEEN // min(frames.shape[-2:]))
    return frames.repeat_interleave(factor, -2).repeat_interleave(factor, -1)


def _image(frame: Tensor) -> Image.Image:
    pixels = (frame.clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
