"""LoRA adapters: put beside a model, loaded again, merged."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import PreTrainedModel

from rlvr_world.errors import InputError
from rlvr_world.models.head import evaluating, head_weight
from rlvr_world.models.shards import like

ADAPTER = "adapter"
"""The folder inside a saved LoRA model that holds the adapter itself."""


def add_lora(
    model: PreTrainedModel, rank: int = 32, alpha: int = 16, target: str | list[str] = "all-linear", seed: int = 0
) -> PeftModel:
    """Freeze ``model`` and put trainable low-rank adapters (float32, no dropout, no effect yet) beside its layers.

    ``rank`` and ``alpha`` default to what RLVR-World used for SFT; the update is (alpha / rank) B A. ``target``
    names layers; ``all-linear`` is every linear layer but the head. Raises InputError where it fits none.
    """
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=target, lora_dropout=0.0, task_type="CAUSAL_LM")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        try:
            adapted = cast(PeftModel, get_peft_model(model, config))
        except ValueError as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"lora target: {target!r} fits no layer of {type(model).__name__} ({reason})") from error
    named: Any = adapted.peft_config["default"]
    named.target_modules = sorted(named.target_modules)  # a set, which each process would write in another order
    return adapted


def load_adapter(model: PeftModel, folder: Path) -> None:
    """Put the adapter that ``save_model`` wrote into ``folder`` into ``model``, for training to go on. Raises
    InputError where it is missing or does not fit the model's own adapter."""
    file = folder / ADAPTER / "adapter_model.safetensors"
    if not file.is_file():
        raise InputError(f"adapter {file}: there is no such file; name the folder of a LoRA model")
    try:
        own = get_peft_model_state_dict(model, save_embedding_layers=False)
        tensors = {name: like(own.get(name, tensor), tensor) for name, tensor in load_file(file).items()}
        result: Any = set_peft_model_state_dict(model, tensors)
    except (RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise InputError(f"adapter {file}: it does not fit the model ({reason})") from error
    if wrong := [*(name for name in result.missing_keys if "lora_" in name), *result.unexpected_keys]:
        raise InputError(f"adapter {file}: it does not fit the model, such as at {wrong[0]}; check the LoRA settings")


def verify_merge(model: PeftModel, merged: PreTrainedModel) -> float:
    """The largest difference of logits between adapter and merged model on a few tokens, relative to the largest logit.
    Raises RuntimeError above 1e-4, or 5e-2 for weights in 16 bits, which a merge rounds."""
    weight = head_weight(merged)
    tolerance = 1e-4 if weight.dtype in (torch.float32, torch.float64) else 5e-2
    ids = torch.linspace(0, weight.shape[0] - 1, steps=16, device=weight.device).long()[None]
    with evaluating(model), evaluating(merged), torch.no_grad():
        expected, got = model(input_ids=ids).logits.float(), merged(input_ids=ids).logits.float()
    difference = float((got - expected).abs().max() / expected.abs().max())
    if not difference <= tolerance:
        raise RuntimeError(f"merging the adapter changed logits by {difference:.1e}, allowed {tolerance:.0e}")
    return difference
