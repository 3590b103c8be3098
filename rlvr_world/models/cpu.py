"""Kernels and layouts that make CPUs fast, and the private operators of torch that they call; each has a plain
counterpart that gives the same numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

SHORT = 256
"""Keys up to which plain matrix products beat torch's CPU kernel, forward and backward, in bfloat16."""


class Members(torch.autograd.Function):
    """The members of one tree over its prefix and themselves, in float32 on a CPU; [G, H, R, d]. Attention over the
    prefix, where all members are one long list of queries, is merged with attention over each member's own tokens by
    log-sum-exp: the prefix is neither copied nor masked.

    The gradient of each half is what the kernel gives for the output and log-sum-exp of the whole.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, kp_HPd: Tensor, vp_HPd: Tensor, scale: float) -> Tensor:
        flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        kp, vp = kp_HPd[None], vp_HPd[None]
        on_prefix, lse_prefix = (_rows(x, len(q)) for x in flash(_side_by_side(q), kp, vp, 0.0, False, scale=scale))
        on_own, lse_own = flash(q, k, v, 0.0, True, scale=scale)
        lse = torch.logaddexp(lse_prefix, lse_own)
        out = on_own.mul_((lse_own - lse).exp_()[..., None]).add_(on_prefix * (lse_prefix - lse).exp_()[..., None])
        ctx.save_for_backward(q, k, v, kp, vp, out, lse)
        ctx.scale = scale
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, kp, vp, out, lse = ctx.saved_tensors
        flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
        sides = (_side_by_side(x) for x in (grad, q))
        dq, dkp, dvp = flash(*sides, kp, vp, _side_by_side(out), _side_by_side(lse), 0.0, False, scale=ctx.scale)
        dq_own, dk, dv = flash(grad, q, k, v, out, lse, 0.0, True, scale=ctx.scale)
        return _rows(dq, len(q)) + dq_own, dk, dv, dkp[0], dvp[0], None


def _side_by_side(x_GHR: Tensor) -> Tensor:
    """[G, H, R, ...] to [1, H, G * R, ...]."""
    return x_GHR.transpose(0, 1).flatten(1, 2)[None]


def _rows(x_1HN: Tensor, groups: int) -> Tensor:
    """[1, H, G * R, ...] back to [G, H, R, ...]."""
    return x_1HN[0].unflatten(1, (groups, -1)).transpose(0, 1)


def short_attention(q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool, mask: Tensor | None) -> Tensor:
    """Attention over at most ``SHORT`` keys in bfloat16, by plain matrix products."""
    repeat = q.shape[1] // k.shape[1]
    if repeat > 1:
        k, v = k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)
    if causal:
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril()
    scores = (q * scale) @ k.transpose(2, 3)
    if mask is not None:
        scores = scores + torch.zeros_like(mask, dtype=q.dtype).masked_fill_(~mask, float("-inf"))
    return torch.softmax(scores, -1) @ v


@contextmanager
def columns_first(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Float32 weights on a CPU lie column by column while tokens are drawn: a product with 16 rows takes a sixth to
    two fifths less time so. They are as before afterwards; meanwhile they take their memory twice."""
    moved = [p for p in model.parameters() if device.type == "cpu" and p.ndim == 2 and p.dtype == torch.float32]
    row_by_row = [p.data for p in moved]
    try:
        for p in moved:
            p.data = p.data.t().contiguous().t()
        yield
    finally:
        for p, data in zip(moved, row_by_row, strict=True):
            p.data = data
