"""Checkpoints: a model folder plus the trainer's state beside it. Safetensors and JSON, no pickle.

A checkpoint is written under a temporary name, flushed to disk and renamed: a folder named
``step-000120`` is always whole. Random streams and data order are functions of (seed, step), so
weights, optimizer moments and counters are all there is to keep.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from rlvr_world.errors import InputError
from rlvr_world.models import Model, load_adapter

TRAINER = "trainer"
"""The folder inside a checkpoint that holds what only training needs."""


@dataclass(frozen=True)
class Counters:
    """Where a stage stands."""

    step: int = 0
    tokens: int = 0
    """Tokens that forwards have processed, sampling included."""
    seconds: float = 0.0


class State(Protocol):
    """What a stage trains, as far as checkpoints know it."""

    def save(self, folder: Path) -> None:
        """Write weights and optimizer state into an empty folder."""
        ...

    def restore(self, checkpoint: Path) -> None:
        """Take them back from such a folder. Raises InputError where they do not fit."""
        ...


def save(folder: Path, state: State, counters: Counters) -> Path:
    """Write ``folder/step-NNNNNN`` whole or not at all; older checkpoints of the stage are removed after it stands."""
    final = folder / f"step-{counters.step:06d}"
    partial = folder / f".partial-{counters.step:06d}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    state.save(partial)
    (partial / TRAINER).mkdir(exist_ok=True)
    (partial / TRAINER / "counters.json").write_text(json.dumps(asdict(counters)))
    publish(partial, final)
    for old in checkpoints(folder):
        if old != final:
            shutil.rmtree(old)
    return final


def publish(partial: Path, final: Path) -> None:
    """Flush every file of ``partial`` to disk, then give it its name."""
    for path in [*partial.rglob("*"), partial]:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    if final.exists():
        shutil.rmtree(final)
    os.replace(partial, final)


def checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints of a stage, oldest first."""
    return sorted(folder.glob("step-*"))


def latest(folder: Path) -> Path | None:
    found = checkpoints(folder)
    return found[-1] if found else None


def read_counters(checkpoint: Path) -> Counters:
    return Counters(**json.loads((checkpoint / TRAINER / "counters.json").read_text()))


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
