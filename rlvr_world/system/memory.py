"""How much memory there is, and how this process holds it."""

from __future__ import annotations

import ctypes
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch  # the command line asks glibc before it waits for torch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def keep_memory() -> None:
    """Ask glibc to keep freed memory for the next tensor instead of giving it back to the system each time.

    Training on CPU frees and takes the same large tensors in every layer; fresh pages cost a tenth of a step.
    Nothing happens where the C library is another.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 2**30)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def device_memory(device: torch.device) -> int:
    """Bytes of a GPU's memory, or of the machine's, whoever uses them."""
    if device.type != "cuda":
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    import torch

    return torch.cuda.get_device_properties(device).total_memory
