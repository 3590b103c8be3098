"""Language models: made from scratch, loaded, given LoRA adapters, saved as folders that transformers loads."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, cast

import torch
from huggingface_hub import constants
from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from rlvr_world.errors import InputError
from rlvr_world.smollm import smollm2_folder

logging.disable_progress_bar()  # loading and saving take moments; stages have bars of their own

Model = PreTrainedModel | PeftModel

ADAPTER = "adapter"
"""The folder inside a saved LoRA model that holds the adapter itself."""
CODEC = "codec"
"""The entry of a model's config.json that says what its tokens mean where they are not text."""
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")
LOGIT_SETTINGS = ("final_logit_softcapping", "logit_scale", "logits_scaling")
"""What some models do to logits after the head."""


def create_model(
    vocab_size: int,
    hidden: int,
    layers: int,
    heads: int,
    max_length: int,
    tokenizer: PreTrainedTokenizerBase | None = None,
    seed: int = 0,
    intermediate: int = 0,
    tied: bool = True,
) -> LlamaForCausalLM:
    """A Llama with random weights, float32: the same seed gives the same weights, and no other generator moves.

    The MLP is ``intermediate`` wide, by default 8/3 ``hidden`` rounded up to a multiple of 64; ``tied`` shares the
    embedding's weights with the head. ``max_length`` is the longest sequence in tokens. End and padding ids come
    from ``tokenizer``.

    Raises InputError for a ``hidden`` that the heads cannot share, or a tokenizer larger than ``vocab_size``.
    """
    if hidden % (2 * heads):
        raise InputError(f"model hidden: expected a multiple of 2 x heads ({2 * heads}), got {hidden}")
    if tokenizer is not None and len(tokenizer) > vocab_size:
        raise InputError(f"model vocab_size: the tokenizer has {len(tokenizer)} tokens, got {vocab_size}; raise it")
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=hidden,
        intermediate_size=intermediate or -(-8 * hidden // (3 * 64)) * 64,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=max_length,
        tie_word_embeddings=tied,
        bos_token_id=None,
        eos_token_id=None if tokenizer is None else tokenizer.eos_token_id,
        pad_token_id=None if tokenizer is None else tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return LlamaForCausalLM(config)


def load_model(
    source: str, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase | None]:
    """The causal language model and tokenizer in a local folder, on the Hugging Face hub, or ``smollm2``.

    A model over other tokens than text has its codec's settings under ``codec`` in config.json, and no tokenizer:
    None. ``smollm2`` is SmolLM2-135M-Instruct from a Python package, see ``smollm``. Only safetensors weights are read,
    and no code that comes with a model is run.

    Raises InputError where the folder, its config, weights or tokenizer are missing or broken, where
    weights are missing in the file (never replaced by random ones), or the hub does not answer.
    """
    place = str(smollm2_folder()) if source == "smollm2" else source
    local = Path(place).expanduser()
    if local.is_dir():
        _check_folder(local)
        place = str(local)
    elif _looks_like_a_path(place):
        raise InputError(f"model {source}: there is no such folder; check the path")
    try:
        textual = getattr(AutoConfig.from_pretrained(place), CODEC, None) is None
        if textual and local.is_dir():
            _check_tokenizer(local)
        tokenizer = AutoTokenizer.from_pretrained(place) if textual else None
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            place, dtype=dtype, use_safetensors=True, output_loading_info=True
        )
    except InputError:
        raise
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(_why_not_loaded(source, local.is_dir(), error)) from error
    model, missing = loaded[0], sorted(loaded[1]["missing_keys"])
    if missing:
        raise InputError(
            f"model {source}: the file lacks {len(missing)} of the weights that config.json asks for, "
            f"such as {missing[0]}; it is incomplete or of another architecture"
        )
    rows = model.get_input_embeddings().weight.shape[0]
    if tokenizer is not None and len(tokenizer) > rows:
        raise InputError(
            f"model {source}: the tokenizer has {len(tokenizer)} tokens but the model only {rows}; "
            "put the tokenizer that the model was trained with into its folder"
        )
    return model.to(device), tokenizer


def _looks_like_a_path(source: str) -> bool:
    return source.startswith((".", "/", "~")) or source.count("/") > 1 or "\\" in source or Path(source).exists()


def _check_folder(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        hint = (
            "it is a LoRA adapter, name the merged model's folder"
            if (folder / "adapter_config.json").is_file()
            else ("name the folder that save_pretrained wrote")
        )
        raise InputError(f"model {folder}: there is no config.json; {hint}")


def _check_tokenizer(folder: Path) -> None:
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise InputError(
            f"model {folder}: there is no tokenizer (tokenizer.json, tokenizer_config.json); "
            "save the model's tokenizer into the same folder"
        )


def _why_not_loaded(source: str, local: bool, error: Exception) -> str:
    reason = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
    if local:
        return f"model {source}: the folder cannot be loaded ({reason}); save it again or name another"
    if constants.HF_HUB_OFFLINE:
        return (
            f"model {source}: there is no such folder, the hub is switched off (HF_HUB_OFFLINE) "
            "and its cache does not have the model; name a local folder, or smollm2"
        )
    return f"model {source}: it is no folder, and the hub does not give it ({reason}); name a local folder, or smollm2"


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


def save_model(model: Model, tokenizer: PreTrainedTokenizerBase | None, folder: Path) -> None:
    """Write a folder that ``AutoModelForCausalLM.from_pretrained`` and ``AutoTokenizer.from_pretrained`` load.

    Of a LoRA model the folder holds the merged model, and ``folder/adapter`` the adapter, with which
    training goes on (``load_adapter``). The merge happens on a copy and is verified, so it needs the memory
    of the model once more. The training weights are not touched.
    """
    whole = model
    if isinstance(model, PeftModel):
        # Told not to look for new embeddings, which "auto" would ask the hub about.
        model.save_pretrained(str(folder / ADAPTER), save_embedding_layers=False)
        whole = merge_copy(model)
        verify_merge(model, whole)
    whole.save_pretrained(str(folder))
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)


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


def head_weight(model: Model) -> Tensor:
    """The head's weights [V, D] for ``losses.chosen_logps``: logits are hidden @ weight.T and nothing else.

    Raises InputError for a model that adds a bias to its logits, scales or caps them, or adapts the head.
    """
    head = model.get_output_embeddings()
    if head is None:
        raise InputError(f"model {type(model).__name__}: it has no language-model head; use a causal language model")
    if isinstance(head, LoraLayer):
        raise InputError("lora target: the head cannot be adapted; leave it out of the target")
    changed = [name for name in LOGIT_SETTINGS if getattr(model.config, name, None) not in (None, 1.0)]
    if getattr(head, "bias", None) is not None:
        changed.append("a bias of the head")
    if changed:
        raise InputError(
            f"model {model.config.model_type}: it changes its logits by {changed[0]}, which is not supported"
        )
    return head.weight


def check_device(device: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The device to run on; ``auto`` takes a GPU where there is one. Raises InputError for a GPU that is not there."""
    if device not in ("auto", "cpu", "cuda"):
        raise InputError(f"device: expected auto, cpu or cuda, got {device!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("device: cuda is asked for, but torch finds no GPU on this machine; set device=cpu or auto")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.allow_tf32 = False  # a visual token must not depend on the hardware more than it has to
    return torch.device(device)


def compute_dtype(precision: Literal["auto", "float32", "bfloat16"], device: torch.device) -> torch.dtype:
    """What forwards are computed in; ``auto`` is bfloat16 where the hardware multiplies it, else float32."""
    named = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if precision in named:
        return named[precision]
    if precision != "auto":
        raise InputError(f"precision: expected auto, float32 or bfloat16, got {precision!r}")
    fast = (
        torch.cuda.is_bf16_supported(including_emulation=False) if device.type == "cuda" else _cpu_multiplies_bfloat16()
    )
    return torch.bfloat16 if fast else torch.float32


def _cpu_multiplies_bfloat16() -> bool:
    info = Path("/proc/cpuinfo")
    return info.is_file() and any(flag in info.read_text() for flag in ("amx_bf16", "avx512_bf16"))
