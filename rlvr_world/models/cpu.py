"""Kernels and layouts that make CPUs fast, and the private operators of torch that they call; each has a plain
counterpart that gives the same numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
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


LARGE = {torch.float32: 2**16, torch.bfloat16: 2**14}
"""Numbers of a weight from which on oneDNN is worth its call: in float32 against MKL, in bfloat16, with weights that
are laid out beforehand, against laying them out each time. Rows do not count, so that a token is
multiplied alike in any batch."""


class Linear(nn.Linear):
    """A linear layer on a CPU, whose products ``product`` makes."""

    packed: Tensor | None = None
    """The weights as oneDNN reads them, while they stay as they are."""

    def forward(self, x: Tensor) -> Tensor:
        if self.packed is not None and self.weight.numel() >= LARGE[x.dtype]:
            return _onednn(x, self.packed, self.bias)
        return product(x, self.weight, self.bias)


def replace_linears(model: nn.Module) -> None:
    """Have a model's linear layers be ``Linear`` (in place), on a CPU."""
    for module in model.modules():
        if type(module) is nn.Linear and module.weight.device.type == "cpu":
            module.__class__ = Linear


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x @ weight.T + bias, in float32 by oneDNN where that is faster."""
    large = x.dtype == torch.float32 and weight.numel() >= LARGE[x.dtype]
    if large and x.device.type == "cpu" and by_onednn(torch.float32):
        return _Product.apply(x, weight, bias)
    return F.linear(x, weight, bias)


@lru_cache
def by_onednn(dtype: torch.dtype) -> bool:
    """Whether oneDNN makes products on this machine: in bfloat16 torch takes it wherever the processor can; in float32
    torch takes MKL, which is the slower one on AMD's processors."""
    if not torch.backends.mkldnn.is_available():
        return False
    bfloat16 = dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return bfloat16 or (dtype == torch.float32 and "AuthenticAMD" in processor())


@lru_cache
def processor() -> str:
    """What Linux says of the processor; nothing elsewhere."""
    info = Path("/proc/cpuinfo")
    return info.read_text() if info.is_file() else ""


class _Product(torch.autograd.Function):
    """oneDNN's product, and its gradients: the sum over rows is MKL's, which adds them up faster."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _onednn(x, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        rows = grad.flatten(0, -2)
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            _onednn(grad, weight.t(), None) if of_x else None,
            rows.t() @ x.flatten(0, -2) if of_weight else None,
            rows.sum(0) if of_bias else None,
        )


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


@contextmanager
def packed(model: nn.Module) -> Iterator[None]:
    """While tokens are drawn, weights on a CPU lie as oneDNN reads them; where MKL multiplies, column by column: a
    product with 16 rows takes a sixth to two fifths less time so. Meanwhile they take their memory twice."""
    layers = [m for m in model.modules() if isinstance(m, Linear) and by_onednn(m.weight.dtype)]
    moved = [p for p in model.parameters() if p.device.type == "cpu" and p.ndim == 2 and p.dtype == torch.float32]
    moved = [] if by_onednn(torch.float32) else moved
    row_by_row = [p.data for p in moved]
    try:
        for layer in layers:
            layer.packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach())
        for p in moved:
            p.data = p.data.t().contiguous().t()
        yield
    finally:
        for layer in layers:
            layer.packed = None
        for p, data in zip(moved, row_by_row, strict=True):
            p.data = data
