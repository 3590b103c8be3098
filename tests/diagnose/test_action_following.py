"""Whether predictions follow the action, on worlds where it is known how much they do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from rlvr_world.diagnose.studies import action_following
from rlvr_world.errors import InputError
from rlvr_world.evaluation.evaluate import Plan
from rlvr_world.models.attention import share_prefixes
from rlvr_world.types import Given, Score, Script, Transition, Write


class Told:
    """The only legal token is the action (``listens``) or always the same one; right is the row's own action."""

    lower_is_better = frozenset({"error", "never measured"})

    def __init__(self, listens: bool) -> None:
        self.listens = listens

    def encode(self, transition: Transition) -> Script:
        token = transition.action if self.listens else 3
        return Script((Given((1, transition.state)), Write(2, allowed=range(token, token + 1))))

    def decode(self, written: Sequence[Sequence[int]], transition: Transition) -> int:
        return written[0][0]

    def score(self, prediction: int, transition: Transition) -> Score:
        return Score(float(prediction == transition.next_state), {"error": float(prediction == transition.next_state)})

    def baselines(self, transition: Transition) -> Mapping[str, Any]:
        return {}

    def explain(self, prediction: int, transition: Transition) -> str:
        return ""


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    shape = LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    made = LlamaForCausalLM(shape)
    share_prefixes(made)
    return made


ROWS = [Transition(f"r{i}", i, 5 + i, 5 + i) for i in range(12)]


def test_a_model_that_listens_and_one_that_does_not(model: LlamaForCausalLM) -> None:
    heard = action_following(model, Told(True), ROWS, 4, Plan())
    assert heard["closest"]["mean"] == heard["gain"]["mean"] == heard["tokens_changed"]["mean"] == 1.0
    assert heard["closest_error"]["mean"] == 0  # an error that only the right answer makes
    deaf = action_following(model, Told(False), ROWS, 4, Plan())
    assert deaf["closest"]["mean"] == pytest.approx(0.25) == deaf["chance"]
    assert deaf["closest_error"]["mean"] == pytest.approx(0.25)
    assert deaf["gain"]["mean"] == deaf["tokens_changed"]["mean"] == 0.0


def test_more_actions_than_rows_are_refused(model: LlamaForCausalLM) -> None:
    with pytest.raises(InputError, match="expected 2 to 12, the number of test rows, got 13"):
        action_following(model, Told(True), ROWS, 13, Plan())
    assert torch.is_grad_enabled()
