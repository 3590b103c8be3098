"""A probe reads a square's place off frames that it has not seen, the same way each time."""

from __future__ import annotations

import pytest
import torch

from rlvr_world.recipes.recorded import fit_probe


def squares(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(seed)
    places = torch.randint(0, 20, (count, 2), generator=draws)
    frames = torch.ones(count, 3, 24, 24)
    for frame, (y, x) in zip(frames, places.tolist(), strict=True):
        frame[1:, y : y + 4, x : x + 4] = 0
    return frames, places.float()


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlvr_world.recipes.recorded.STEPS", 100)


def test_a_place_is_read_off_frames() -> None:
    frames, places = squares(600, 0)
    probe, (unseen, true) = fit_probe(frames, places, 0), squares(100, 1)
    assert (probe(unseen) - true).abs().mean() < 1.5  # guessing the middle is 5 off
    assert torch.equal(fit_probe(frames, places, 0)(unseen), probe(unseen))


def test_what_never_varies_is_told_as_it_is() -> None:
    frames, places = squares(80, 0)
    told = fit_probe(frames, torch.cat([places, torch.full((80, 1), 7.0)], 1), 0)(frames)
    assert (told[:, 2] - 7).abs().max() < 1e-3
