"""Training a visual tokenizer: losses go down, steps are generator updates, a stopped run goes on bit for bit."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rlvr_world.config import CheckpointConfig, GuardConfig, OptimizerConfig
from rlvr_world.runs.guards import Guard
from rlvr_world.runs.stage import Schedule, run_stage
from rlvr_world.runs.tracking import Log
from rlvr_world.training.visual_tokenizer import VisualTokenizerTraining, create_visual_tokenizer, reconstruct
from rlvr_world.vision.config import VisualTokenizerConfig
from rlvr_world.vision.loading import load_visual_tokenizer
from rlvr_world.vision.lpips import LPIPS
from rlvr_world.vision.metrics import FrameMetrics
from tests.training.cutting import Cut, cut_before

STEPS = 4
SMALL: dict[str, Any] = {
    "layers": 1,
    "latent": 8,
    "groups": 4,
    "levels": (5, 5),
    "patch": 2,
    "attention": 16,
    "steps": STEPS,
    "optimizer": OptimizerConfig(1e-2, "cosine", weight_decay=0.0),
    "discriminator_depth": 2,
    "discriminator_width": 8,
    "gan_start": 0.5,
}


def batch_of(step: int) -> Tensor:
    return torch.rand(2, 3, 3, 32, 32, generator=torch.Generator().manual_seed(step % 2))


def stage(kind: str = "frame", lpips: LPIPS | None = None, **changes: Any) -> VisualTokenizerTraining:
    widths = {"frame": (8, 8), "compressive": (32, 32)}[kind]  # what looks at the context is a multiple of 32 wide
    config = VisualTokenizerConfig(**{**SMALL, "kind": kind, "widths": widths, **changes})
    return VisualTokenizerTraining(create_visual_tokenizer(config, 32, 32, seed=0), config, batch_of, lpips, seed=0)


@pytest.mark.parametrize("kind", ["frame", "compressive"])
def test_the_loss_goes_down(kind: str) -> None:
    training = stage(kind, gan=0.0)
    losses = [training.step(i, 0.0)[0]["loss"] for i in range(12)]
    assert losses[-1] < 0.7 * losses[0]


def test_every_step_updates_the_tokenizer_and_late_ones_the_discriminator() -> None:
    training = stage()
    assert training.discriminator is not None
    for step, progress in enumerate((0.0, 0.25, 0.5, 0.75)):
        before = [p.detach().clone() for p in training.tokenizer.parameters()]
        judge_before = [p.detach().clone() for p in training.discriminator.parameters()]
        metrics, tokens = training.step(step, progress)
        assert any(not torch.equal(a, b) for a, b in zip(before, training.tokenizer.parameters(), strict=True))
        moved = any(
            not torch.equal(a, b) for a, b in zip(judge_before, training.discriminator.parameters(), strict=True)
        )
        assert moved == ("gan" in metrics) == ("penalty" in metrics) == (progress >= 0.5)
        assert tokens == 2 * 3 * 16 * 16
        assert 0 < metrics["code_usage"] <= 1


def test_the_perceptual_distance_and_the_context_frame_count() -> None:
    torch.manual_seed(0)
    lpips = LPIPS("alex")
    training = stage("compressive", lpips, gan=0.0, perceptual=2.0)
    frames = batch_of(0)
    made, _ = reconstruct(training.tokenizer, frames)
    losses = training._losses(frames, made, judged=False)
    assert losses["l1"].item() == pytest.approx(
        ((made - frames)[:, 0].abs().mean() + (made - frames)[:, 1:].abs().mean()).item(), rel=1e-5
    )
    both = lpips(made[:, 0], frames[:, 0]).mean() + lpips(made[:, 1:].flatten(0, 1), frames[:, 1:].flatten(0, 1)).mean()
    assert losses["lpips"].item() == pytest.approx(2 * both.item(), rel=1e-4)


@pytest.mark.parametrize("kind", ["frame", "compressive"])
def test_how_many_segments_go_forward_at_once_changes_nothing(kind: str) -> None:
    one, two = (stage(kind, at_once=n, gan=0.0) for n in (1, 2))
    for training in (one, two):  # dropout draws in another order
        for module in training.tokenizer.modules():
            if isinstance(module, torch.nn.Dropout | torch.nn.MultiheadAttention):
                module.p = module.dropout = 0.0
    for step in range(2):
        first, second = (training.step(step, 0.5)[0] for training in (one, two))
        assert first == pytest.approx(second, rel=1e-3, abs=1e-5)


def run(training: VisualTokenizerTraining, folder: Path, cut_at: int | None = None) -> Path:
    cut_before(training, cut_at)
    folder.mkdir(exist_ok=True)
    metrics, keep = FrameMetrics(None), CheckpointConfig()
    validate = lambda: training.validate([batch_of(7)], metrics)  # noqa: E731
    schedule = Schedule("tokenizer", folder / "t", lambda counters: counters.step / STEPS, 1, 2)
    guard = Guard(GuardConfig(), keep)
    return run_stage(schedule, training, training, Log(folder), validate, keep, guard)


@pytest.mark.parametrize("kind", ["frame", "compressive"])
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path: Path, kind: str) -> None:
    whole = run(stage(kind), tmp_path / "whole")
    with pytest.raises(Cut):
        run(stage(kind), tmp_path / "cut", cut_at=3)
    resumed = run(stage(kind), tmp_path / "cut")
    files = sorted(p.relative_to(whole) for p in whole.rglob("*.safetensors"))
    assert len(files) == 4
    for file in files:
        assert (whole / file).read_bytes() == (resumed / file).read_bytes(), file
    frames = batch_of(9)[:, :2]
    one, two = (reconstruct(load_visual_tokenizer(folder), frames)[0] for folder in (whole, resumed))
    assert torch.equal(one, two)


def test_batches_are_made_ahead_and_are_those_of_their_steps() -> None:
    asked: list[tuple[int, bool]] = []
    training = stage(gan=0.0)

    def watched(step: int) -> Tensor:
        asked.append((step, threading.current_thread() is threading.main_thread()))
        return batch_of(step)

    plain, training.batch_of = stage(gan=0.0), watched
    for step in (0, 1, 2, 7, 8):  # a run that goes on begins anywhere
        assert training.step(step, 0.0)[0] == plain.step(step, 0.0)[0]
    del training
    assert {step for step, _ in asked} >= {0, 1, 2, 3, 7, 8}
    assert not any(main for _, main in asked)
