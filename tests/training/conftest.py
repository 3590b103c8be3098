"""A learner small enough for a test: 2 layers, 32 features, grouped keys, float32 unless told otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from rlvr_world.config import ModelConfig, OptimizerConfig
from rlvr_world.models.lora import add_lora
from rlvr_world.models.text_tokenizer import train_text_tokenizer
from rlvr_world.training.learner import Learner

TOKENIZER = train_text_tokenizer(["a"], vocab_size=259)


def tiny_model(seed: int = 0, **changes: Any) -> LlamaForCausalLM:
    shape = {
        "vocab_size": 264,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "initializer_range": 0.1,
        "tie_word_embeddings": True,
        "pad_token_id": 0,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(LlamaConfig(**{**shape, **changes}))


@pytest.fixture
def tiny() -> Callable[..., LlamaForCausalLM]:
    return tiny_model


@pytest.fixture
def learner_of() -> Callable[..., Learner]:
    """(lora, moved, model settings, optimizer settings) -> a learner; equal arguments give equal learners."""

    def build(
        lora: bool = False,
        moved: bool = False,
        model: ModelConfig | None = None,
        optimizer: OptimizerConfig | None = None,
        base: Any = None,
    ) -> Learner:
        trained = base if base is not None else tiny_model()
        if lora:
            trained = add_lora(trained, rank=4, alpha=8)
        if moved:  # a new adapter has no effect, and half of its weights no gradient
            generator = torch.Generator().manual_seed(5)
            for name, parameter in trained.named_parameters():
                if "lora_B" in name:
                    parameter.data.normal_(0, 0.1, generator=generator)
        settings = model or ModelConfig(precision="float32", device="cpu")
        return Learner(trained, TOKENIZER, settings, optimizer or OptimizerConfig(1e-3))

    return build
