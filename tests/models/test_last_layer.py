"""A last layer that computes answers alone gives what a whole one gives, and the same gradients."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma3TextConfig, LlamaConfig, Qwen3Config

from rlvr_world.models.attention import Tree, TreeLayout, hidden_states, share_prefixes
from rlvr_world.models.last_layer import answers_alone
from tests import tiny

SHAPE: dict[str, Any] = {**tiny.SHAPE, "vocab_size": 64}
LENGTHS, ASKED = (9, 4, 12, 1), (3, 1, 2, 1)
ROWS = [6, 7, 8, 12, 23, 24, 25]


def states(model: Any, asked: tuple[int, ...]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Hidden states that are asked for, and the gradients of a sum over them."""
    torch.manual_seed(1)
    ids, at = torch.randint(1, 64, (1, sum(LENGTHS))), torch.cat([torch.arange(n) for n in LENGTHS])[None]
    found = hidden_states(model, ids, at, TreeLayout(tuple(Tree(n, ()) for n in LENGTHS), asked))[0]
    found = found if asked else found[ROWS]
    (found.float() * torch.linspace(-1, 1, found.numel()).view_as(found)).sum().backward()
    return found.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", [LlamaConfig, Qwen3Config, Gemma3TextConfig])
@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 5e-6), (torch.bfloat16, 5e-2)])
def test_answers_alone_are_what_a_whole_layer_gives(kind: Any, dtype: torch.dtype, close: float) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(kind(**SHAPE)).eval().to(dtype)
    share_prefixes(model)
    whole, expected = states(copy.deepcopy(model), ())
    answers_alone(model)
    seen: list[int] = []
    model.get_decoder().layers[-1].mlp.register_forward_hook(lambda _, args, out: seen.append(args[0].shape[1]))
    answers, gradients = states(model, ASKED)
    assert seen == [sum(ASKED)]
    torch.testing.assert_close(answers, whole, atol=close, rtol=close)
    assert set(gradients) == set(expected)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], atol=close * float(expected[name].abs().max()), rtol=close)


def test_where_most_tokens_or_members_are_asked_for_the_layer_is_whole() -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(LlamaConfig(**SHAPE)).eval()
    share_prefixes(model)
    answers_alone(model)
    seen: list[int] = []
    model.get_decoder().layers[-1].mlp.register_forward_hook(lambda _, args, out: seen.append(args[0].shape[1]))
    ids, at = torch.arange(1, 9)[None], torch.arange(8)[None]
    for layout, left in (
        (TreeLayout((Tree(8, ()),), (5,)), 5),
        (TreeLayout((Tree(4, (2, 2)),), (4,)), 4),
        (TreeLayout((Tree(8, ()),)), 8),
    ):
        assert hidden_states(model, ids, at, layout).shape[1] == left
    assert seen == [8, 8, 8]
