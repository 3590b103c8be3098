"""LoRA adapters: put beside a model, saved merged, loaded again, switched off for the reference."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import (
    PreTrainedModel,
)

from rlvr_world.errors import InputError
from rlvr_world.models.head import Model, head_weight

ADAPTER = "adapter"
"""The folder inside a saved LoRA model that holds the adapter itself."""


def add_lora(
    model: PreTrainedModel, rank: int = 32, alpha: int = 16, target: str | list[str] = "all-linear", seed: int = 0
) -> PeftModel:
    """Freeze ``model`` and put trainable low-rank adapters (float32, no dropout, no effect yet) beside its layers.

    ``rank`` and ``alpha`` default to what RLVR-World used for SFT; the update is (alpha / rank) B A. ``target``
    names layers; ``all-linear`` is every linear layer but the head. ``model`` itself is changed.

    Raises InputError where ``target`` names layers that the model does not have.
    """
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=target, lora_dropout=0.0, task_type="CAUSAL_LM")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        try:
            return cast(PeftModel, get_peft_model(model, config))
        except ValueError as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"lora target: {target!r} fits no layer of {type(model).__name__} ({reason})") from error


def load_adapter(model: PeftModel, folder: Path) -> None:
    """Put the adapter that ``save_model`` wrote under ``folder/adapter`` into ``model``, for training to go on.

    Raises InputError where it is missing or does not fit the model's own adapter.
    """
    file = folder / ADAPTER / "adapter_model.safetensors"
    if not file.is_file():
        raise InputError(f"adapter {file}: there is no such file; name the folder of a LoRA model")
    try:
        result: Any = set_peft_model_state_dict(model, load_file(file))
    except (RuntimeError, SafetensorError) as error:
        raise InputError(
            f"adapter {file}: it does not fit the model ({str(error).splitlines()[-1].strip()})"
        ) from error
    missing = [name for name in result.missing_keys if "lora_" in name]
    if missing or result.unexpected_keys:
        name = (missing or result.unexpected_keys)[0]
        raise InputError(f"adapter {file}: it does not fit the model, for example at {name}; check the LoRA settings")


def merge_copy(model: PeftModel) -> PreTrainedModel:
    """A copy of the model with W + (alpha / rank) B A in the place of W; ``model`` stays as it is."""
    return copy.deepcopy(model).merge_and_unload(safe_merge=True)


def verify_merge(model: PeftModel, merged: PreTrainedModel, tolerance: float | None = None) -> float:
    """The largest difference of logits between adapter and merged model on a few tokens, relative to the largest logit.

    Raises RuntimeError above ``tolerance``: 1e-4 by default, 5e-2 for weights in 16 bits, which a merge rounds.
    """
    weight = head_weight(merged)
    if tolerance is None:
        tolerance = 1e-4 if weight.dtype in (torch.float32, torch.float64) else 5e-2
    ids = torch.linspace(0, weight.shape[0] - 1, steps=16, device=weight.device).long()[None]
    with _evaluating(model), _evaluating(merged), torch.no_grad():
        expected, got = model(input_ids=ids).logits.float(), merged(input_ids=ids).logits.float()
    difference = float((got - expected).abs().max() / expected.abs().max())
    if not difference <= tolerance:
        raise RuntimeError(
            f"merging the adapter changed logits by {difference:.1e} of the largest, allowed {tolerance:.0e}"
        )
    return difference


@contextlib.contextmanager
def _evaluating(model: Model) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


@contextlib.contextmanager
def reference_disabled(model: Model) -> Iterator[None]:
    """Inside, a LoRA model is its own reference: the model that the adapter was added to.

    Raises ValueError for a model without adapter, whose reference has to be a second model.
    """
    if not isinstance(model, PeftModel):
        raise ValueError("a model without LoRA cannot be its own reference; load the reference model beside it")
    with model.disable_adapter():
        yield
