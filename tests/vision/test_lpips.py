"""LPIPS with random weights: what must hold whatever the trunk has learnt. Known values are in test_metrics.py."""

from __future__ import annotations

import pytest
import torch

from rlvr_world.errors import InputError
from rlvr_world.vision.config import SMALLEST
from rlvr_world.vision.lpips import HEADS, LPIPS


@pytest.fixture(scope="module", params=["alex", "vgg"])
def lpips(request: pytest.FixtureRequest) -> LPIPS:
    torch.manual_seed(0)
    return LPIPS(request.param)


def frames(count: int, size: int = 32, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def test_is_zero_for_equal_pictures_symmetric_and_positive(lpips: LPIPS) -> None:
    a, b = frames(3), frames(3, seed=1)
    assert torch.equal(lpips(a, a), torch.zeros(3))
    torch.testing.assert_close(lpips(a, b), lpips(b, a), rtol=1e-5, atol=0)
    assert (lpips(a, b) > 0).all()


def test_features_are_five_maps_of_unit_length(lpips: LPIPS) -> None:
    features = lpips.features(frames(2, size=64))
    assert tuple(map_.shape[1] for map_ in features) == HEADS[lpips.backbone]
    for map_ in features:
        length = map_.norm(dim=1)
        torch.testing.assert_close(length[length > 0], torch.ones_like(length[length > 0]))


def test_one_truth_is_compared_with_every_prediction(lpips: LPIPS) -> None:
    a, truth = frames(4), frames(1, seed=1)
    looped = torch.cat([lpips(one[None], truth) for one in a])
    torch.testing.assert_close(lpips.distance(lpips.features(a), lpips.features(truth)), looped, rtol=1e-5, atol=0)


def test_gradients_reach_the_first_picture_and_no_weight(lpips: LPIPS) -> None:
    a = frames(2).requires_grad_()
    lpips(a, frames(2, seed=1)).sum().backward()
    assert a.grad is not None
    assert a.grad.isfinite().all()
    assert (a.grad.flatten(1).norm(dim=1) > 0).all()
    assert all(weight.grad is None and not weight.requires_grad for weight in lpips.parameters())


def test_bfloat16_trunk_gives_nearly_the_same_distance_in_float32() -> None:
    torch.manual_seed(0)
    lpips = LPIPS("alex")
    a, b = frames(4), frames(4, seed=1)
    exact = lpips(a, b)
    lpips.trunk.to(torch.bfloat16)
    rounded = lpips(a, b)
    assert lpips.features(a)[0].dtype == torch.bfloat16
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, rtol=0.02, atol=0)
    assert torch.equal(lpips(a, a), torch.zeros(4))


def test_smallest_picture_runs_and_a_smaller_one_is_refused(lpips: LPIPS) -> None:
    least = SMALLEST[lpips.backbone]
    assert lpips(frames(1, least), frames(1, least, seed=1)).shape == (1,)
    with pytest.raises(InputError, match=f"at least {least} pixels a side, got"):
        lpips.features(frames(1, least - 1))
    with pytest.raises(InputError, match="RGB pictures"):
        lpips.features(torch.rand(1, 1, 64, 64))
