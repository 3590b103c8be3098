"""AdamW and Muon: how they are made, at which rate and under which bound they step, and how a checkpoint keeps them (no
pickle)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from rlvr_world.config import OptimizerConfig
from rlvr_world.errors import InputError
from rlvr_world.models.head import Model, head_weight
from rlvr_world.models.shards import collected, full, like
from rlvr_world.system import ranks

TRAINER = "trainer"
"""The folder inside a checkpoint that holds what only training needs."""
Watched = list[tuple[Optimizer, torch.nn.Module]]
"""Each optimizer with what it trains."""


def adamw(parameters: Iterable[Tensor], config: OptimizerConfig) -> Optimizer:
    betas = (config.beta1, config.beta2)
    return torch.optim.AdamW(parameters, config.learning_rate, betas, weight_decay=config.weight_decay, fused=True)


class Muon(Optimizer):
    """Muon for ``matrices`` and AdamW for the ``rest``, in one. Steps of a matrix are orthogonalised and as large as
    AdamW's are, so that both go by the same rate and decay (arXiv 2502.16982, section 2.2)."""

    def __init__(self, matrices: list[Tensor], rest: list[Tensor], config: OptimizerConfig) -> None:
        rate, decay = config.learning_rate, config.weight_decay
        self.parts = (torch.optim.Muon(matrices, rate, decay, adjust_lr_fn="match_rms_adamw"), adamw(rest, config))
        super().__init__([group for part in self.parts for group in part.param_groups], {})
        for part in self.parts:
            part.state = self.state

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for part in self.parts:
            part.step()


def optimizer_of(model: Model, trained: list[Tensor], config: OptimizerConfig) -> Optimizer:
    """What trains those weights of a model: with Muon all matrices but embedding and head."""
    if config.kind == "adamw":
        return adamw(trained, config)
    tables = {id(model.get_input_embeddings().weight), id(head_weight(model))}
    parts: tuple[list[Tensor], list[Tensor]] = ([], [])
    for p in trained:
        parts[p.ndim != 2 or id(p) in tables].append(p)
    return Muon(*parts, config)


FIRST = 0.02
"""Of the peak rate, what a warm-up begins with: a step at rate 0 would be none."""


def learning_rate(config: OptimizerConfig, progress: float) -> float:
    """The rate at a fraction ``progress`` in [0, 1] of the stage."""
    if progress < config.warmup:
        return config.learning_rate * max(progress / config.warmup, FIRST)
    if config.schedule == "constant":
        return config.learning_rate
    after = (progress - config.warmup) / max(1e-9, 1 - config.warmup)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, after)))


def take_step(optimizer: Optimizer, config: OptimizerConfig, progress: float) -> dict[str, float]:
    """One step with gradients added up over all ranks and clipped together, whose norm before that is told, at the rate
    of ``progress``."""
    parameters = _parameters(optimizer)
    ranks.add_gradients([p for p in parameters if not isinstance(p, DTensor)])  # those of shares are added up by now
    norm, rate = full(clip_grad_norm_(parameters, config.clip_norm)), learning_rate(config, progress)
    for settings in optimizer.param_groups:
        settings["lr"] = rate
    optimizer.step()
    return {"grad_norm": norm.item(), "learning_rate": rate}


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def save_optimizer(optimizer: Optimizer, folder: Path, name: str = "optimizer") -> None:
    """Its state as named tensors, ``<parameter number>.<name>``, in ``folder/trainer/<name>.safetensors``."""
    named = (
        (f"{i}.{key}", value)
        for i, parameter in enumerate(_parameters(optimizer))
        for key, value in optimizer.state.get(parameter, {}).items()
    )
    if (tensors := collected(named)) is not None:
        (folder / TRAINER).mkdir(exist_ok=True)
        save_file(tensors, str(folder / TRAINER / f"{name}.safetensors"))


def load_optimizer(optimizer: Optimizer, checkpoint: Path, name: str = "optimizer") -> None:
    """The counterpart of ``save_optimizer``."""
    where, parameters = checkpoint / TRAINER / f"{name}.safetensors", _parameters(optimizer)
    fused = any(group.get("fused") for group in optimizer.param_groups)  # only then are step counts kept on the device
    for key, value in load_file(str(where)).items():
        number, kind = key.split(".", 1)
        if int(number) >= len(parameters):
            raise InputError(f"{where}: optimizer state for parameter {number}, but the model has {len(parameters)}")
        parameter = parameters[int(number)]
        own = value if kind == "step" else like(parameter, value)
        optimizer.state[parameter][kind] = own if kind == "step" and not fused else own.to(parameter.device)
