"""The published folders in small: configs, names, shapes, columns and prompt texts as on the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from rlvr_world.training.visual_tokenizer import create_visual_tokenizer
from rlvr_world.vision.config import VisualTokenizerConfig

VOCABULARY = {"single": 4633, "multi": 9008}
DUMMY_TOKENS = 128_256
"""Entries of the Llama-3 text tokenizer that lies beside the video models and that nothing uses."""
EXTREMES = [
    *[(-0.396, 0.396), (-0.0097, 0.0037), (-0.4, 0.3999), (-1.0, 1.0), (-1.57, 1.5707), (-1.5699, 1.5321)],
    *[(-1.5705, 1.5692), (0.0, 1.0), (0.0, 1.0), (0.0, 1.0), (-2.02, 2.998), (-5.498, 22.09), (-2.03, 2.75)],
]


def rt1_world_model(folder: Path, kind: str, seed: int = 0) -> Path:
    """``rt1-world-model-<kind>-step-*``: a Llama over codes, no codec in its config, and a dummy text tokenizer."""
    size = VOCABULARY[kind]
    config = LlamaConfig(
        vocab_size=size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=8192,
        bos_token_id=size - 2,
        eos_token_id=size - 1,
        tie_word_embeddings=False,
        rms_norm_eps=1e-6,
        initializer_range=0.3,  # so that tokens are told apart
    )
    torch.manual_seed(seed)
    LlamaForCausalLM(config).save_pretrained(folder)
    words = {f"<w{i}>": i for i in range(DUMMY_TOKENS)}
    text = Tokenizer(models.WordLevel(words, unk_token="<w0>"))
    PreTrainedTokenizerFast(tokenizer_object=text, eos_token="<w1>", unk_token="<w0>").save_pretrained(folder)
    return folder


def visual_tokenizer(folder: Path, kind: str) -> Path:
    """``rt1-frame-tokenizer`` or ``rt1-compressive-tokenizer`` with narrow halves: 320 or 1280 + 80 tokens of 4375."""
    single = kind == "single"
    widths = (8, 8, 8, 8, 8) if single else (8, 8, 32, 32)
    settings = VisualTokenizerConfig(
        kind="frame" if single else "compressive", widths=widths, layers=1, latent=8, groups=4
    )
    create_visual_tokenizer(settings, 256, 320, 0).save_pretrained(str(folder))
    return folder


def action_ranges(file: Path) -> Path:
    """``frac_action_ranges.pth``: a float32 tensor [13, 2] that torch has pickled."""
    torch.save(torch.tensor(EXTREMES), file)
    return file


def rt1_episodes(folder: Path, count: int = 3, frames: int = 10) -> Path:
    """``<split>_eps_<8 digits>.npz`` with frames of 256 x 320 and actions of 13 fields."""
    folder.mkdir(parents=True)
    for number in range(count):
        rng = np.random.default_rng(number)
        blocks = rng.integers(0, 255, (frames, 8, 10, 3), np.uint8)
        low, high = np.array(EXTREMES).T
        np.savez_compressed(
            folder / f"train_eps_{number:08d}.npz",
            image=np.kron(blocks, np.ones((1, 32, 32, 1), np.uint8)),
            action=rng.uniform(low, high, (frames, 13)),
        )
    return folder
