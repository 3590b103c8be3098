"""What the machine could do: the denominator of model FLOP utilisation (MFU)."""

from __future__ import annotations

import time
from functools import lru_cache

import torch

from rlvr_world.models.head import Model, head_weight


def full_speed(model: Model) -> float:
    """Tokens a second of likelihood training if every product ran as fast as one large product does on this machine.

    A token takes 6 FLOP a trained weight and 4 a frozen one (PaLM, appendix B). Attention scores are left out, and
    embedding and head too, since only tokens with loss go through the head: MFU is a lower bound.
    """
    tables = {id(model.get_input_embeddings().weight), id(head_weight(model))}
    weights = [p for p in model.parameters() if id(p) not in tables]
    flop = sum((6 if p.requires_grad else 4) * p.numel() for p in weights)
    return peak_flops(weights[0].device, weights[0].dtype) / flop


@lru_cache
def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP a second of a large square product, the best of five: what is reached here, not what is advertised."""
    size = 8192 if device.type == "cuda" else 1024
    random = torch.Generator(device).manual_seed(0)
    factor = torch.rand(size, size, generator=random, device=device).to(dtype)
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        (factor @ factor)[0, 0].item()  # which waits for it
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best
