"""Exported folders: what is in them, the loop that verl calls, and two steps in TRL where that is installed."""

from __future__ import annotations

import ast
import asyncio
import json
import subprocess
import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from rlvr_world import cli
from rlvr_world.errors import InputError
from rlvr_world.models.attention import share_prefixes
from rlvr_world.models.loading import load_model
from rlvr_world.runs import exports
from rlvr_world.runs.exports import load_task
from rlvr_world.sampling.engine import Sampling, sample
from rlvr_world.types import Given, Script, Write
from tests import tiny
from tests.recipes import test_video

GRID = Path(__file__).resolve().parents[2] / "docs" / "examples" / "grid.py"
TINY = f"""{tiny.MODEL} data.size=8 data.walls=8 data.test=10 data.valid=4 sft.steps=30 sft.batch=16
rl.steps=2 rl.prompts=4 rl.group=4 rl.eval_every=0 control.enabled=false""".split()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has trained a start and two steps of RL."""
    folder = tmp_path_factory.mktemp("exports") / "run"
    assert cli.main(["train", str(GRID), "--out", str(folder), *TINY]) == 0
    return folder


def exported(engine: str, run: Path, out: Path, *settings: str) -> Path:
    assert cli.main(["export", engine, str(run), "--out", str(out), *settings]) == 0
    return out


def test_a_folder_for_trl_holds_all_that_rl_needs(run: Path, tmp_path: Path) -> None:
    out = exported("trl", run, tmp_path / "out", "rl.minibatches=2", "rl.aggregation=constant")
    text = (out / "train.py").read_text()
    ast.parse(text)
    for line in ("max_steps=4,", 'loss_type="dr_grpo",', "num_generations=4,", "beta=0.001,", "rollouts_an_update = 8"):
        assert line in text
    task, before = load_task(out), load_model(str(max((run / "sft").glob("step-*"))))[0]
    assert str(out) not in (out / "config.json").read_text()
    model = load_model(str(out / "model"))[0]
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before.parameters(), strict=True))
    share_prefixes(before)
    rows, scripts = task.of_step(0), [task.script(row) for row in task.of_step(0)]
    groups = sample(before, scripts, 4, Sampling(), [(0, 0, i) for i in range(4)])
    accelerator = SimpleNamespace(unwrap_model=lambda model: model)
    trainer = SimpleNamespace(model=model, accelerator=accelerator, state=SimpleNamespace(global_step=1))
    made = module_of(out / "rollouts.py").rollouts([str(row) for row in rows for _ in range(4)], trainer)
    flat = [one for group in groups for one in group]
    assert made["completion_ids"] == [one.ids.tolist() for one in flat]
    assert made["env_mask"] == [one.sampled.int().tolist() for one in flat]
    logged = next(json.loads(line) for line in (run / "metrics.jsonl").open() if '"reward"' in line)
    assert sum(made["reward"]) / 16 == pytest.approx(logged["reward"])


@pytest.mark.skipif(find_spec("trl") is None, reason="TRL is not installed: pip install 'rlvr-world[peers]'")
def test_trl_makes_the_first_steps_of_the_run(run: Path, tmp_path: Path) -> None:
    out = exported("trl", run, tmp_path / "out")
    done = subprocess.run([sys.executable, "train.py"], cwd=out, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    steps = [ast.literal_eval(line.strip()) for line in done.stdout.splitlines() if "'grad_norm'" in line]
    ours = [json.loads(line) for line in (run / "metrics.jsonl").open() if '"logp_gap"' in line]
    for told, row in zip(steps, ours, strict=True):
        assert float(told["reward"]) == pytest.approx(row["reward"], abs=1e-3)
        assert float(told["grad_norm"]) == pytest.approx(row["grad_norm"], rel=1e-2, abs=1e-5)


def module_of(path: Path) -> Any:
    spec = spec_from_file_location(f"exported_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def loop_of(out: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The generated loop, with classes of verl's names in the place of verl's."""
    if find_spec("verl") is None:
        stand_in: Any = ModuleType("verl.experimental.agent_loop.agent_loop")
        stand_in.AgentLoopBase = object
        stand_in.AgentLoopMetrics, stand_in.AgentLoopOutput = dict, SimpleNamespace
        monkeypatch.setitem(sys.modules, stand_in.__name__, stand_in)
    loop = module_of(out / "loop.py").ScriptLoop
    return loop.__new__(loop)


class Server:
    """Answers as verl's client does, out of a model."""

    def __init__(self, folder: Path) -> None:
        self.model = load_model(str(folder / "model"))[0]
        share_prefixes(self.model)
        self.asked: list[dict[str, Any]] = []

    async def generate(self, request_id: str, *, prompt_ids: list[int], sampling_params: dict[str, Any]) -> Any:
        self.asked.append({"prompt_ids": prompt_ids, **sampling_params})
        legal, stop = sampling_params.get("allowed_token_ids"), tuple(sampling_params["stop_token_ids"])
        allowed = range(legal[0], legal[-1] + 1) if legal else None
        write = Write(sampling_params["max_tokens"], stop, allowed)
        [[one]] = sample(self.model, [Script((Given(tuple(prompt_ids)), write))], 1, Sampling(), [(len(self.asked),)])
        return SimpleNamespace(token_ids=one.ids.tolist(), log_probs=one.logps.tolist())


def test_verls_loop_returns_tokens_mask_log_probs_and_our_reward(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = exported("verl", run, tmp_path / "out")
    rows, task, loop = pq.read_table(out / "train.parquet").to_pylist(), load_task(out), loop_of(out, monkeypatch)
    assert [row["extra_info"]["index"] for row in rows] == list(range(len(task.rows)))
    assert "data.train_batch_size=4" in (out / "run.sh").read_text()
    assert subprocess.run(["sh", "-n", out / "run.sh"]).returncode == 0
    loop.server_manager = Server(out)
    for number in range(4):
        got = asyncio.run(loop.run({"temperature": 1.0}, **rows[number]))
        script = task.script(number)
        assert got.prompt_ids == list(script.prompt)
        assert len(got.response_ids) == len(got.response_mask) == len(got.response_logprobs)
        written = [token for token in got.response_ids if token not in script.tail[0].stop]
        assert got.reward_score == task.score(number, [written]).value
        assert loop.server_manager.asked[number]["temperature"] == 1.0


def test_forced_tokens_are_masked_and_tokens_of_video_legal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rlvr_world.runs import runner

    config = test_video.config(tmp_path, "pusht_multi", "rl.steps=0", "control.enabled=false")
    runner.train(config, tmp_path / "run")
    with pytest.raises(InputError, match=r"data\.closed_loop=1: verl draws from recorded frames alone; set 0"):
        exports.export("verl", str(tmp_path / "run"), ["data.closed_loop=1"], tmp_path / "other")
    out = exported("verl", tmp_path / "run", tmp_path / "out")
    loop, task = loop_of(out, monkeypatch), load_task(out)
    loop.server_manager = Server(out)
    got, script = asyncio.run(loop.run({"temperature": 1.0}, extra_info={"index": 0})), task.script(0)
    forced = [token for segment in script.tail if isinstance(segment, Given) for token in segment.ids]
    assert forced
    assert [token for token, ours in zip(got.response_ids, got.response_mask, strict=True) if not ours] == forced
    legal = next(segment.allowed for segment in script.tail if isinstance(segment, Write))
    assert all(t in legal for t, ours in zip(got.response_ids, got.response_mask, strict=True) if ours)


def test_a_recipe_without_a_model_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exports.load_task.cache_clear()
    assert cli.main(["export", "trl", str(GRID), "--out", str(tmp_path / "out")]) == 2
    assert "expected a model for RL to start from, found none; name a run with one" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
