"""Products by oneDNN are the products that torch makes, packed weights or not, and so are their gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rlvr_world.models import cpu

ONEDNN = torch.backends.mkldnn.is_available()
pytestmark = pytest.mark.skipif(not ONEDNN, reason="this torch has no oneDNN")


@pytest.mark.parametrize("bias", [False, True])
def test_a_large_product_and_its_gradients(bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "by_onednn", lambda dtype: True)
    torch.manual_seed(0)
    x, weight = torch.randn(2, 40, 256, requires_grad=True), torch.randn(256, 256, requires_grad=True)
    given = (x, weight, torch.randn(256, requires_grad=True) if bias else None)
    assert weight.numel() >= cpu.LARGE[torch.float32]
    found, expected = cpu.product(*given), F.linear(*given)
    assert "_Product" in type(found.grad_fn).__name__
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)
    over = [one for one in given if one is not None]
    gradient = torch.randn_like(found)
    for mine, theirs in zip(
        torch.autograd.grad(found, over, gradient), torch.autograd.grad(expected, over, gradient), strict=True
    ):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_weights_give_the_same_and_are_gone_afterwards(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    if dtype == torch.bfloat16 and not cpu.by_onednn(dtype):
        pytest.skip("this processor has no bfloat16 products")
    monkeypatch.setattr(cpu, "by_onednn", lambda dtype: True)
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.Linear(256, 256), nn.Embedding(4, 256)).to(dtype)
    x = torch.randn(80, 256).to(dtype)
    plain = model[0](x)
    cpu.replace_linears(model)
    layer = model[0]
    with cpu.packed(model), torch.no_grad():
        layer.weight.zero_()  # which the packed ones do not see
        torch.testing.assert_close(layer(x), plain, atol=1e-5, rtol=1e-2 if dtype == torch.bfloat16 else 1e-5)
    assert layer.packed is None
    torch.testing.assert_close(layer(x), layer.bias.expand(80, -1))
