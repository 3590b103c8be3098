"""Packed, shared-prefix training against a plain forward and backward of each sequence on its own."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
    SmolLM3Config,
)

from rlvr_world.config import ModelConfig, OptimizerConfig
from rlvr_world.training.learner import Learner
from rlvr_world.training.optimizer import learning_rate
from rlvr_world.training.packing import ALL, Branch, Group, Packed, pack
from tests import tiny

FREE_NORM = OptimizerConfig(1e-3, clip_norm=1e9)


def random_groups() -> list[Group]:
    """Ragged prompts and responses, forced tokens, groups of one, responses of one token, restricted tokens."""
    generator = torch.Generator().manual_seed(0)

    def ints(low: int, high: int, count: int) -> Tensor:
        return torch.randint(low, high, (count,), generator=generator)

    groups = []
    for prompt, sizes in ((9, (5, 1, 12)), (1, (4,)), (30, (1, 1)), (3, (1,)), (17, (8, 8, 3, 20))):
        branches = []
        for number, size in enumerate(sizes):
            trained = ints(0, 4, size) > 0
            trained[-1] = True
            legal = torch.tensor([ALL if i % 3 else (50, 120) for i in range(size)]) if number % 2 else None
            branches.append(
                Branch(
                    ids=ints(50, 120, size),
                    trained=trained,
                    weight=float(torch.rand((), generator=generator)) / 10,
                    advantage=float(torch.randn((), generator=generator)),
                    legal=legal,
                )
            )
        groups.append(Group(tuple(ints(0, 264, prompt).tolist()), tuple(branches)))
    return groups


GROUPS = random_groups()


def loss_of(logp_T: Tensor, entropy_T: Tensor, packed: Packed) -> Tensor:
    return -logp_T * packed.advantage_T + 0.1 * logp_T.exp() - 0.05 * entropy_T


def plain(model: Any, group: Group, branch: Branch, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Log-probs and entropies of the trained tokens by a plain forward of one sequence."""
    ids = torch.cat([torch.tensor(group.prompt), branch.ids])
    logits = model(input_ids=ids[None]).logits[0, len(group.prompt) - 1 : -1] / temperature
    if branch.legal is not None:
        column = torch.arange(logits.shape[1])
        legal = (column >= branch.legal[:, :1]) & (column < branch.legal[:, 1:])
        logits = logits.masked_fill(~legal, -1e30)
    logps = logits.log_softmax(-1)
    entropy = -(logps.exp() * logps).sum(-1)
    return logps.gather(1, branch.ids[:, None])[:, 0][branch.trained], entropy[branch.trained]


def plain_update(model: Any, groups: Sequence[Group], temperature: float = 1.0) -> tuple[float, list[Tensor]]:
    """Loss and gradients, one sequence at a time."""
    total = 0.0
    for group in groups:
        for branch in group.branches:
            logp_T, entropy_T = plain(model, group, branch, temperature)
            packed = pack([Group(group.prompt, (branch,))])
            loss = (packed.weight_T * loss_of(logp_T, entropy_T, packed)).sum()
            loss.backward()
            total += loss.item()
    return total, [p.grad for p in model.parameters() if p.requires_grad]


def packed_update(
    learner: Learner, groups: Sequence[Group], forward_tokens: int = 4096, temperature: float = 1.0
) -> tuple[float, list[Tensor]]:
    """Loss and gradients as the optimizer meets them."""
    met: list[Tensor] = []
    step = learner.optimizer.step
    learner.optimizer.step = lambda: met.extend(p.grad.clone() for p, _ in learner.trainable)  # type: ignore[method-assign]
    metrics = learner.update(groups, loss_of, 0.5, forward_tokens, temperature)
    learner.optimizer.step = step  # type: ignore[method-assign]
    return metrics["loss"], met


def distance(one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    """The largest difference of a gradient, relative to its norm."""
    assert len(one) == len(other)
    return max(float((a - b).norm() / b.norm()) for a, b in zip(one, other, strict=True) if b.norm() > 0)


def other_model(name: str) -> Any:
    shape: dict[str, Any] = {**tiny.SHAPE, "vocab_size": 264, "initializer_range": 0.1}
    torch.manual_seed(0)
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
    config = {
        "qwen2": lambda: Qwen2Config(**shape),
        "qwen3": lambda: Qwen3Config(**shape),
        "gemma3": lambda: Gemma3TextConfig(**shape, sliding_window=64),
        "smollm3": lambda: SmolLM3Config(**shape),
        "mixture": lambda: Qwen3MoeConfig(**shape, **experts),
    }[name]()
    return AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "gemma3", "smollm3", "mixture"])
@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probs_and_gradients_are_those_of_plain_sequences(
    kind: str, lora: bool, temperature: float, learner_of: Callable[..., Learner]
) -> None:
    base = None if kind == "llama" else other_model(kind)
    learner = learner_of(lora=lora, moved=lora, base=base, optimizer=FREE_NORM)
    reference = copy.deepcopy(learner.model)
    reference.set_attn_implementation("eager")
    with torch.no_grad():
        logp_T, entropy_T = learner.logps(pack(GROUPS), temperature)
        expected = [plain(reference, g, b, temperature) for g in GROUPS for b in g.branches]
    torch.testing.assert_close(logp_T, torch.cat([e[0] for e in expected]), atol=1e-5, rtol=0)
    torch.testing.assert_close(entropy_T, torch.cat([e[1] for e in expected]), atol=1e-5, rtol=0)
    loss, gradients = packed_update(learner, GROUPS, temperature=temperature)
    expected_loss, expected_gradients = plain_update(reference, GROUPS, temperature)
    assert loss == pytest.approx(expected_loss, abs=1e-5)
    assert distance(gradients, expected_gradients) < 1e-5


@pytest.mark.parametrize("lora", [False, True])
def test_micro_batches_and_order_change_nothing(lora: bool, learner_of: Callable[..., Learner]) -> None:
    learner = learner_of(lora=lora, moved=lora, optimizer=FREE_NORM)
    loss, gradients = packed_update(learner, GROUPS)
    for groups, forward_tokens in ((GROUPS, 1), (GROUPS, 40), (GROUPS[::-1], 4096), (GROUPS[2:] + GROUPS[:2], 60)):
        other_loss, other = packed_update(learner, groups, forward_tokens)
        assert other_loss == pytest.approx(loss, abs=1e-5)
        assert distance(other, gradients) < 1e-5


def test_no_sequence_sees_its_neighbours(learner_of: Callable[..., Learner]) -> None:
    learner = learner_of()
    group = GROUPS[4]
    first, second = group.branches[:2]
    changed = replace(second, ids=second.ids.flip(0))
    neighbour = replace(GROUPS[0], prompt=tuple(reversed(GROUPS[0].prompt)))

    def logps(groups: list[Group]) -> Tensor:
        with torch.no_grad():
            return learner.logps(pack(groups))[0]

    count = int(first.trained.sum())
    with_these = logps([Group(group.prompt, (first, second)), GROUPS[0]])
    with_those = logps([Group(group.prompt, (first, changed)), neighbour])
    assert torch.equal(with_these[:count], with_those[:count])
    assert not torch.allclose(with_these[count:], with_those[count:], atol=1e-3)


def test_gradient_checkpointing_changes_nothing(learner_of: Callable[..., Learner]) -> None:
    for lora in (False, True):
        _, expected = packed_update(learner_of(lora=lora, moved=lora, optimizer=FREE_NORM), GROUPS)
        saving = ModelConfig(precision="float32", device="cpu", gradient_checkpointing=True)
        learner = learner_of(lora=lora, moved=lora, model=saving, optimizer=FREE_NORM)
        _, gradients = packed_update(learner, GROUPS)
        assert distance(gradients, expected) < 1e-5


@pytest.mark.parametrize("lora", [False, True])
def test_bfloat16_forwards_train_float32_weights(lora: bool, learner_of: Callable[..., Learner]) -> None:
    exact = learner_of(lora=lora, moved=lora, optimizer=FREE_NORM)
    rounded = learner_of(
        lora=lora, moved=lora, model=ModelConfig(precision="bfloat16", device="cpu"), optimizer=FREE_NORM
    )
    assert {p.dtype for p in rounded.policy.parameters()} == {torch.bfloat16}
    assert {b.dtype for b in rounded.policy.buffers()} == {torch.float32}  # the frequencies of positions
    _, expected = packed_update(exact, GROUPS)
    _, gradients = packed_update(rounded, GROUPS, forward_tokens=40)
    assert {g.dtype for g in gradients} == {torch.float32}
    cosine = torch.cosine_similarity(*(torch.cat([g.flatten() for g in gs]) for gs in (gradients, expected)), dim=0)
    assert cosine > 0.99
    before = [p.clone() for p, _ in rounded.trainable]
    rounded.update(GROUPS, loss_of, 0.5, 4096)
    for (master, used), old in zip(rounded.trainable, before, strict=True):
        assert not torch.equal(master, old)
        assert torch.equal(used, master.to(torch.bfloat16))
        assert used.grad is None
        assert master.grad is None


def test_an_update_is_a_clipped_adamw_step(learner_of: Callable[..., Learner]) -> None:
    settings = OptimizerConfig(3e-3, weight_decay=0.1, beta1=0.8, beta2=0.95, clip_norm=0.01)
    learner = learner_of(optimizer=settings)
    reference = copy.deepcopy(learner.model)
    reference.set_attn_implementation("eager")
    optimizer = torch.optim.AdamW(reference.parameters(), lr=3e-3, betas=(0.8, 0.95), weight_decay=0.1)
    for _ in range(3):
        metrics = learner.update(GROUPS, loss_of, 0.5, 100)
        optimizer.zero_grad()
        loss, gradients = plain_update(reference, GROUPS)
        norm = math.sqrt(sum(float(g.square().sum()) for g in gradients))
        assert metrics["loss"] == pytest.approx(loss, abs=1e-5)
        assert metrics["grad_norm"] == pytest.approx(norm, rel=1e-4)
        assert norm > 0.01
        torch.nn.utils.clip_grad_norm_(reference.parameters(), 0.01)
        optimizer.step()
    for (name, ours), theirs in zip(learner.model.named_parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0, msg=name)


def test_the_learning_rate_warms_up_and_decays() -> None:
    cosine = OptimizerConfig(2.0, "cosine", warmup=0.2)
    expected = {0.0: 0.04, 0.1: 1.0, 0.2: 2.0, 0.6: 1.0, 1.0: 0.0, 1.5: 0.0}
    for progress, rate in expected.items():
        assert learning_rate(cosine, progress) == pytest.approx(rate, abs=1e-9)
    assert learning_rate(OptimizerConfig(2.0), 0.0) == learning_rate(OptimizerConfig(2.0), 1.0) == 2.0


def test_the_rate_in_force_is_the_one_reported(learner_of: Callable[..., Learner]) -> None:
    learner = learner_of(optimizer=OptimizerConfig(1.0, warmup=0.5))
    before = [p.clone() for p, _ in learner.trainable]
    assert learner.update(GROUPS, loss_of, 0.0, 4096)["learning_rate"] == 0.02, "a first step at rate 0 would be none"
    assert not any(torch.equal(p, old) for (p, _), old in zip(learner.trainable, before, strict=True))


def test_a_model_that_is_only_used_has_no_float32_weights(tiny: Callable[..., Any]) -> None:
    learner = Learner(tiny(), None, ModelConfig(precision="bfloat16", device="cpu"), None)
    assert learner.model is learner.policy
    assert {p.dtype for p in learner.policy.parameters()} == {torch.bfloat16}
    assert learner.policy.get_output_embeddings().weight is learner.policy.get_input_embeddings().weight
    trained = Learner(tiny(), None, ModelConfig(precision="bfloat16", device="cpu"), OptimizerConfig())
    assert trained.policy.get_output_embeddings().weight is trained.policy.get_input_embeddings().weight
    for used, other in zip(learner.policy.parameters(), trained.policy.parameters(), strict=True):
        assert torch.equal(used, other)
