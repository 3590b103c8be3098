"""Checkpoints: a Hugging Face model folder plus the trainer's state beside it. Safetensors and JSON, no pickle.

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

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerBase

from rlvr_world.errors import InputError
from rlvr_world.models import Model, load_adapter, save_model


@dataclass(frozen=True)
class Counters:
    """Where a stage stands."""

    step: int = 0
    tokens: int = 0
    """Tokens that forwards have processed, sampling included."""
    seconds: float = 0.0


def save(
    folder: Path,
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    optimizer: torch.optim.Optimizer,
    counters: Counters,
) -> Path:
    """Write ``folder/step-NNNNNN`` whole or not at all; older checkpoints of the stage are removed after it stands."""
    final = folder / f"step-{counters.step:06d}"
    partial = folder / f".partial-{counters.step:06d}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_model(model, tokenizer, partial)
    trainer = partial / "trainer"
    trainer.mkdir()
    save_file(_moments(optimizer), str(trainer / "optimizer.safetensors"))
    (trainer / "counters.json").write_text(json.dumps(asdict(counters)))
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


def restore(checkpoint: Path, model: Model, optimizer: torch.optim.Optimizer) -> Counters:
    """Load weights, moments and counters into a model and optimizer of the same shape."""
    _load_weights(checkpoint, model)
    _load_moments(optimizer, load_file(str(checkpoint / "trainer" / "optimizer.safetensors")), checkpoint)
    return read_counters(checkpoint)


def read_counters(checkpoint: Path) -> Counters:
    return Counters(**json.loads((checkpoint / "trainer" / "counters.json").read_text()))


def _load_weights(checkpoint: Path, model: Model) -> None:
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


def _moments(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """AdamW's state as named tensors: ``<parameter number>.<name>``."""
    return {
        f"{i}.{name}": value.detach().cpu().contiguous()
        for i, parameter in enumerate(_parameters(optimizer))
        for name, value in optimizer.state.get(parameter, {}).items()
    }


def _load_moments(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor], where: Path) -> None:
    parameters = _parameters(optimizer)
    for key, value in tensors.items():
        number, name = key.split(".", 1)
        if int(number) >= len(parameters):
            raise InputError(f"{where}: optimizer state for parameter {number}, but the model has {len(parameters)}")
        parameter = parameters[int(number)]
        home = value if name == "step" else value.to(parameter.device)
        optimizer.state[parameter][name] = home
