"""The compressive tokenizer: the reference's tokens and pictures, the published size, any grid, one context."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rlvr_world.errors import InputError
from rlvr_world.vision.compressive_tokenizer import CompressiveTokenizer
from rlvr_world.vision.loading import fingerprint, load_visual_tokenizer


def tiny(**changes: Any) -> CompressiveTokenizer:
    """16x24 pixels, 8x12 context tokens, 2x3 tokens a later frame; position tables that are not zero."""
    fields: dict[str, Any] = {
        "block_out_channels": [32, 32],
        "layers_per_block": 1,
        "latent_channels": 8,
        "norm_num_groups": 16,
        "resolution": 16,
        "max_att_resolution": 8,
        "vq_fsq_levels": [5, 4],
        "dyn_fsq_levels": [3, 3, 3],
        "context_grid": [8, 12],
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tokenizer = CompressiveTokenizer(**{**fields, **changes})
        for name, weight in tokenizer.named_parameters():
            if name.endswith("pos_emb"):
                torch.nn.init.normal_(weight)
    return tokenizer


@pytest.mark.parametrize(("name", "given"), [("compressive_tokenizer_a", "clip"), ("compressive_tokenizer_b", "batch")])
def test_tokens_and_pictures_equal_the_reference(shared: Path, name: str, given: str) -> None:
    folder = shared / "golden/given" / name
    tokenizer, data = load_visual_tokenizer(folder), load_file(folder / f"io_{given}.safetensors")
    assert isinstance(tokenizer, CompressiveTokenizer)
    seen: dict[str, torch.Tensor] = {}
    tokenizer.quant_conv.register_forward_hook(lambda module, inputs, output: seen.update(context=output))
    tokenizer.quant_linear.register_forward_hook(lambda module, inputs, output: seen.update(dynamics=output))
    with torch.no_grad():
        context, dynamics = tokenizer.encode(data["clip_uint8"].float() / 255)
        expected_context, expected_dynamics = data["context_indices"][:, 0].long(), data["dynamics_indices"].long()
        decoded = tokenizer.decode(expected_context + tokenizer.context_fsq.size, expected_dynamics)
    assert torch.allclose(seen["context"], data["context_latents"], rtol=0, atol=5e-4)
    assert torch.allclose(seen["dynamics"], data["dynamics_latents"], rtol=0, atol=5e-4)
    certain = data["context_margin"].reshape(context.shape) >= 1e-3
    assert torch.equal(context[certain], expected_context[certain])
    certain = data["dynamics_margin"].reshape(dynamics.shape) >= 1e-3
    assert torch.equal(dynamics[certain], expected_dynamics[certain])
    (key,) = (key for key in data if key.startswith("decoded"))
    every = int(key.rpartition("_")[2]) if "every" in key else 1
    assert torch.allclose(decoded[..., ::every, ::every], data[key], rtol=0, atol=5e-4)


def test_the_published_size_has_the_published_weights(shared: Path) -> None:
    shapes = json.loads((shared / "golden/given/full_size_state_dict_shapes.json").read_text())
    published = shapes["compressive_tokenizer"]
    with torch.device("meta"):
        tokenizer = CompressiveTokenizer()
    assert {name: list(tensor.shape) for name, tensor in tokenizer.state_dict().items()} == dict(published["shapes"])
    assert sum(weight.numel() for weight in tokenizer.parameters()) == 129_448_016
    assert (tokenizer.context_tokens, math.prod(tokenizer.frame_grid), tokenizer.frame_grid) == (1280, 80, (8, 10))
    fields = json.loads(tokenizer.to_json_string())
    assert fields.pop("_class_name") == "CompressiveVQModelFSQ"
    del fields["_diffusers_version"]
    assert fields == {name: value for name, value in published["config"].items() if not name.startswith("_")}


def test_a_saved_folder_is_the_same_tokenizer(tmp_path: Path) -> None:
    tokenizer, clip = tiny().eval(), torch.rand(1, 3, 3, 16, 24)
    tokenizer.save_pretrained(tmp_path)
    loaded = load_visual_tokenizer(tmp_path)
    assert isinstance(loaded, CompressiveTokenizer)
    assert fingerprint(loaded) == fingerprint(tokenizer)
    assert loaded.context_grid == (8, 12)
    for tokens, expected in zip(loaded.encode(clip), tokenizer.encode(clip), strict=True):
        assert torch.equal(tokens, expected)


def test_any_aspect_and_levels() -> None:
    tokenizer = tiny(block_out_channels=[16, 32, 32, 32], max_att_resolution=8, context_grid=[4, 8]).eval()
    assert (tokenizer.downsampling, tokenizer.frame_grid, math.prod(tokenizer.frame_grid)) == (8, (1, 2), 2)
    context, dynamics = tokenizer.encode(torch.rand(2, 4, 3, 32, 64))
    assert context.shape == (2, 32)
    assert dynamics.shape == (2, 3, 2)
    assert context.dtype == dynamics.dtype == torch.int64
    assert int(context.max()) < tokenizer.context_fsq.size == 20
    assert int(dynamics.max()) < tokenizer.codebook_size == 27
    assert tokenizer.decode(context, dynamics).shape == (2, 4, 3, 32, 64)


def test_frames_know_their_own_context_and_no_other_frame() -> None:
    tokenizer, clips = tiny().eval(), torch.rand(2, 4, 3, 16, 24)
    with torch.no_grad():
        context, dynamics = tokenizer.encode(clips)
        decoded = tokenizer.decode(context, dynamics)
        for row in range(2):
            for frame in range(3):
                alone = clips[row : row + 1, [0, frame + 1]]
                assert torch.equal(tokenizer.encode(alone)[1][0, 0], dynamics[row, frame])
                again = tokenizer.decode(context[row : row + 1], dynamics[row : row + 1, frame : frame + 1])
                assert torch.allclose(again[0, 1], decoded[row, frame + 1], atol=1e-5)
        other = tokenizer.decode(context.flip(0), dynamics)
    assert not torch.allclose(other[:, 1:], decoded[:, 1:], atol=1e-2)


def test_many_samples_of_a_context_cost_the_context_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = tiny().eval()
    generator = torch.Generator().manual_seed(1)
    context = torch.randint(20, (2, 96), generator=generator)
    dynamics = torch.randint(27, (2 * 5, 3, 6), generator=generator)
    with torch.no_grad():
        expected = tokenizer.decode(context.repeat_interleave(5, dim=0), dynamics)
        frame, features = tokenizer.context_features(context)
        monkeypatch.setattr(tokenizer, "decoder", None)  # nothing below may run the context's half again
        decoded = tokenizer.decode_frames(features, dynamics)
    assert torch.allclose(frame.repeat_interleave(5, dim=0), expected[:, 0], atol=1e-5)
    assert torch.allclose(decoded, expected[:, 1:], atol=1e-5)


def test_training_reaches_every_weight_with_dropout_and_evaluation_has_none() -> None:
    tokenizer, clip = tiny(), torch.rand(2, 3, 3, 16, 24)
    with torch.no_grad():
        tokenizer.quant_linear.weight *= 20  # or all codes of the untrained model are 0
    reconstruction, context, dynamics = tokenizer(clip)
    assert not torch.equal(tokenizer(clip)[0], reconstruction)
    (reconstruction - clip).abs().mean().backward()
    for name, weight in tokenizer.named_parameters():
        assert weight.grad is not None, name
        # A key's bias shifts all scores of a query alike, which softmax does not see.
        assert weight.grad.abs().max() > 0 or name.endswith("to_k.bias"), name
    assert context.shape == (2, 96)
    assert dynamics.shape == (2, 2, 6)
    tokenizer.eval()
    reconstruction, context, dynamics = tokenizer(clip)
    for tokens, expected in zip(tokenizer.encode(clip), (context, dynamics), strict=True):
        assert torch.equal(tokens, expected)
    assert torch.allclose(tokenizer.decode(context, dynamics), reconstruction, atol=1e-5)


def test_attention_equals_that_of_torch() -> None:
    block = tiny().eval().cond_decoder.cross_att_blocks[0]
    z, context = torch.randn(2, 32, 8, 12), torch.randn(2, 32, 8, 12)
    queries = block.q_norm(z).flatten(2).transpose(1, 2) + block.q_pos_emb
    keys = block.kv_norm(context).flatten(2).transpose(1, 2) + block.kv_pos_emb
    expected = torch.nn.functional.silu(z + block.att(queries, keys, keys)[0].transpose(1, 2).reshape(z.shape))
    assert torch.allclose(block(z, block.keys_values(context)), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"context_length": 2}, "context_length: expected 1"),
        ({"context_grid": [8, 10]}, r"divisor of the latent grid's sides \(8x10\), got 4"),
        ({"max_att_resolution": 4}, "max_att_resolution: expected at least the 8 rows"),
        ({"block_out_channels": [32, 48]}, "multiples of 32 where frames look at their context"),
    ],
)
def test_configs_that_fit_nothing(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        tiny(**fields)


def test_clips_of_another_size() -> None:
    for shape, sentence in (((1, 3, 3, 16, 16), "got 3 of 16x16"), ((1, 1, 3, 16, 24), "got 1 of 16x24")):
        with pytest.raises(InputError, match=f"expected clips of 2 or more frames of 16x24 pixels, {sentence}"):
            tiny().encode(torch.rand(shape))
