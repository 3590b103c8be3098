"""Where a model runs, and in which type its forwards compute."""

from __future__ import annotations

import os
from typing import Literal

import torch

from rlvr_world.errors import InputError
from rlvr_world.models.cpu import processor


def check_device(device: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The device to run on; ``auto`` takes a GPU where there is one. Raises InputError for a GPU that is not there."""
    if device not in ("auto", "cpu", "cuda"):
        raise InputError(f"model.device: expected auto, cpu or cuda, got {device!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("model.device: cuda is asked for, but torch finds no GPU on this machine; set cpu or auto")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and "LOCAL_RANK" in os.environ:  # torchrun: a GPU for each process
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.backends.cudnn.allow_tf32 = False  # a visual token must not depend on the hardware more than it has to
    return torch.device(device)


def compute_dtype(precision: Literal["auto", "float32", "bfloat16"], device: torch.device) -> torch.dtype:
    """What forwards are computed in; ``auto`` is bfloat16 where the hardware multiplies it, else float32."""
    if precision != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]
    gpu = device.type == "cuda"
    fast = torch.cuda.is_bf16_supported(including_emulation=False) if gpu else _cpu_multiplies_bfloat16()
    return torch.bfloat16 if fast else torch.float32


def shown_in(precision: Literal["auto", "float32", "bfloat16"], device: torch.device) -> torch.dtype:
    """What frames are decoded and looked at in: on GPUs as the model, since no token depends on it."""
    return compute_dtype(precision, device) if device.type == "cuda" else torch.float32


def _cpu_multiplies_bfloat16() -> bool:
    """Whether bfloat16 products are the faster ones: by AMX, or AMD's vectors. Intel's vectors have it and gain nothing
    (a Xeon without AMX: 77 GFLOP/s in bfloat16, 129 in float32)."""
    return "amx_bf16" in processor() or ("avx512_bf16" in processor() and "AuthenticAMD" in processor())
