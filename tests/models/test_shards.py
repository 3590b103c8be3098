"""Two ranks that share out a model make the rollouts, updates and checkpoints of one that has all of it."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from rlvr_world import recipes
from rlvr_world.config import Config, ModelConfig, RLConfig
from rlvr_world.models.lora import add_lora
from rlvr_world.models.shards import full, local, whole
from rlvr_world.overrides import override
from rlvr_world.runs import checkpoints, runner
from rlvr_world.runs.checkpoints import Counters
from rlvr_world.sampling.engine import Sampling, sample
from rlvr_world.system import ranks
from rlvr_world.training.grpo import GRPO
from rlvr_world.training.learner import Learner
from rlvr_world.types import Given, Script, Write
from tests.e2e.test_ranks import GRID, TINY, assert_same_run
from tests.training.conftest import tiny_model
from tests.training.test_grpo import BASIC, LIVE, Parity

GRID_TINY = [given for given in TINY if not given.startswith(("sft.steps", "rl.steps"))]
KINDS = {"tied": {}, "untied": {"tie_word_embeddings": False}, "lora": {}, "16 bits": {}, "muon": {}}
CONFIG = replace(BASIC, prompts=3, kl=0.05, entropy=0.01, minibatches=2)


def learner(kind: str, shard: bool) -> Learner:
    model: Any = tiny_model(**KINDS[kind])
    if kind == "lora":
        model = add_lora(model, rank=4, alpha=8)
    precision = "bfloat16" if kind == "16 bits" else "float32"
    optimizer = replace(CONFIG.optimizer, kind="muon" if kind == "muon" else "adamw")
    return Learner(model, None, ModelConfig(precision=precision, device="cpu", shard=shard), optimizer)


def stage(kind: str, shard: bool, config: RLConfig = CONFIG) -> GRPO:
    return GRPO(learner(kind, shard), config, Parity(), lambda epoch: LIVE, 0)


def weights(of: GRPO) -> dict[str, torch.Tensor]:
    return {name: full(value.detach()).clone() for name, value in of.learner.model.named_parameters()}


def apart(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    return max(float((ours[name] - theirs[name]).abs().max()) for name in theirs)


@contextmanager
def alone() -> Iterator[None]:
    """A rank by itself."""
    ranks._ahead, before = True, ranks._ahead
    try:
        yield
    finally:
        ranks._ahead = before


def run_config(shard: bool) -> Config:
    given = [*GRID_TINY, "sft.steps=4", "rl.steps=2", "rl.kl=0", "rl.entropy=0.1", f"model.shard={shard}"]
    return override(recipes.config_of(str(GRID)), given)


class Counted:
    """How often ranks gathered something."""

    def __init__(self) -> None:
        name = "all_gather_single" if hasattr(dist, "all_gather_single") else "all_gather_into_tensor"  # of older torch
        self.calls, self.real = 0, getattr(dist, name)
        setattr(dist, name, self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return self.real(*args, **kwargs)


def on_a_rank(out: Path) -> None:
    """What each of the two processes does."""
    gathers, found = Counted(), dict[str, Any]()
    with ranks.joined("cpu"):
        for kind in KINDS:
            with alone():
                one = stage(kind, shard=False)
                expected = [one.step(step, step / 4)[0] for step in range(2)]
                after = weights(one)
            two = stage(kind, shard=True)
            assert two.learner.sharded
            got = [two.step(step, step / 4)[0] for step in range(2)]
            numbers = {name: [m[name] for m in (expected[1], got[1])] for name in ("reward", "loss", "kl", "grad_norm")}
            saved = checkpoints.save(out / kind, two.learner, Counters(2))
            states = [value for state in two.learner.optimizer.state.values() for value in state.values()]
            held = [sum(local(t).nbytes for t in some) for some in (two.learner.model.parameters(), states)]
            found[kind] = {
                "held": [ranks.everyone(held), sum(t.nbytes for t in after.values())],
                "weights": apart(weights(two), after),
                "numbers": numbers,
            }
            with alone():
                one.step(2, 0.5)
            two.step(2, 0.5)
            restored = stage(kind, shard=True)
            restored.learner.restore(saved)
            restored.step(2, 0.5)
            found[kind] |= {
                "later": apart(weights(two), weights(one)),
                "restored": apart(weights(restored), weights(two)),
                "moved": apart(after, weights(stage(kind, shard=True))),
            }
        for length in (2, 12):
            before, script = gathers.calls, Script((Given((5, 6, 7)), Write(length, allowed=range(20, 60))))
            with whole(two.learner.policy):
                sample(two.learner.policy, [script], 2, Sampling(), [(ranks.rank(),)])
            found[f"gathers of {length}"] = gathers.calls - before
        runner.train(run_config(shard=True), out / "two")
        if ranks.rank() == 0:
            (out / "found.json").write_text(json.dumps(found))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    out = tmp_path_factory.mktemp("shards")
    root, start = (
        Path(__file__).resolve().parents[2],
        ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"],
    )
    done = subprocess.run(
        [sys.executable, *start, "-m", "tests.models.test_shards", out], cwd=root, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads((out / "found.json").read_text()), out


@pytest.mark.parametrize("kind", KINDS)
def test_two_ranks_with_shares_make_the_steps_of_one(found: tuple[dict[str, Any], Path], kind: str) -> None:
    of, bound = found[0][kind], {"16 bits": 5e-3, "muon": 1e-3}.get(kind, 1e-4)  # Muon rounds to 16 bits too
    assert of["moved"] > 1e-3
    assert of["weights"] < bound
    assert of["later"] < bound
    assert of["restored"] < 1e-6
    for name, (expected, got) in of["numbers"].items():
        assert got == pytest.approx(expected, rel=1e-2, abs=2e-2 if kind == "16 bits" else 1e-4), name


@pytest.mark.parametrize("kind", ["tied", "untied", "lora"])
def test_what_two_ranks_saved_one_goes_on_from(found: tuple[dict[str, Any], Path], kind: str) -> None:
    one, on = stage(kind, shard=False), stage(kind, shard=True)
    for step in range(2):
        one.step(step, step / 4)
    on.learner.restore(found[1] / kind / "step-000002")
    assert not on.learner.sharded
    assert apart(weights(on), weights(one)) < 1e-4
    one.step(2, 0.5)
    on.step(2, 0.5)
    assert apart(weights(on), weights(one)) < 1e-4
    assert not list(found[1].rglob("*.pt")) + list(found[1].rglob("*.distcp"))


def test_each_rank_holds_its_share(found: tuple[dict[str, Any], Path]) -> None:
    told, weights = found[0]["untied"]["held"]
    for held, moments in told:
        assert held == pytest.approx(weights / 2, rel=0.02)
        assert moments == pytest.approx(weights, rel=0.02)  # two for each weight


def test_a_whole_run_is_that_of_one_process(found: tuple[dict[str, Any], Path], tmp_path: Path) -> None:
    runner.train(run_config(shard=False), tmp_path / "one")
    assert_same_run(tmp_path / "one", found[1] / "two", 1e-4)


def test_weights_are_gathered_once_a_rollout_phase(found: tuple[dict[str, Any], Path]) -> None:
    layers = 2
    assert found[0]["gathers of 2"] == found[0]["gathers of 12"] == layers + 1


if __name__ == "__main__":
    on_a_rank(Path(sys.argv[1]))
    gc.collect()  # the models that the function held
    running = [(task / "comm").read_text() for task in Path("/proc/self/task").glob("*")]
    assert not [name for name in running if "gloo" in name], running  # one that outlives the interpreter can abort it
