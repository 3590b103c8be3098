"""FSQ: what it rounds to, how codes are counted, and the reference's own outputs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from rlvr_world.errors import InputError
from rlvr_world.vision.fsq import FSQ, PRESETS, levels_of

LEVELS = st.lists(st.integers(2, 9), min_size=1, max_size=4)


@given(LEVELS)
@settings(max_examples=30, deadline=None)
def test_every_code_survives_the_way_there_and_back(levels: list[int]) -> None:
    fsq = FSQ(levels)
    indices = torch.arange(fsq.size)
    codes = fsq.codes_of(indices)
    centre = torch.tensor(fsq.levels) // 2
    # A latent that the bound maps right onto the level.
    half = (torch.tensor(fsq.levels) - 1) * (1 + 1e-3) / 2
    offset = torch.where(torch.tensor(fsq.levels) % 2 == 0, 0.5, 0.0)
    latents = torch.atanh((codes * centre + offset) / half) - torch.atanh(offset / half)
    found, again = fsq.quantize(latents)
    assert torch.equal(again, indices)
    assert torch.allclose(found, codes, atol=1e-6)
    assert torch.equal(fsq.codes_of(indices + 3 * fsq.size), codes)


@given(LEVELS, st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_indices_stay_in_the_codebook_however_large_the_latents(levels: list[int], seed: int) -> None:
    fsq = FSQ(levels)
    latents = 50 * torch.randn(40, len(levels), generator=torch.Generator().manual_seed(seed))
    indices = fsq.quantize(latents)[1]
    assert indices.dtype == torch.int64
    assert int(indices.min()) >= 0
    assert int(indices.max()) < fsq.size


def test_gradients_pass_as_if_nothing_were_rounded() -> None:
    fsq = FSQ(12)
    latents = torch.randn(6, 5, requires_grad=True)
    fsq.quantize(latents)[0].sum().backward()
    (bounded,) = torch.autograd.grad((fsq.bound(latents) / torch.tensor([3, 2, 2, 2, 2])).sum(), latents)
    assert latents.grad is not None
    assert torch.allclose(latents.grad, bounded)


def test_bfloat16_latents_are_quantised_in_float32_and_the_tables_stay_exact() -> None:
    fsq, latents = FSQ(12).to(torch.bfloat16), torch.randn(200, 5).bfloat16()
    codes, indices = fsq.quantize(latents)
    assert torch.equal(indices, FSQ(12).quantize(latents.float())[1])
    assert codes.dtype == torch.bfloat16
    assert fsq.codes_of(indices).dtype == torch.float32


def test_it_leaves_nothing_in_the_state_dict() -> None:
    assert not FSQ(12).state_dict()


def test_levels_that_are_none() -> None:
    assert levels_of(12) == (7, 5, 5, 5, 5)
    assert levels_of([4, 3]) == (4, 3)
    for wrong in (11, [], [5, 1], [5.0]):
        with pytest.raises(InputError, match="FSQ levels"):
            levels_of(wrong)  # type: ignore[arg-type]


def test_it_equals_the_reference(shared: Path) -> None:
    data = load_file(shared / "golden/given/fsq.safetensors")
    described = json.loads((shared / "golden/given/fsq.json").read_text())
    names = {key.split(".")[0] for key in data}
    assert len(names) == 5
    for name in names:
        case = {key.split(".")[1]: value for key, value in data.items() if key.split(".")[0] == name}
        fsq = FSQ(described[name]["levels"])
        codes, indices = fsq.quantize(case["latents"])
        assert torch.equal(indices, case["indices"].long()), name
        assert torch.allclose(codes, case["codes"], atol=1e-6), name
        assert torch.allclose(fsq.bound(case["latents"]), case["bounded"], atol=1e-6), name
        codes, indices = fsq.quantize(case["grid_latents"], dim=1)
        assert torch.equal(indices, case["grid_indices"].long()), name
        assert torch.allclose(codes, case["grid_codes"], atol=1e-6), name
        assert torch.allclose(fsq.codes_of(case["decode_indices"]), case["decoded_codes"], atol=1e-6), name
        assert torch.allclose(fsq.codes_of(case["decode_grid"], dim=1), case["decoded_grid"], atol=1e-6), name


def test_the_presets_are_about_as_large_as_they_say() -> None:
    for bits, levels in PRESETS.items():
        assert abs(torch.tensor(levels).prod().log2().item() - bits) < 0.35
