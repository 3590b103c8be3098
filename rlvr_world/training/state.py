"""Weights and optimizer moments on disk: what a checkpoint holds of a model under training. Safetensors, no pickle."""

from __future__ import annotations

from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from rlvr_world.errors import InputError
from rlvr_world.models.head import Model
from rlvr_world.models.lora import load_adapter

TRAINER = "trainer"
"""The folder inside a checkpoint that holds what only training needs."""


def load_weights(checkpoint: Path, model: Model) -> None:
    """The weights (with LoRA: the adapter) of a checkpoint into a model of the same shape."""
    if isinstance(model, PeftModel):
        load_adapter(model, checkpoint)
        return
    tensors = {k: v for file in sorted(checkpoint.glob("*.safetensors")) for k, v in load_file(str(file)).items()}
    own, tied = model.state_dict(), set(model.all_tied_weights_keys)
    wrong = ((set(tensors) ^ set(own)) - tied) | {
        k for k in set(tensors) & set(own) if tensors[k].shape != own[k].shape
    }
    if wrong:
        raise InputError(f"{checkpoint}: the weights are of another model, for example at {min(wrong)}")
    model.load_state_dict(tensors, strict=False)


def _parameters(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def save_optimizer(optimizer: torch.optim.Optimizer, folder: Path, name: str = "optimizer") -> None:
    """AdamW's state as named tensors, ``<parameter number>.<name>``, in ``folder/trainer/<name>.safetensors``."""
    tensors = {
        f"{i}.{key}": value.detach().cpu().contiguous()
        for i, parameter in enumerate(_parameters(optimizer))
        for key, value in optimizer.state.get(parameter, {}).items()
    }
    (folder / TRAINER).mkdir(exist_ok=True)
    save_file(tensors, str(folder / TRAINER / f"{name}.safetensors"))


def load_optimizer(optimizer: torch.optim.Optimizer, checkpoint: Path, name: str = "optimizer") -> None:
    """The counterpart of ``save_optimizer``."""
    where = checkpoint / TRAINER / f"{name}.safetensors"
    parameters = _parameters(optimizer)
    fused = any(group["fused"] for group in optimizer.param_groups)  # only then are step counts kept on the device
    for key, value in load_file(str(where)).items():
        number, kind = key.split(".", 1)
        if int(number) >= len(parameters):
            raise InputError(f"{where}: optimizer state for parameter {number}, but the model has {len(parameters)}")
        parameter = parameters[int(number)]
        home = value if kind == "step" and not fused else value.to(parameter.device)
        optimizer.state[parameter][kind] = home
