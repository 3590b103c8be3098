"""Tokenizers whose halves work on patches: tokens that rest where pixels do, codes that stay in use."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from rlvr_world.training.visual_tokenizer import create_visual_tokenizer, reconstruct
from rlvr_world.vision.config import VisualTokenizerConfig
from rlvr_world.vision.frame_tokenizer import FrameTokenizer
from rlvr_world.vision.loading import load_visual_tokenizer

FRAME = VisualTokenizerConfig(widths=(32, 32, 32), layers=1, latent=8, groups=8, levels=(8, 5, 5, 5), patch_width=32)
COMPRESSIVE = VisualTokenizerConfig(
    kind="compressive", widths=(32, 32), layers=1, latent=8, groups=8, levels=(8, 5, 5), patch_width=32, patch=2
)


def test_a_token_depends_on_its_own_patch_alone() -> None:
    tokenizer = create_visual_tokenizer(FRAME, 16, 24, seed=0).eval()
    assert isinstance(tokenizer, FrameTokenizer)
    frames = torch.rand(8, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    tokenizer.train()(frames)  # the codes' mean and variance
    before = tokenizer.eval().encode(frames)
    frames[:, :, 4:8, 8:12] = 1 - frames[:, :, 4:8, 8:12]
    changed = before != tokenizer.encode(frames)
    assert changed[:, 1, 2].any()
    changed[:, 1, 2] = False
    assert not changed.any()


def test_a_later_frame_s_token_depends_on_its_own_patch_and_the_context() -> None:
    tokenizer = create_visual_tokenizer(COMPRESSIVE, 16, 16, seed=0)
    clip = torch.rand(8, 3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    reconstruct(tokenizer.train(), clip)
    _, before = tokenizer.eval().encode(clip)
    moved = clip.clone()
    moved[:, 1, :, :4, :4] = 1 - moved[:, 1, :, :4, :4]
    changed = before != tokenizer.encode(moved)[1]
    assert changed[:, 0, 0].any()
    changed[:, 0, 0] = False
    assert not changed.any()
    clip[:, 0] = 1 - clip[:, 0]
    assert (before != tokenizer.encode(clip)[1]).any()


def test_codes_are_spread_while_training_whatever_the_pictures() -> None:
    tokenizer = create_visual_tokenizer(FRAME, 16, 16, seed=0).train()
    frames = torch.full((16, 3, 16, 16), 0.9) + 0.03 * torch.randn(16, 3, 16, 16)
    _, indices = reconstruct(tokenizer, frames[:, None])
    assert indices.unique().numel() > 50


@pytest.mark.parametrize("config", [FRAME, COMPRESSIVE])
def test_it_is_saved_whole(config: VisualTokenizerConfig, tmp_path: Path) -> None:
    tokenizer = create_visual_tokenizer(config, 16, 16, seed=0)
    clip = torch.rand(4, 2, 3, 16, 16)
    reconstruct(tokenizer.train(), clip)
    tokenizer.eval().save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["patch_width"] == 32
    with torch.no_grad():
        torch.testing.assert_close(
            reconstruct(load_visual_tokenizer(tmp_path), clip)[0], reconstruct(tokenizer, clip)[0]
        )
