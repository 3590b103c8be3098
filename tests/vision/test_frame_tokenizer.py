"""The per-frame tokenizer: the reference's tokens and pictures, the published size, folders, any picture size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from rlvr_world.errors import InputError
from rlvr_world.system import ranks
from rlvr_world.vision.blocks import CodeNorm
from rlvr_world.vision.frame_tokenizer import FrameTokenizer
from rlvr_world.vision.loading import fingerprint, load_visual_tokenizer


def tiny(**changes: Any) -> FrameTokenizer:
    fields: dict[str, Any] = {
        "block_out_channels": [16, 32, 32],
        "layers_per_block": 1,
        "latent_channels": 8,
        "norm_num_groups": 16,
        "resolution": 16,
        "fsq_levels": [4, 3],
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return FrameTokenizer(**{**fields, **changes})


@pytest.mark.parametrize("name", ["frame_tokenizer_a", "frame_tokenizer_b"])
def test_tokens_and_pictures_equal_the_reference(shared: Path, name: str) -> None:
    folder = shared / "golden/given" / name
    tokenizer = load_visual_tokenizer(folder)
    assert isinstance(tokenizer, FrameTokenizer)
    seen: list[torch.Tensor] = []
    tokenizer.encoder.register_forward_hook(lambda module, arguments, output: seen.append(output[0]))
    for size in ("small", "large"):
        data = load_file(folder / f"io_{size}.safetensors")
        frames = (data["frames_uint8"].float() / 255).flatten(0, 1)
        with torch.no_grad():
            indices = tokenizer.encode(frames)
            decoded = tokenizer.decode(indices)
            multiples = tokenizer.decode(data["random_indices_plus_multiples"].flatten(0, 1))
        assert torch.equal(indices, data["indices"].flatten(0, 1).long())
        assert torch.allclose(seen[-1], data["encoder_out"], rtol=0, atol=1e-4)
        assert torch.allclose(tokenizer.quant_linear(seen[-1]), data["latents"], rtol=0, atol=1e-4)
        assert torch.allclose(decoded, data["decoded"].flatten(0, 1), rtol=0, atol=1e-4)
        assert torch.allclose(multiples, data["random_decoded"].flatten(0, 1), rtol=0, atol=1e-4)


def test_the_published_size_has_the_published_weights(shared: Path) -> None:
    published = json.loads((shared / "golden/given/full_size_state_dict_shapes.json").read_text())["frame_tokenizer"]
    with torch.device("meta"):
        tokenizer = FrameTokenizer()
    assert {name: list(tensor.shape) for name, tensor in tokenizer.state_dict().items()} == dict(published["shapes"])
    assert sum(weight.numel() for weight in tokenizer.parameters()) == 104_414_088
    fields = json.loads(tokenizer.to_json_string())
    assert fields.pop("_class_name") == "CNNFSQModel256"
    del fields["_diffusers_version"]
    assert fields == {name: value for name, value in published["config"].items() if not name.startswith("_")}


def test_a_saved_folder_is_the_same_tokenizer(tmp_path: Path, shared: Path) -> None:
    tokenizer = tiny()
    tokenizer.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "diffusion_pytorch_model.safetensors"]
    config = json.loads((tmp_path / "config.json").read_text())
    assert config.keys() == json.loads((shared / "golden/given/frame_tokenizer_a/config.json").read_text()).keys()
    loaded = load_visual_tokenizer(tmp_path)
    assert fingerprint(loaded) == fingerprint(tokenizer) == fingerprint(FrameTokenizer.from_pretrained(tmp_path))
    assert not loaded.training
    assert not any(weight.requires_grad for weight in loaded.parameters())


def test_the_fingerprint_knows_weights_types_and_fields() -> None:
    other = tiny()
    with torch.no_grad():
        other.decoder.conv_out.bias[1] += 1e-3
    prints = [fingerprint(t) for t in (tiny(), other, tiny().to(torch.bfloat16), tiny(fsq_levels=[3, 4]))]
    assert len(set(prints)) == 4
    assert all(len(print_) == 12 for print_ in prints)


def test_any_size_and_any_number_of_stages() -> None:
    frames = torch.rand(2, 3, 24, 40)
    for widths, step in (([16], 1), ([16, 16], 2), ([16, 32, 16, 16], 8)):
        tokenizer = tiny(block_out_channels=widths)
        assert tokenizer.downsampling == step
        assert tokenizer.grid(24, 40) == (24 // step, 40 // step)
        indices = tokenizer.encode(frames)
        assert indices.shape == (2, 24 // step, 40 // step)
        assert indices.dtype == torch.int64
        assert int(indices.max()) < tokenizer.codebook_size == 12
        assert tokenizer.decode(indices).shape == frames.shape


def test_training_reaches_every_weight_and_evaluation_decodes_what_it_saw() -> None:
    tokenizer, frames = tiny(), torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        tokenizer.quant_linear.weight *= 20  # or all codes of the untrained model are 0
    reconstruction, indices = tokenizer(frames)
    (reconstruction - frames).abs().mean().backward()
    for name, weight in tokenizer.named_parameters():
        assert weight.grad is not None, name
        # A key's bias shifts all scores of a query alike, which softmax does not see.
        assert weight.grad.abs().max() > 0 or name.endswith("to_k.bias"), name
    assert torch.equal(indices, tokenizer.encode(frames))
    assert torch.allclose(reconstruction, tokenizer.decode(indices), atol=1e-5)


def test_a_bfloat16_copy_gives_float32_pictures() -> None:
    tokenizer = tiny().to(torch.bfloat16)
    reconstruction, indices = tokenizer(torch.rand(1, 3, 16, 16))
    assert reconstruction.dtype == torch.float32
    assert indices.shape == (1, 4, 4)


def test_frames_that_do_not_divide() -> None:
    for size in ((18, 16), (16, 2), (0, 16)):
        with pytest.raises(InputError, match=f"multiples of 4 pixels, got {size[0]}x{size[1]}"):
            tiny().encode(torch.rand(1, 3, *size))


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"block_out_channels": []}, "at least one width"),
        ({"block_out_channels": [16, 24, 32]}, r"multiples of norm_num_groups \(16\), got 24"),
        ({"down_block_types": ["DownEncoderBlock2D"]}, "down_block_types: expected 3 times"),
        ({"up_block_types": ["A", "B", "C"]}, "up_block_types: expected 3 times"),
        ({"norm_type": "spatial"}, "norm_type: expected 'group'"),
        ({"fsq_levels": 9}, "FSQ levels"),
    ],
)
def test_configs_that_fit_nothing(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        tiny(**fields)


def test_folders_that_are_no_tokenizer(tmp_path: Path) -> None:
    folder = tmp_path / "tokenizer"
    config, weights = folder / "config.json", folder / "diffusion_pytorch_model.safetensors"

    def fails(sentence: str) -> None:
        with pytest.raises(InputError, match=sentence):
            load_visual_tokenizer(folder)
        tiny().save_pretrained(folder)

    fails("there is no such folder")
    weights.unlink()
    fails("has no diffusion_pytorch_model.safetensors")
    config.write_text("{")
    fails("config.json: expected JSON")
    config.write_text("[]")
    fails("config.json: expected an object")
    config.write_text('{"_class_name": "AutoencoderKL"}')
    fails("got 'AutoencoderKL'")
    config.write_text(config.read_text().replace("fsq_levels", "fsq_level"))
    fails("unexpected keyword argument 'fsq_level'")
    config.write_text(config.read_text().replace('"norm_num_groups": 16', '"norm_num_groups": 0'))
    fails("no FrameTokenizer can be built from config.json")
    config.write_text("[" * 100_000)
    fails("config.json: expected JSON")
    weights.write_bytes(weights.read_bytes()[:-100])
    fails("cannot be read .* copy it again")
    tensors = load_file(weights)
    save_file({**tensors, "extra": torch.zeros(3)}, weights)
    fails(r'is not that of config.json: Unexpected key\(s\) in state_dict: "extra"')
    del tensors["encoder.conv_in.bias"]
    save_file(tensors, weights)
    fails(r'Missing key\(s\) in state_dict: "encoder.conv_in.bias"')
    tiny(block_out_channels=[16, 16, 32]).save_pretrained(tmp_path / "other")
    weights.write_bytes((tmp_path / "other" / weights.name).read_bytes())
    fails(r"key\(s\) in state_dict: .*.up_blocks.\d.*; copy both again")


def test_a_hub_name_that_cannot_be_fetched() -> None:
    with pytest.raises(InputError, match=r"nobody/nothing: there is no such folder, and the Hugging Face hub gave no"):
        load_visual_tokenizer("nobody/nothing")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_codes_are_normed_over_the_batch_of_all_ranks(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ranks of the same latents make what one makes of both."""
    latents, alone, shared = torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(0)), CodeNorm(2), CodeNorm(2)
    latents = (3 * latents + 1).to(dtype)
    wanted = alone(torch.cat([latents, latents]))[:3]
    monkeypatch.setattr(ranks, "size", lambda: 2)
    monkeypatch.setattr(ranks, "total", lambda numbers: 2 * numbers)
    found = shared(latents)
    assert found.dtype == wanted.dtype == dtype
    torch.testing.assert_close(found, wanted)
    for one, other in zip(shared.buffers(), alone.buffers(), strict=True):
        torch.testing.assert_close(one, other)
