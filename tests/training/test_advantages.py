from collections.abc import Sequence
from itertools import combinations, product

import pytest
import torch

from rlvr_world.training.advantages import (
    drawn_by_spread,
    group_advantages,
    max_at_k,
    rollout_weights,
    zero_variance,
)


def test_advantages_worked_out_by_hand() -> None:
    # Rewards 0, 0, 0, 1: mean 0.25; sum of squares 3 * 0.0625 + 0.5625 = 0.75; std sqrt(0.75 / 3) = 0.5.
    # Rewards 1, 3, 1, 3: mean 2; std sqrt(4 / 3) = 1.154701.
    rewards = torch.tensor([[0.0, 0.0, 0.0, 1.0], [1.0, 3.0, 1.0, 3.0]])
    expected = torch.tensor([[-0.5, -0.5, -0.5, 1.5], [-0.866025, 0.866025, -0.866025, 0.866025]])
    torch.testing.assert_close(group_advantages(rewards, "group"), expected, atol=3e-6, rtol=0)
    centred = torch.tensor([[-0.25, -0.25, -0.25, 0.75], [-1.0, 1.0, -1.0, 1.0]])
    torch.testing.assert_close(group_advantages(rewards, "none"), centred)
    # All eight: mean 1.125; sum of squares 3 * 1.265625 + 3 * 0.015625 + 2 * 3.515625 = 10.875; std sqrt(10.875 / 7).
    torch.testing.assert_close(group_advantages(rewards, "batch"), centred / 1.246423, atol=3e-6, rtol=0)


def best(group: Sequence[float], k: int) -> float:
    """The mean of the maximum over all subsets of k."""
    return sum(map(max, subsets := list(combinations(group, k)))) / len(subsets)


def test_the_best_of_k_is_the_mean_over_all_subsets() -> None:
    rewards = [[0.1, 0.9, 0.4, 0.4, 0.7], [0.0, 0.0, 1.0, 0.0, 0.0]]
    for k in range(1, 6):
        expected = torch.tensor([best(group, k) for group in rewards], dtype=torch.float64)
        torch.testing.assert_close(max_at_k(torch.tensor(rewards, dtype=torch.float64), k), expected)


def test_the_advantage_of_the_best_of_k_is_what_a_rollout_adds_to_it() -> None:
    group = [0.1, 0.9, 0.4, 0.4, 0.7]
    for k in range(1, 5):
        gains = torch.tensor([best(group, k) - best(group[:i] + group[i + 1 :], k) for i in range(5)])
        told = group_advantages(torch.tensor([group]), "max@k", k)[0]
        torch.testing.assert_close(told, gains / gains.std(), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        group_advantages(torch.tensor([group]), "max@k", 1),
        group_advantages(torch.tensor([group])),
        atol=1e-5,
        rtol=0,
    )
    many_right = torch.tensor([[1.0, 1.0, 1.0, 0.0, 0.0]])
    torch.testing.assert_close(group_advantages(many_right, "max@k", 3), torch.zeros(1, 5))


def test_it_is_the_gradient_of_the_expected_best_of_k() -> None:
    """Before it is divided: over all draws of groups of 3 from a policy over three outcomes, k = 2."""
    logits = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64, requires_grad=True)
    rewards, n, k = (0.2, 0.5, 1.0), 3, 2
    logps = logits.log_softmax(0)
    expected = sum(
        logps[list(pick)].sum().exp() * max(rewards[i] for i in pick) for pick in product(range(3), repeat=k)
    )
    [wanted] = torch.autograd.grad(expected, logits, retain_graph=True)
    found = torch.zeros(3, dtype=torch.float64)
    for pick in product(range(3), repeat=n):
        group = [rewards[i] for i in pick]
        gains = [n * (best(group, k) - best(group[:i] + group[i + 1 :], k)) for i in range(n)]
        loss = sum(gain * logps[i] / n for gain, i in zip(gains, pick, strict=True))
        [gradient] = torch.autograd.grad(loss, logits, retain_graph=True)
        found += logps[list(pick)].sum().exp().detach() * gradient
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("normalise", ["group", "batch", "none", "max@k"])
def test_equal_rewards_teach_exactly_nothing(normalise: str) -> None:
    # The mean of ten float32 0.27 is not 0.27: without care, rounding over epsilon becomes an advantage.
    rewards = torch.full((2, 10), 0.27)
    assert (group_advantages(rewards, normalise) == 0).all()  # type: ignore[arg-type]
    mixed = torch.stack([torch.full((4,), 0.27), torch.tensor([0.27, 0.27, 0.27, 0.9])])
    assert zero_variance(mixed).tolist() == [True, False]
    advantages = group_advantages(mixed, normalise)  # type: ignore[arg-type]
    assert (advantages[0] == 0).all()
    assert (advantages[1] != 0).all()


def test_rewards_a_hair_apart_are_not_equal() -> None:
    hair = torch.tensor([[0.27, 0.27 + 1e-7]])
    assert hair[0, 0] != hair[0, 1]
    assert zero_variance(hair).tolist() == [False]


def test_weights_worked_out_by_hand() -> None:
    lengths = torch.tensor([2, 4, 0])  # a rollout that was forced throughout counts, and weighs nothing
    torch.testing.assert_close(rollout_weights(lengths, "token", 8), torch.tensor([1 / 6, 1 / 6, 0.0]))
    torch.testing.assert_close(rollout_weights(lengths, "sequence", 8), torch.tensor([1 / 6, 1 / 12, 0.0]))
    torch.testing.assert_close(rollout_weights(lengths, "constant", 8), torch.tensor([1 / 24, 1 / 24, 0.0]))


def test_rows_are_drawn_by_the_spread_last_seen() -> None:
    spreads = [0.4, 0.0, None, 0.1, 0.3]  # the mean of those seen is 0.2
    first = [drawn_by_spread(spreads, 1, [7, step])[0] for step in range(4000)]
    weights = torch.tensor([0.4, 0.02, 0.2, 0.1, 0.3])
    shares = torch.bincount(torch.tensor(first), minlength=5) / len(first)
    torch.testing.assert_close(shares, weights / weights.sum(), atol=0.025, rtol=0)
    assert sorted(drawn_by_spread(spreads, 5, [7, 0])) == list(range(5)), "none of them twice"
    assert drawn_by_spread(spreads, 12, [7, 0])[:10] == drawn_by_spread(spreads, 5, [7, 0]) * 2
    assert drawn_by_spread(spreads, 3, [7, 1]) != drawn_by_spread(spreads, 3, [7, 2])
    assert sorted(drawn_by_spread([0.0, None, 0.0], 3, [1])) == [0, 1, 2], "without any spread all count the same"
