"""Checkpoints: whole or not there, loadable by transformers, and a stage that goes on exactly where it stood."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlvr_world.config import CheckpointConfig, GuardConfig, ModelConfig, OptimizerConfig, RLConfig, SFTConfig
from rlvr_world.errors import InputError
from rlvr_world.runs import checkpoints as checkpoint
from rlvr_world.runs.checkpoints import Counters
from rlvr_world.runs.guards import Guard
from rlvr_world.runs.stage import Schedule, finished, run_stage
from rlvr_world.runs.tracking import Log
from rlvr_world.training.grpo import GRPO
from rlvr_world.training.learner import Learner
from rlvr_world.training.sft import SFT
from rlvr_world.types import Given, Score, Script, Transition, Write
from tests.training.cutting import Cut, cut_before

OPTIMIZER = OptimizerConfig(3e-3, "cosine", warmup=0.2, weight_decay=0.1)
STEPS = 6
SCRIPTS = [Script((Given((5, 6, i)), Write(9, target=tuple(range(20, 24 + i))))) for i in range(7)]


class Even:
    """Four tokens, of which a share should be even."""

    def encode(self, transition: Transition) -> Script:
        return Script((Given(transition.state), Write(4, allowed=range(40, 60))))

    def decode(self, written: Sequence[Sequence[int]], transition: Transition) -> Any:
        return written[0]

    def score(self, prediction: Any, transition: Transition) -> Score:
        return Score(sum(token % 2 == 0 for token in prediction) / 4)

    def baselines(self, transition: Transition) -> dict[str, Any]:
        return {}

    def explain(self, prediction: Any, transition: Transition) -> str:
        return ""


ROWS = [Transition(f"r{i}", (70, 80 + i), "", None) for i in range(5)]


def stage_of(kind: str, learner: Learner) -> SFT | GRPO:
    if kind == "sft":
        return SFT(learner, SFTConfig(batch=3, optimizer=OPTIMIZER, pretrain_steps=2), lambda s: s, SCRIPTS, seed=1)
    config = RLConfig(prompts=3, group=4, minibatches=2, optimizer=OPTIMIZER, kl=0.1)
    if kind == "rl by spread":
        config = replace(config, prompts=2, group=2, draw="spread", dynamic_sampling=3)
    return GRPO(learner, config, Even(), lambda epoch: ROWS, seed=1)


def run(kind: str, learner: Learner, folder: Path, cut_at: int | None = None, save_every: int = 2) -> Path:
    """A stage to its end, or until it is cut while it works on step ``cut_at``."""
    stage = stage_of(kind, learner)
    cut_before(stage, cut_at)
    schedule = Schedule(kind, folder / kind, lambda counters: counters.step / STEPS, save_every, eval_every=3)
    validate = lambda: {"eval": sum(p.detach().double().sum().item() for p, _ in learner.trainable)}  # noqa: E731
    keep = CheckpointConfig()
    return run_stage(schedule, stage, learner, Log(folder), validate, keep, Guard(GuardConfig(), keep))


def logged(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("kind", ["sft", "rl", "rl by spread"])
def test_a_stage_that_was_cut_goes_on_bit_for_bit(
    kind: str, lora: bool, precision: Any, tmp_path: Path, learner_of: Callable[..., Learner]
) -> None:
    def learner() -> Learner:
        return learner_of(lora=lora, model=ModelConfig(precision=precision, device="cpu"), optimizer=OPTIMIZER)

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    expected = run(kind, learner(), whole)
    for cut_at in (1, 3, 5):  # before the first checkpoint, and one step after a checkpoint, twice
        with pytest.raises(Cut):
            run(kind, learner(), parts, cut_at)
    got = run(kind, learner(), parts)
    files = sorted(path.relative_to(expected) for path in expected.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(got) for path in got.rglob("*") if path.is_file())
    for file in files:
        assert (got / file).read_bytes() == (expected / file).read_bytes(), file
    assert (parts / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert [row["step"] for row in logged(parts)] == list(range(STEPS + 1))
    assert sorted(path.name for path in (parts / kind).iterdir()) == ["step-000004", "step-000006"]
    assert not any("eval" in row and row["eval"] == logged(whole)[0]["eval"] for row in logged(whole)[1:])
    if kind == "rl by spread":
        assert len(json.loads((got / "trainer" / "spread.json").read_text())) > 2
        assert len({row["sampled_groups"] for row in logged(whole)[1:]}) > 1


def test_a_checkpoint_is_a_model_folder_without_pickles(tmp_path: Path, learner_of: Callable[..., Learner]) -> None:
    for lora in (False, True):
        learner = learner_of(lora=lora, moved=True)
        stage_of("sft", learner).step(0, 0.5)
        folder = checkpoint.save(tmp_path / str(lora), learner, Counters(7))
        assert folder.name == "step-000007"
        suffixes = {path.suffix for path in folder.rglob("*") if path.is_file()}
        assert suffixes <= {".json", ".safetensors", ".jinja", ".md"}, suffixes
        assert "shared_prefix" not in (folder / "config.json").read_text()
        model = AutoModelForCausalLM.from_pretrained(folder).eval()
        ids = torch.tensor([[5, 17, 260, 9]])
        with torch.no_grad():
            torch.testing.assert_close(
                model(input_ids=ids).logits, learner.model.eval()(input_ids=ids).logits, atol=1e-5, rtol=0
            )
        assert AutoTokenizer.from_pretrained(folder).get_vocab() == learner.tokenizer.get_vocab()
        assert (folder / "adapter" / "adapter_model.safetensors").is_file() == lora
        assert checkpoint.read_counters(folder) == Counters(7)


def test_what_was_not_finished_is_not_there(
    tmp_path: Path, learner_of: Callable[..., Learner], monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = learner_of()
    assert checkpoint.latest(tmp_path) is None
    first = checkpoint.save(tmp_path, learner, Counters(1))
    with monkeypatch.context() as broken:
        broken.setattr(checkpoint, "publish", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            checkpoint.save(tmp_path, learner, Counters(2))
    assert checkpoint.latest(tmp_path) == first
    assert (tmp_path / ".partial-000002").is_dir()
    second = checkpoint.save(tmp_path, learner, Counters(2))
    assert checkpoint.checkpoints(tmp_path) == [first, second]
    assert checkpoint.sound(tmp_path) == second
    assert sorted(tmp_path.iterdir()) == [first, second], "what was not finished is removed"
    assert checkpoint.save(tmp_path, learner, Counters(2)) == second, "saving a step again replaces it"


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path, learner_of: Any, tiny: Any) -> None:
    learner = learner_of()
    saved = checkpoint.save(tmp_path, learner, Counters(1))
    other = learner_of(base=tiny(num_hidden_layers=1))
    with pytest.raises(InputError, match=r"another model, for example at model\.layers\.1"):
        other.restore(saved)
    wide = learner_of(base=tiny(intermediate_size=64))
    with pytest.raises(InputError, match="another model"):
        wide.restore(saved)


def test_moments_come_back(tmp_path: Path, learner_of: Callable[..., Learner]) -> None:
    learner = learner_of()
    stage_of("sft", learner).step(0, 0.5)
    saved = checkpoint.save(tmp_path, learner, Counters(1, 20))
    assert len(load_file(saved / "trainer" / "optimizer.safetensors")) == 3 * len(learner.trainable)
    other = learner_of()
    other.restore(saved)
    assert checkpoint.read_counters(saved) == Counters(1, 20)
    for (one, _), (two, _) in zip(learner.trainable, other.trainable, strict=True):
        assert torch.equal(one, two)
        assert all(torch.equal(v, other.optimizer.state[two][k]) for k, v in learner.optimizer.state[one].items())


def test_the_last_ones_and_the_spared_ones_are_kept(tmp_path: Path, learner_of: Callable[..., Learner]) -> None:
    learner = learner_of()
    for step in range(1, 7):
        checkpoint.save(tmp_path, learner, Counters(step), keep=2, spare=(2,))
    assert [path.name for path in checkpoint.checkpoints(tmp_path)] == ["step-000002", "step-000005", "step-000006"]


@pytest.mark.parametrize("keep", [1, 2, 4])
@pytest.mark.parametrize("at", ["os.replace", "shutil.rmtree"])
def test_a_kill_while_old_ones_are_removed_changes_nothing_about_what_stays(
    at: str, keep: int, tmp_path: Path, learner_of: Callable[..., Learner], monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = learner_of()
    for name, steps in (("alone", range(1, 6)), ("killed", range(1, 5))):
        for step in steps:
            checkpoint.save(tmp_path / name, learner, Counters(step), keep=keep, spare=(1,))
    undone = getattr(shutil if at == "shutil.rmtree" else os, at.split(".")[1])

    def die(path: Path, *rest: Any, **named: Any) -> None:
        """Where an old checkpoint is removed; what is partial may come and go."""
        if path.name.startswith(("step-", ".removed-step-")) and path.exists():
            raise KeyboardInterrupt
        undone(path, *rest, **named)

    with monkeypatch.context() as broken, contextlib.suppress(KeyboardInterrupt):
        broken.setattr(at, die)
        checkpoint.save(tmp_path / "killed", learner, Counters(5), keep=keep, spare=(1,))
        assert keep == 4, "with fewer to keep, one is to be removed"
    assert checkpoint.sound(tmp_path / "killed") == tmp_path / "killed/step-000005"
    one, two = (sorted(path.name for path in (tmp_path / name).iterdir()) for name in ("alone", "killed"))
    assert one == two
    assert len(one) == keep + 1


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


@pytest.mark.parametrize("harm", [flip, cut, Path.unlink])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(
    harm: Callable[[Path], None], tmp_path: Path, learner_of: Callable[..., Learner], capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever file it is."""
    learner = learner_of(lora=True)
    stage_of("sft", learner).step(0, 0.5)
    checkpoint.save(tmp_path / "kept", learner, Counters(1))
    checkpoint.save(tmp_path / "kept", learner, Counters(2))
    files = [path for path in (tmp_path / "kept" / "step-000002").rglob("*") if path.is_file()]
    assert len(files) > 5
    for number, file in enumerate(files):
        stage = tmp_path / str(number)
        shutil.copytree(tmp_path / "kept", stage)
        harm(stage / file.relative_to(tmp_path / "kept"))
        assert checkpoint.sound(stage) == stage / "step-000001"
        said = capsys.readouterr().err
        assert f"{stage / 'step-000002'} is damaged: it" in said
        assert file.name in said
        assert "going on from step-000001" in said
        assert (stage / "damaged-step-000002").is_dir(), "it is put aside, not thrown away"
        assert checkpoint.sound(stage) == stage / "step-000001"
        assert not capsys.readouterr().err


def test_a_stage_goes_on_from_the_checkpoint_before_the_damaged_one(
    tmp_path: Path, learner_of: Callable[..., Learner]
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    expected = run("rl", learner_of(optimizer=OPTIMIZER), whole)
    with pytest.raises(Cut):
        run("rl", learner_of(optimizer=OPTIMIZER), parts, cut_at=5)
    flip(parts / "rl" / "step-000004" / "model.safetensors")
    got = run("rl", learner_of(optimizer=OPTIMIZER), parts)
    assert (got / "model.safetensors").read_bytes() == (expected / "model.safetensors").read_bytes()
    assert (parts / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize(("name", "kept"), [("score", [2, 6]), ("-score", [4, 6]), ("other", [6])])
def test_best_is_kept_by_a_named_number(
    name: str, kept: list[int], tmp_path: Path, learner_of: Callable[..., Learner]
) -> None:
    scores, keep = iter([0.1, 0.7, 0.0, 0.7]), CheckpointConfig(keep=1, best=name)
    learner = learner_of()
    schedule = Schedule("sft", tmp_path / "sft", lambda c: c.step / 6, save_every=100, eval_every=2)
    validate, guard = lambda: {"score": next(scores)}, Guard(GuardConfig(), keep)
    run_stage(schedule, stage_of("sft", learner), learner, Log(tmp_path), validate, keep, guard)
    assert [int(path.name[5:]) for path in checkpoint.checkpoints(tmp_path / "sft")] == kept


@pytest.mark.parametrize("content", ['{"step": 9, "reason": "kl"}', '{"st', "[]", '{"step": "four"}', "\xff"])
def test_an_end_that_names_no_checkpoint_is_put_aside(
    content: str, tmp_path: Path, learner_of: Callable[..., Learner], capsys: pytest.CaptureFixture[str]
) -> None:
    learner, stage = learner_of(), tmp_path / "rl"
    saved = [checkpoint.save(stage, learner, Counters(step)) for step in (2, 4)]
    (stage / checkpoint.ENDED).write_text(content, "latin-1")
    named = checkpoint.latest(stage)
    assert named is not None
    assert "missing" in checkpoint.damage(named), "whoever only looks takes no other checkpoint for it"
    schedule = Schedule("rl", stage, lambda counters: counters.step / 6, 1, 0)
    assert finished(schedule) is None, "the stage goes on"
    assert "names a checkpoint that is missing" in capsys.readouterr().err
    assert not (stage / checkpoint.ENDED).exists()
    assert checkpoint.sound(stage) == saved[1]
    checkpoint.end_with(stage, 2, "kl")
    assert finished(schedule) == saved[0], "one that is there is the stage's result"
