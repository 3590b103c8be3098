"""Losses against numbers worked out by hand, against plain torch, and against TRL's own loss on the same tensors."""

import math
from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from rlvr_world.training.advantages import rollout_weights
from rlvr_world.training.losses import chosen_logps, kl_estimate, policy_loss

# Three rollouts of 2, 4 and 1 sampled tokens, side by side: log-probs now, when drawn, and of the reference.
LENGTHS = torch.tensor([2, 4, 1])
ROLLOUT = torch.repeat_interleave(torch.arange(3), LENGTHS)
LOGP = torch.tensor([-1.0, -0.2, -2.0, -0.7, -1.5, -0.1, -0.9])
OLD = torch.tensor([-1.3, -0.3, -1.6, -0.7, -1.1, -0.5, -1.15])
REF = torch.tensor([-1.1, -0.1, -1.0, -0.9, -1.6, -0.1, -3.0])
ADVANTAGE = torch.tensor([1.2, -0.4, 0.5])
MAX_RESPONSE = 6

# (aggregation, TRL's loss_type, clip_low, clip_high, KL coefficient, GSPO) and the loss that TRL 1.16.0 gives:
# GRPOTrainer._compute_loss on the tensors above, padded to [3, 4], with use_bias_correction_kl=False.
CASES = [
    (("sequence", "grpo", 0.2, 0.2, 0.0, False), -0.5246401),
    (("sequence", "grpo", 0.2, 0.28, 0.1, False), -0.5068759),  # clip-higher
    (("token", "bnpo", 0.2, 0.2, 0.1, False), -0.2188634),
    (("token", "dapo", 0.2, 0.28, 0.0, False), -0.2664965),
    (("constant", "dr_grpo", 0.2, 0.2, 0.1, False), -0.0851135),
    (("sequence", "grpo", 0.05, 0.05, 0.0, True), -0.4683333),  # GSPO
]


def ours(logp: Tensor, aggregation: str, clip_low: float, clip_high: float, kl: float, gspo: bool) -> Tensor:
    loss_T, _ = policy_loss(logp, OLD, ADVANTAGE[ROLLOUT], clip_low, clip_high, ROLLOUT if gspo else None)
    loss_T = loss_T + kl * kl_estimate(logp, REF, "k3")
    return (rollout_weights(LENGTHS, aggregation, MAX_RESPONSE)[ROLLOUT] * loss_T).sum()  # type: ignore[arg-type]


def trl_loss(logp: Tensor, loss_type: str, clip_low: float, clip_high: float, kl: float, gspo: bool) -> Tensor:
    trainer = pytest.importorskip("trl", reason="TRL is not installed").GRPOTrainer

    def padded(flat: Tensor) -> Tensor:
        return torch.nn.utils.rnn.pad_sequence(list(flat.split(LENGTHS.tolist())), batch_first=True)

    mask = padded(torch.ones(len(ROLLOUT)))
    inputs = {
        "prompt_ids": torch.ones(3, 1, dtype=torch.long),
        "prompt_mask": torch.ones(3, 1),
        "completion_ids": mask.long(),
        "completion_mask": mask,
        "advantages": ADVANTAGE,
        "old_per_token_logps": padded(OLD),
        "ref_per_token_logps": padded(REF),
        "num_items_in_batch": mask.sum(),
    }
    metrics: dict = {"train": defaultdict(list)}
    fake = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *_, **__: (padded(logp), torch.zeros_like(mask), None),
        _entropy_bonus_enabled=False,
        _metrics=metrics,
        accelerator=SimpleNamespace(num_processes=1, gather=lambda x: x, reduce=lambda x, reduction: x),
        args=SimpleNamespace(use_bias_correction_kl=False, delta=None, steps_per_generation=1),
        aux_loss_enabled=False,
        beta=kl,
        current_gradient_accumulation_steps=1,
        epsilon_low=clip_low,
        epsilon_high=clip_high,
        importance_sampling_level="sequence" if gspo else "token",
        loss_type=loss_type,
        max_completion_length=MAX_RESPONSE,
        model=SimpleNamespace(training=True),
        off_policy_mask_threshold=None,
        top_entropy_quantile=1.0,
        use_vllm=False,
    )
    return trainer._compute_loss(fake, None, inputs)


@pytest.mark.parametrize(("case", "expected"), CASES)
def test_the_loss_is_the_number_that_trl_gave(case: tuple, expected: float) -> None:
    aggregation, _, *settings = case
    assert ours(LOGP, aggregation, *settings).item() == pytest.approx(expected, abs=2e-7)


@pytest.mark.slow
@pytest.mark.parametrize(("case", "expected"), CASES)
def test_trl_itself_gives_this_loss_and_this_gradient(case: tuple, expected: float) -> None:
    aggregation, loss_type, *settings = case
    theirs_logp, our_logp = LOGP.clone().requires_grad_(), LOGP.clone().requires_grad_()
    theirs = trl_loss(theirs_logp, loss_type, *settings)
    assert theirs.item() == pytest.approx(expected, abs=2e-7)
    theirs.backward()
    ours(our_logp, aggregation, *settings).backward()
    torch.testing.assert_close(our_logp.grad, theirs_logp.grad, atol=1e-7, rtol=0)


def test_the_clip_worked_out_by_hand() -> None:
    # r A against clip(r) A, the smaller one, negated:
    #   r 1.5, A +1: min( 1.5,  1.2) -> -1.2 clipped      r 0.5, A +1: min( 0.5,  0.8) -> -0.5
    #   r 1.5, A -1: min(-1.5, -1.2) ->  1.5              r 0.5, A -1: min(-0.5, -0.8) ->  0.8 clipped
    logp = torch.tensor([1.5, 1.5, 0.5, 0.5]).log().requires_grad_()
    loss, clipped = policy_loss(logp, torch.zeros(4), torch.tensor([1.0, -1.0, 1.0, -1.0]), 0.2, 0.2)
    torch.testing.assert_close(loss, torch.tensor([-1.2, 1.5, -0.5, 0.8]))
    assert clipped.tolist() == [True, False, False, True]
    loss.sum().backward()
    torch.testing.assert_close(logp.grad, torch.tensor([0.0, 1.5, -0.5, 0.0]))  # -r A where not clipped


def test_clip_higher_lets_good_tokens_grow_further() -> None:
    logp = torch.tensor([math.log(1.25)])
    losses = [policy_loss(logp, torch.zeros(1), torch.ones(1), 0.2, high) for high in (0.2, 0.28)]
    assert [loss.item() for loss, _ in losses] == pytest.approx([-1.2, -1.25])
    assert [clipped.item() for _, clipped in losses] == [True, False]


def test_kl_estimates_worked_out_by_hand() -> None:
    # d = ref - logp = ln 2: k1 = -0.693147, k2 = 0.693147^2 / 2 = 0.240227, k3 = 2 - 0.693147 - 1 = 0.306853
    logp, ref = torch.tensor([-1.0]), torch.tensor([-1.0 + math.log(2)])
    values = [kl_estimate(logp, ref, kind).item() for kind in ("k1", "k2", "k3")]
    assert values == pytest.approx([-0.693147, 0.240227, 0.306853], abs=1e-6)
    assert kl_estimate(torch.tensor([-5.0]), torch.tensor([0.0])).item() == 10.0  # e^5 - 6 = 142.4, clamped


def test_a_policy_that_collapsed_gives_finite_gradients() -> None:
    logp = torch.tensor([-200.0, 0.0, 0.0], requires_grad=True)
    other = torch.tensor([0.0, -200.0, -200.0])
    loss, _ = policy_loss(logp, other, torch.tensor([1.0, 0.0, -1.0]))
    (loss + kl_estimate(logp, other)).sum().backward()
    assert torch.isfinite(logp.grad).all()


RANGES = (torch.tensor([2, 2, 0, 8, 1, 3, 6]), torch.tensor([4, 9, 11, 10, 5, 4, 8]))
CHOSEN = torch.tensor([2, 3, 5, 9, 4, 3, 6])


def head(dtype: torch.dtype, tokens: int = 7, width: int = 5, vocabulary: int = 11) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((tokens, width), (vocabulary, width))
    hidden, weight = (torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes)
    return hidden.requires_grad_(), weight.requires_grad_()


def plain(
    hidden: Tensor, weight: Tensor, allowed: tuple[Tensor, Tensor] | None, temperature: float
) -> tuple[Tensor, Tensor]:
    logits = hidden @ weight.T / temperature
    if allowed is not None:
        index = torch.arange(weight.shape[0])
        logits = logits.masked_fill((index < allowed[0][:, None]) | (index >= allowed[1][:, None]), -torch.inf)
    logp = logits.log_softmax(-1).gather(1, CHOSEN[:, None])[:, 0]
    return logp, torch.distributions.Categorical(logits=logits).entropy()


@pytest.mark.parametrize("allowed", [None, RANGES, (torch.full((7,), 2), torch.full((7,), 10))])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probs_equal_torch_and_gradients_are_right(allowed: tuple | None, temperature: float) -> None:
    got = chosen_logps(*head(torch.float32), CHOSEN, allowed, chunk=3, temperature=temperature)
    for ours_T, plain_T in zip(got, plain(*head(torch.float32), allowed, temperature), strict=True):
        torch.testing.assert_close(ours_T, plain_T, atol=1e-6, rtol=1e-6)
    # gradcheck differentiates both outputs, log-probability and entropy, in hidden states and head.
    assert torch.autograd.gradcheck(
        lambda hidden, weight: chosen_logps(hidden, weight, CHOSEN, allowed, chunk=3, temperature=temperature),
        head(torch.float64),
    )


def test_tied_weights_get_both_gradients() -> None:
    def gradient(fused: bool) -> Tensor:
        _, weight = head(torch.float64)
        hidden = torch.tanh(weight[CHOSEN])  # the embedding is the head
        outputs = chosen_logps(hidden, weight, CHOSEN, chunk=2) if fused else plain(hidden, weight, None, 1.0)
        (outputs[0].sum() - 0.3 * outputs[1].sum()).backward()
        return weight.grad

    torch.testing.assert_close(gradient(fused=True), gradient(fused=False))


def test_frozen_heads_get_no_gradient() -> None:
    hidden, weight = head(torch.float32)
    weight.requires_grad_(False)
    chosen_logps(hidden, weight, CHOSEN)[0].sum().backward()
    assert hidden.grad is not None
    assert weight.grad is None


def test_bfloat16_autocast_rounds_logits_and_nothing_else() -> None:
    hidden, weight = head(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        logp, entropy = chosen_logps(hidden, weight, CHOSEN, chunk=3)
        logits = (hidden @ weight.T).float()
    assert logp.dtype == entropy.dtype == torch.float32
    torch.testing.assert_close(logp, logits.log_softmax(-1).gather(1, CHOSEN[:, None])[:, 0], atol=1e-6, rtol=1e-6)
    logp.sum().backward()
    exact_hidden, exact_weight = head(torch.float32)
    plain(exact_hidden, exact_weight, None, 1.0)[0].sum().backward()
    assert weight.grad.dtype == torch.float32
    torch.testing.assert_close(weight.grad, exact_weight.grad, atol=0.05, rtol=0.02)
    torch.testing.assert_close(hidden.grad, exact_hidden.grad, atol=0.05, rtol=0.02)


def test_no_tensor_is_larger_than_a_chunk_of_logits() -> None:
    class Largest(TorchDispatchMode):
        seen = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            out = func(*args, **(kwargs or {}))
            self.seen = max(self.seen, *(t.numel() for t in [out] if isinstance(t, Tensor)), 0)
            return out

    hidden, weight = head(torch.float32, tokens=64, width=2, vocabulary=50)
    with Largest() as largest:
        chosen_logps(hidden, weight, torch.arange(64) % 50, chunk=4)[0].sum().backward()
    assert largest.seen <= 4 * 50


def test_an_illegal_token_is_an_error_and_no_tokens_are_none() -> None:
    hidden, weight = head(torch.float32)
    for ids, allowed in [(CHOSEN + 1, RANGES), (CHOSEN + 8, None), (CHOSEN, (RANGES[0], RANGES[1] + 1))]:
        with pytest.raises(ValueError, match="allowed range"):
            chosen_logps(hidden, weight, ids, allowed)
    logp, _ = chosen_logps(hidden[:0], weight, CHOSEN[:0])
    assert logp.shape == (0,)
    logp.sum().backward()
