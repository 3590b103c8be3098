"""RL whose rollouts come over HTTP, from a server that speaks as vLLM does and samples with our own engine."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from rlvr_world import cli
from rlvr_world.config import RolloutConfig
from rlvr_world.errors import Halted
from rlvr_world.models.attention import share_prefixes
from rlvr_world.models.loading import load_model
from rlvr_world.sampling.engine import Sampling, sample
from rlvr_world.sampling.servers import Servers
from rlvr_world.types import Given, Script, Write
from tests import tiny

pytest.importorskip("httpx", reason="servers are asked with httpx: pip install 'rlvr-world[teacher]'")
GRID = Path(__file__).resolve().parents[2] / "docs" / "examples" / "grid.py"
TINY = f"""{tiny.MODEL} data.size=8 data.walls=8 data.test=10 data.valid=4 sft.batch=16 rl.kl=0
sft.eval_every=0 rl.steps=4 rl.prompts=4 rl.group=4 rl.eval_every=0 control.enabled=false
rl.drop_zero_variance=false rl.entropy=0.1 guards.still_steps=0 guards.flat_steps=0""".split()


class Stub(ThreadingHTTPServer):
    """A model behind the routes of vLLM that we use."""

    daemon_threads = True

    def __init__(self, start: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.start, self.stale, self.lock, self.asked = start, False, threading.Lock(), [""]
        self.base, self.models = self.loaded(start), dict[str, Any]()
        self.models["policy"] = self.base
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def loaded(self, place: str) -> Any:
        model, _ = load_model(place)
        share_prefixes(model)
        return model.eval()

    def answer(self, path: str, body: dict[str, Any]) -> Any:
        self.asked.append(path)
        if path == "/v1/load_lora_adapter":
            tuned = PeftModel.from_pretrained(self.loaded(self.start), body["lora_path"]).eval()
            self.models[body["lora_name"]] = tuned
        elif path == "/v1/unload_lora_adapter":
            del self.models[body["lora_name"]]
        elif path == "/collective_rpc" and not self.stale:
            from safetensors.torch import load_file

            self.base.load_state_dict(load_file(f"{body['kwargs']['weights_path']}/model.safetensors"), strict=False)
        elif path == "/v1/completions":
            return {"choices": self.completed(self.models[body["model"]], body)}
        return {}

    @torch.no_grad()
    def completed(self, model: Any, body: dict[str, Any]) -> list[dict[str, Any]]:
        prompt, legal = tuple(body["prompt"]), body.get("allowed_token_ids")
        write = Write(
            body["max_tokens"], tuple(body["stop_token_ids"]), range(legal[0], legal[-1] + 1) if legal else None
        )
        drawn = Sampling(body["temperature"])
        [group] = sample(model, [Script((Given(prompt), write))], body["n"], drawn, [(body["seed"],)])
        return [
            {"index": i, "token_ids": r.ids.tolist(), "logprobs": {"token_logprobs": r.logps.tolist()}}
            for i, r in reversed(list(enumerate(group)))
        ]


class _Handler(BaseHTTPRequestHandler):
    server: Stub

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.server.lock:
            said = json.dumps(self.server.answer(self.path, body)).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that RL can start from."""
    run = tmp_path_factory.mktemp("start") / "run"
    tiny = [given for given in TINY if not given.startswith("rl.steps")]
    assert cli.main(["train", str(GRID), "--out", str(run), *tiny, "sft.steps=30", "rl.steps=0"]) == 0
    return max((run / "sft").glob("step-*"))


@pytest.fixture
def stub(start: Path) -> Iterator[Stub]:
    server = Stub(str(start))
    yield server
    server.shutdown()


def train(out: Path, start: Path, url: str, *more: str) -> int:
    given = [*TINY, "sft.steps=0", "eval.rows=2", f"model.source={start}", f"rollout.urls={url}", *more]
    return cli.main(["train", str(GRID), "--out", str(out), *given])


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("lora", [0, 4])
def test_rollouts_of_a_run_are_those_of_the_policy_of_their_step(
    tmp_path: Path, start: Path, stub: Stub, lora: int
) -> None:
    run = tmp_path / "run"
    assert train(run, start, stub.url, f"model.lora_rank={lora}", "rl.optimizer.learning_rate=0.01") == 0
    steps = rows(run)
    assert len(steps) == 4
    assert max(row["logp_gap"] for row in steps) < 1e-5
    assert all(row["outside_band"] == 0 for row in steps)
    assert max(row["weight_change"] for row in steps) > 1e-3
    if lora:
        base, last = sorted(stub.models)
        assert base == "policy"
        assert last.startswith("step-000003-")
        assert [path.name for path in (run / "rl/seed0/served").iterdir()] == [last]
    else:
        assert stub.asked.count("/collective_rpc") == stub.asked.count("/reset_prefix_cache") == 4


def test_a_server_that_keeps_old_weights_stops_the_run(
    tmp_path: Path, start: Path, stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.stale = True
    assert train(tmp_path / "run", start, stub.url) == 3
    said = capsys.readouterr().err
    assert f"{stub.url}: at step 1 log-probs of what it writes are" in said
    assert "use LoRA (model.lora_rank) or another vLLM build" in said


def test_a_server_that_does_not_answer_is_named(
    tmp_path: Path, start: Path, stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    url = stub.url
    stub.shutdown()
    stub.server_close()
    assert train(tmp_path / "run", start, url) == 3
    assert f"{url}/collective_rpc: expected an answer within 600 s, got ConnectError" in capsys.readouterr().err


def test_forced_tokens_and_legal_ids(start: Path, stub: Stub, tmp_path: Path) -> None:
    servers = Servers(RolloutConfig((stub.url,)), tmp_path, exact=True)
    script = Script((Given((5, 9)), Write(3, allowed=range(20, 40)), Given((7, 8)), Write(2, allowed=range(50, 60))))
    [group] = servers.sample([script], 3, Sampling(), [(1, 2)])
    assert len({rollout.written for rollout in group}) == 3
    for k, rollout in enumerate(group):
        assert rollout.stream == (1, 2, k)
        assert rollout.sampled.tolist() == [True, True, True, False, False, True, True]
        assert rollout.ids[3:5].tolist() == [7, 8]
        assert all(20 <= token < 40 for token in rollout.written[0])
        assert all(50 <= token < 60 for token in rollout.written[1])
        whole = stub.base(input_ids=torch.tensor([[5, 9, *rollout.ids]])).logits[0]
        last = whole[-2, 50:60].log_softmax(-1)[rollout.ids[-1] - 50]
        torch.testing.assert_close(last, rollout.logps[-1], rtol=0, atol=1e-5)
    [again] = servers.sample([script], 3, Sampling(), [(1, 2)])
    assert [r.ids.tolist() for r in again] == [r.ids.tolist() for r in group]


def test_an_answer_without_log_probs_is_refused(stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = {"choices": [{"index": 0, "token_ids": [3, 4], "logprobs": {"token_logprobs": [-1.0]}}]}
    monkeypatch.setattr(stub, "answer", lambda path, body: answer)
    servers = Servers(RolloutConfig((stub.url,)), tmp_path, exact=True)
    with pytest.raises(Halted, match="expected a log-prob a token, got 1 for 2"):
        servers.sample([Script((Given((5, 9)), Write(3)))], 1, Sampling(), [(1,)])
