"""A model whose weights lie in shares on all ranks (FSDP2, torch's ``fully_shard``): a layer is whole on every rank
while it computes, and all of them are while tokens are drawn.

Gradients are added up in float32, each rank for its share. All ranks run the same forwards and backwards, as many.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers.modeling_layers import GradientCheckpointingLayer

from rlvr_world.errors import InputError
from rlvr_world.models.head import Model
from rlvr_world.system import ranks

T = TypeVar("T")


def shard(model: Model, device: torch.device, dtype: torch.dtype) -> Model:
    """Share out the weights of a model (in place); forwards compute in ``dtype`` on ``device``, see ``inside``."""
    if not hasattr(FSDPModule, "set_force_sum_reduction_for_comms"):
        raise InputError(f"model.shard: expected a torch whose FSDP2 can sum, got {torch.__version__}; update it")
    mesh = init_device_mesh(device.type, (ranks.size(),))
    getattr(mesh, "_pg_registry", {}).clear()  # for torch.compile alone; torch keeps every mesh, and so the group in it
    precision = MixedPrecisionPolicy(dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    for module in (*layers, model):
        part: Any = fully_shard(module, mesh=mesh, mp_policy=precision, reshard_after_forward=True)
        part.set_gradient_divide_factor(1.0)  # losses are weighed over the whole batch: gradients are sums
        part.set_force_sum_reduction_for_comms(True)  # gloo knows no other
    root: Any = model
    root.inside = lambda call: call()
    register_fsdp_forward_method(root, "inside")
    return model


def inside(model: Model, call: Callable[[], T]) -> T:
    """What ``call`` gives as a forward of the model, head and embedding at hand."""
    return model.inside(call) if isinstance(model, FSDPModule) else call()  # type: ignore[operator]


@contextmanager
def whole(model: Model) -> Iterator[None]:
    """Inside, every rank has all weights of the model: gathered once, however much is drawn."""
    parts: list[Any] = [module for module in model.modules() if isinstance(module, FSDPModule)]
    if not parts:
        yield
        return
    parts[0].set_reshard_after_forward(False)
    inside(model, lambda: None)  # the first to run is the root
    for part in parts:
        part.unshard()
    try:
        yield
    finally:
        parts[0].set_reshard_after_forward(True)
        for part in parts:
            part.reshard()


def hollow(model: Model) -> Model:
    """A copy without weights (on ``meta``), for ``filled``."""
    empty = {id(p): nn.Parameter(torch.empty_like(p, device="meta"), p.requires_grad) for p in model.parameters()}
    return copy.deepcopy(model, empty)


def filled(shell: Model, weights: dict[str, Tensor]) -> Model:
    """A copy of a hollow model with these weights for its own."""
    model = copy.deepcopy(shell)
    model.load_state_dict(weights, strict=False, assign=True)
    model.tie_weights()
    return model


def full(tensor: Tensor) -> Tensor:
    """All of a tensor that is shared out, on every rank; another one as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a tensor that is shared out, at least one number; another one as it is."""
    part = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return part if part.numel() else part.new_zeros(1)


def like(target: Tensor, values: Tensor) -> Tensor:
    """Values as the target lies: of one that is shared out, this rank's part."""
    if not isinstance(target, DTensor):
        return values
    return distribute_tensor(values.to(target.device), target.device_mesh, target.placements, src_data_rank=None)


def collected(named: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor] | None:
    """Tensors on the CPU by name. Where they are shared out all ranks call this, and the first alone gets them, one by
    one; the others get None."""
    found, shared = {}, False
    for name, tensor in named:
        shared, value = shared or isinstance(tensor, DTensor), full(tensor.detach())
        if not shared or ranks.first():
            found[name] = value.cpu().contiguous()
    return found if not shared or ranks.first() else None
