"""Likelihood training against the cross-entropy of a plain forward, and which rows a step takes."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlvr_world.config import OptimizerConfig, SFTConfig
from rlvr_world.training import sft
from rlvr_world.training.learner import Learner
from rlvr_world.training.sft import SFT, rows_of_step
from rlvr_world.types import Given, Script, Write

SCRIPTS = [
    Script((Given((5, 6, 7)), Write(9, target=(20, 21, 2)))),
    Script((Given((9,)), Write(9, target=(30, 31, 32, 33)), Given((40, 41)), Write(9, target=(50, 2)))),
    Script((Given(tuple(range(60, 90))), Write(9, target=(2,)))),
]


@given(st.integers(1, 12), st.integers(1, 30), st.integers(0, 5))
def test_each_epoch_takes_every_row_once(rows: int, batch: int, seed: int) -> None:
    steps = -(-3 * rows // batch)
    taken = [row for step in range(steps) for row in rows_of_step(rows, batch, step, seed)]
    assert len(taken) == steps * batch
    for epoch in range(3):
        assert sorted(taken[epoch * rows : (epoch + 1) * rows]) == list(range(rows))


def test_epochs_and_seeds_order_rows_differently() -> None:
    orders = [rows_of_step(50, 50, step, seed) for step in range(2) for seed in range(2)]
    assert len({tuple(order) for order in orders}) == 4


def plain_loss(learner: Learner, prompts_too: bool) -> float:
    """transformers' own loss of the scripts as one padded batch."""
    model = copy.deepcopy(learner.model)
    model.set_attn_implementation("eager")
    ids = torch.zeros(3, 32, dtype=torch.long)
    labels = torch.full_like(ids, -100)
    for row, script in enumerate(SCRIPTS):
        at = 0
        for segment in script.segments:
            tokens = torch.tensor(segment.ids if isinstance(segment, Given) else segment.target)
            ids[row, at : at + len(tokens)] = tokens
            if prompts_too or isinstance(segment, Write):
                labels[row, at : at + len(tokens)] = tokens
            at += len(tokens)
    return model(input_ids=ids, labels=labels).loss.item()


@pytest.mark.parametrize("forward_tokens", [4096, 1])
def test_the_loss_is_plain_cross_entropy_of_what_is_written(
    forward_tokens: int, learner_of: Callable[..., Learner]
) -> None:
    learner = learner_of(optimizer=OptimizerConfig(1e-3))
    stage = SFT(
        learner,
        SFTConfig(batch=3, forward_tokens=forward_tokens, pretrain_steps=1),
        lambda s: s,
        SCRIPTS,
        seed=0,
    )
    for step in range(4):
        expected = plain_loss(learner, prompts_too=step == 0)
        metrics, tokens = stage.step(step, 0.5)
        assert metrics["loss"] == pytest.approx(expected, abs=1e-5)
        assert tokens == sum(len(s.prompt) + len(s.target_ids()[0]) - 1 for s in SCRIPTS)
    assert plain_loss(learner, prompts_too=False) < expected


def test_full_speed_counts_the_products_of_a_token(
    learner_of: Callable[..., Learner], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sft, "peak_flops", lambda device, dtype: 6e9)
    learner = learner_of()
    inner = sum(p.numel() for name, p in learner.model.named_parameters() if "embed" not in name and "head" not in name)
    assert SFT(learner, SFTConfig(batch=1), lambda s: s, SCRIPTS, seed=0).full_speed == pytest.approx(1e9 / inner)
    lora = learner_of(lora=True)
    adapters = sum(p.numel() for p in lora.model.parameters() if p.requires_grad)
    assert SFT(lora, SFTConfig(batch=1), lambda s: s, SCRIPTS, seed=0).full_speed == pytest.approx(
        6e9 / (4 * inner + 6 * adapters)
    )


def test_a_step_takes_the_rows_of_its_number(learner_of: Callable[..., Learner]) -> None:
    learner = learner_of()
    taken: list[tuple[int, ...]] = []
    learner.update = lambda groups, *_: taken.append(groups[0].prompt) or {}  # type: ignore[method-assign, func-returns-value]
    stage = SFT(learner, SFTConfig(batch=1), lambda s: s, SCRIPTS, seed=4)
    for step in (0, 1, 2, 5):
        stage.step(step, 0.5)
    expected = [SCRIPTS[rows_of_step(3, 1, step, 4)[0]].prompt for step in (0, 1, 2, 5)]
    assert taken == expected
    assert len(set(taken[:3])) == 3
