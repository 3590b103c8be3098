"""What stops a run: NaN at every site, before the update and made to happen again; silence; collapse."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from rlvr_world.config import CheckpointConfig, GuardConfig, OptimizerConfig, RLConfig, SFTConfig
from rlvr_world.errors import Halted, InputError
from rlvr_world.runs import checkpoints as checkpoint
from rlvr_world.runs.guards import LOGGED, Collapsed, Guard
from rlvr_world.runs.records import FAULT, ROLLOUTS, repeat
from rlvr_world.runs.stage import Schedule, finished, run_stage
from rlvr_world.runs.tracking import Log
from rlvr_world.training.grpo import GRPO
from rlvr_world.training.learner import Learner
from rlvr_world.training.sft import SFT
from rlvr_world.types import Given, Score, Script, Transition, Write

ROWS = [Transition(f"r{i}", (70, 80 + i), "", None) for i in range(5)]
SCRIPTS = [Script((Given((70, 80 + i)), Write(9, allowed=range(40, 60), target=(41, 42)))) for i in range(5)]
CONFIG = RLConfig(prompts=4, group=4, minibatches=2, optimizer=OptimizerConfig(1e-3), kl=0.1, drop_zero_variance=False)


class Even:
    """Four tokens, of which a share should be even."""

    lower_is_better = frozenset[str]()

    def __init__(self, reward: Callable[[Any, Transition], float] | None = None) -> None:
        self.reward = reward or (lambda prediction, _: sum(token % 2 == 0 for token in prediction) / 4)

    def encode(self, transition: Transition) -> Script:
        return Script((Given(transition.state), Write(4, allowed=range(40, 60))))

    def decode(self, written: Sequence[Sequence[int]], transition: Transition) -> Any:
        return written[0]

    def score(self, prediction: Any, transition: Transition) -> Score:
        return Score(self.reward(prediction, transition))

    def baselines(self, transition: Transition) -> dict[str, Any]:
        return {}

    def explain(self, prediction: Any, transition: Transition) -> str:
        return ""


def grpo(learner: Learner, domain: Any = None, **changes: Any) -> GRPO:
    config = RLConfig(**{**vars(CONFIG), **changes})
    return GRPO(learner, config, domain or Even(), lambda epoch: ROWS, seed=1)


def run(stage: Any, learner: Learner, run_folder: Path, config: GuardConfig | None = None, steps: int = 4) -> Path:
    keep = CheckpointConfig()
    guard = Guard(config or GuardConfig(), keep, collapses=True).watch(learner.watched)
    schedule = Schedule("rl/seed0", run_folder / "rl", lambda c: c.step / steps, 1, 0)
    return run_stage(schedule, stage, learner, Log(run_folder), dict, keep, guard)


def weights(learner: Learner) -> list[torch.Tensor]:
    return [p.detach().clone() for p in learner.model.parameters()]


def spoil(learner: Learner, site: str) -> None:
    """Make the first step of a learner meet a number that is not finite at this site."""
    model: Any = learner.model
    with torch.no_grad():
        if site == "loss":
            model.model.norm.weight *= 1e38  # finite weights, logits that are not
            model.model.embed_tokens.weight *= 1e3
        elif site == "weights":  # of a token that stands in no row and is not legal anywhere
            model.model.embed_tokens.weight[200, 0] = math.inf
    if site == "gradient":
        model.model.layers[0].mlp.up_proj.weight.register_hook(lambda gradient: gradient * math.inf)


def watching(learner: Learner) -> Guard:
    return Guard(GuardConfig(), CheckpointConfig()).watch(learner.watched)


SITES = ["loss", "gradient", "weights"]


@pytest.mark.parametrize("site", SITES)
def test_numbers_that_are_not_finite_stop_before_the_update_and_again(
    site: str, tmp_path: Path, learner_of: Callable[..., Learner], tiny: Callable[..., Any]
) -> None:
    def likelihood(learner: Learner) -> SFT:
        return SFT(learner, SFTConfig(batch=3), lambda s: s, SCRIPTS, seed=0)

    learner = learner_of()
    spoil(learner, site)
    before = weights(learner)
    with pytest.raises(Halted, match=f"stopped before the update: .*{site}.* not finite") as halted:
        run(likelihood(learner), learner, tmp_path)
    for was, now in zip(before, weights(learner), strict=True):
        torch.testing.assert_close(now, was, rtol=0, atol=0, equal_nan=True)
    assert checkpoint.latest(tmp_path / "rl") is None
    fault = tmp_path / "faults" / "rl-seed0-000000"
    assert f"rlvr-world replay {fault}" in str(halted.value)
    assert not checkpoint.damage(fault)
    fresh = learner_of()
    if site == "gradient":
        spoil(fresh, site)
    error = repeat(fault, likelihood(fresh), fresh, watching(fresh))
    assert str(error) == json.loads((fault / FAULT).read_text())["said"]
    assert str(error) in str(halted.value)


def test_weights_that_are_not_finite_never_reach_the_sampler(
    tmp_path: Path, learner_of: Callable[..., Learner]
) -> None:
    learner = learner_of()
    with torch.no_grad():
        next(learner.model.parameters())[5, 0] = math.nan
    with pytest.raises(Halted, match=r"weights not finite in 1 of .* such as model\.embed_tokens\.weight"):
        run(grpo(learner), learner, tmp_path)


def test_a_reward_that_is_not_finite_names_its_row_and_happens_again(
    tmp_path: Path, learner_of: Callable[..., Learner]
) -> None:
    domain = Even(lambda prediction, row: math.nan if row.id == "r2" else prediction[0] % 2)
    learner = learner_of()
    before = weights(learner)
    with pytest.raises(Halted, match=r"row r2: the score is nan") as halted:
        run(grpo(learner, domain), learner, tmp_path, steps=9)
    step = int(next((tmp_path / "faults").iterdir()).name[-6:])
    fault = tmp_path / "faults" / f"rl-seed0-{step:06d}"
    assert f"rlvr-world replay {fault}" in str(halted.value)
    if step == 0:
        assert all(map(torch.equal, before, weights(learner)))
    fresh = learner_of()
    assert (
        str(repeat(fault, grpo(fresh, domain), fresh, watching(fresh)))
        == json.loads((fault / FAULT).read_text())["said"]
    )


def failing(learner: Learner, at: int) -> None:
    """Backward number ``at`` of a learner gives a gradient that is not a number."""
    calls: Iterator[int] = iter(range(100))
    parameter = next(learner.model.parameters())
    parameter.register_hook(lambda gradient: gradient * (math.nan if next(calls) == at else 1.0))


def test_a_later_minibatch_fails_again_from_its_rollouts(tmp_path: Path, learner_of: Callable[..., Learner]) -> None:
    learner = learner_of()
    failing(learner, at=1)
    with pytest.raises(Halted, match="gradient not finite"):
        run(grpo(learner, forward_tokens=100_000), learner, tmp_path)
    fault = tmp_path / "faults" / "rl-seed0-000000"
    said = json.loads((fault / FAULT).read_text())
    assert said["part"] == 1
    assert (fault / ROLLOUTS).is_file()
    fresh = learner_of()
    stage, met = grpo(fresh, forward_tokens=100_000), []
    update = fresh.update
    fresh.update = lambda groups, *rest: met.append(groups) or update(groups, *rest)  # type: ignore[method-assign,func-returns-value]
    failing(fresh, at=0)
    assert str(repeat(fault, stage, fresh, watching(fresh))) == said["said"]
    assert len(met) == 1, "the first mini-batch had been learned from"
    assert met[0][0].prompt == stage.prompts(0)[2].state
    assert all(map(torch.equal, weights(learner), weights(fresh)))


def test_a_guard_can_be_left_out(tmp_path: Path, learner_of: Callable[..., Learner]) -> None:
    learner = learner_of()
    spoil(learner, "weights")
    run(grpo(learner), learner, tmp_path, GuardConfig(finite=False))
    assert not (tmp_path / "faults").exists()


def test_rewards_without_spread_stop_with_a_diagnosis(tmp_path: Path, learner_of: Callable[..., Learner]) -> None:
    learner = learner_of()
    stage = grpo(learner, Even(lambda *_: 0.25), drop_zero_variance=True)
    with pytest.raises(Halted, match=r"step 3: in 3 steps no group had two different rewards .*sft\.steps"):
        run(stage, learner, tmp_path, GuardConfig(flat_steps=3), steps=9)


def test_weights_that_stay_stop_with_a_diagnosis(tmp_path: Path, learner_of: Callable[..., Learner]) -> None:
    learner = learner_of(optimizer=OptimizerConfig(0.0))
    with pytest.raises(Halted, match=r"step 4: 4 steps in a row left the weights unchanged .*rate is 0\.0"):
        run(grpo(learner), learner, tmp_path, GuardConfig(still_steps=4), steps=9)
    moved = learner_of()
    (tmp_path / "moved").mkdir()
    run(grpo(moved), moved, tmp_path / "moved", GuardConfig(still_steps=1))
    changes = [json.loads(line)["weight_change"] for line in (tmp_path / "moved" / "metrics.jsonl").open()]
    assert len(changes) == 4
    assert all(change > 0 for change in changes)


def guard(**changes: Any) -> Guard:
    return Guard(GuardConfig(**changes), CheckpointConfig(best="score"), collapses=True)


def feed(rules: Guard, name: str, values: Sequence[float | None]) -> None:
    for step, value in enumerate(values, 1):
        rules.see({"step": step, name: value})


def test_gradients_of_zero_and_gaps_stop() -> None:
    feed(guard(still_steps=3), "grad_norm", [0.0, 0.0, 0.1, 0.0, 0.0])
    with pytest.raises(Halted, match="step 4: 3 steps in a row had a gradient of exactly zero"):
        feed(guard(still_steps=3), "grad_norm", [0.1, 0.0, 0.0, 0.0])
    feed(guard(still_steps=0), "grad_norm", [0.0] * 50)
    with pytest.raises(Halted, match=r"step 2: trainer and sampler differ by 3 nats"):
        feed(guard(), "logp_gap", [0.1, 3.0])
    feed(guard(logp_gap=0.0), "logp_gap", [30.0])


@pytest.mark.parametrize(
    ("values", "collapses"),
    [
        ([0.95, 0.99, 1.0, 1.0, 1.0, 1.0], False),  # never any better: an untrained model
        ([0.5, 0.95, 0.95, 0.5, 0.95], False),  # twice in a row is not three times
        ([0.5, 0.95, 0.95, 0.91], True),
        ([0.5, None, None, None], True),
    ],
)
def test_a_limit_counts_once_it_was_kept(values: list[float | None], collapses: bool) -> None:
    if not collapses:
        feed(guard(), "malformed", values)
        return
    with pytest.raises(Collapsed, match=r"malformed is .* at step 4, the limit is malformed<=0\.9"):
        feed(guard(), "malformed", values)


def test_held_out_reward_that_falls_is_a_collapse() -> None:
    feed(guard(), "score", [0.5, 0.8, 0.6, 0.5, 0.6, 0.4, 0.5])
    with pytest.raises(Collapsed, match=r"score is 0\.3 at step 5, it was 0\.8 at step 2"):
        feed(guard(), "score", [0.5, 0.8, 0.5, 0.5, 0.3])
    feed(guard(drop=0.0), "score", [0.5, 0.8, 0.0, 0.0, 0.0, 0.0])
    feed(guard(), "score", [0.001, 0.0, 0.0, 0.0, 0.0])  # noise about nothing
    with pytest.raises(Collapsed, match=r"entropy is 0\.001"):
        feed(guard(limits=("entropy>=0.01",), patience=1), "entropy", [0.5, 0.001])


def test_every_step_logs_what_the_look_takes_to_be_logged(tmp_path: Path, learner_of: Callable[..., Learner]) -> None:
    learner = learner_of()
    run(grpo(learner), learner, tmp_path, steps=1)
    [row] = map(json.loads, (tmp_path / "metrics.jsonl").open())
    assert {name for name in row if not name.startswith(("accuracy/", "score/"))} - {"stage"} == set(LOGGED)


def test_a_limit_on_a_number_that_is_not_logged_is_refused_with_the_nearest() -> None:
    step = {"step": 1, "grad_norm": 0.1, "entropy": 0.5, "repetition": 0.1}
    with pytest.raises(InputError, match=r"guards\.limits: .* got 'entrpy'; the nearest is 'entropy'"):
        guard(limits=("entrpy>=0.01",)).see(step)
    with pytest.raises(InputError, match=r"got 'eval/overal/value'; the nearest is 'eval/overall/value'"):
        guard(limits=("eval/overal/value>=0",)).see({"step": 0, "eval/overall/value": 0.5})
    rules = guard(limits=("kl<=20", "entropy>=0.01", "accuracy/rare>=0.1", "eval/overall/value>=0"))
    rules.see({"step": 1, "reward": 0.5})  # every group was dropped
    rules.see(step)


@pytest.mark.parametrize("text", ["kl", "kl<3", "kl<=x", "<=3", "kl<=1e"])
def test_a_limit_that_does_not_read_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"guards\.limits: expected a metric"):
        guard(limits=(text,))


def test_rollback_needs_to_know_what_is_best() -> None:
    with pytest.raises(InputError, match=r"checkpoints\.best"):
        Guard(GuardConfig(collapse="rollback"), CheckpointConfig(best=""), collapses=True)


class Falling:
    """A stage whose held-out score rises, then falls; its weights are its step."""

    full_speed = None
    sharded = False
    now = 0

    def step(self, step: int, progress: float) -> tuple[dict[str, float], int]:
        self.now = step + 1
        return {"loss": 1.0}, 10

    def save(self, folder: Path) -> None:
        (folder / "weights").write_text(str(self.now))

    def restore(self, saved: Path) -> None:
        self.now = int((saved / "weights").read_text())

    def validate(self) -> dict[str, float]:
        return {"score": [0.1, 0.5, 0.9, 0.2, 0.2, 0.1, 0.1, 0.1, 0.1][self.now]}


@pytest.mark.parametrize("action", ["stop", "rollback"])
def test_a_collapse_stops_or_goes_back_to_the_best(
    action: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep = CheckpointConfig(keep=1, best="score")
    schedule = Schedule("rl", tmp_path / "rl", lambda c: c.step / 8, 4, 1)

    def go() -> Path:
        stage = Falling()
        rules = Guard(GuardConfig(collapse=action), keep, collapses=True)
        return run_stage(schedule, stage, stage, Log(tmp_path), stage.validate, keep, rules)

    best = tmp_path / "rl" / "step-000002"
    for _ in range(2):
        if action == "stop":
            with pytest.raises(Halted, match=f"collapsed: score is 0.1 at step 5.*best verified checkpoint is {best}"):
                go()
        else:
            folder = go()
            assert (folder, checkpoint.read_counters(folder).step) == (best, 2)
    if action == "rollback":
        assert finished(schedule) == best
        assert checkpoint.latest(tmp_path / "rl") == best
        assert "rolled back" in capsys.readouterr().err
    assert (best / "weights").read_text() == "2"
