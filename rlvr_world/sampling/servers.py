"""Rollouts from vLLM servers: what ``sample`` gives, but token ids in and token ids with log-probs out over HTTP.

    vllm serve MODEL --served-model-name policy --logprobs-mode processed_logprobs --enable-prefix-caching

The seed of a request is a function of its stream, which makes runs alike and not equal: the draws are the server's.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from peft import PeftModel

from rlvr_world.config import RolloutConfig
from rlvr_world.errors import Halted
from rlvr_world.models.head import Model
from rlvr_world.sampling.engine import Row, Sampling
from rlvr_world.types import Given, Rollout, Script, Write

PARALLEL = 128
"""Groups that are asked for at once."""
PROBED = 128
"""Tokens of a prompt by whose log-probs one sees which weights a server has."""
FOLLOWS, NOISE = 0.25, 4.0
"""A server has kept old weights, or some of them, where its log-probs are further from the policy's than this share of
what these have moved, and than so many times the distance at the start."""
Logps = Callable[[Sequence[int]], np.ndarray]
"""Of the policy: log-prob of every token of a prompt but the first."""


class Servers:
    """One model behind one or more servers, which read its weights from a folder that they share with us."""

    def __init__(self, config: RolloutConfig, folder: Path) -> None:
        import httpx  # an extra: only asking a server needs it

        wire: Any = {"timeout": config.timeout, "limits": httpx.Limits(max_connections=PARALLEL)}
        self.clients = [httpx.Client(base_url=u, transport=httpx.HTTPTransport(retries=3), **wire) for u in config.urls]
        self.model, self.folder, self.version, self.band = config.model, folder, 0, config.band
        self.adapter = ""
        self.probe: Sequence[int] = ()
        self.began: tuple[np.ndarray, list[float]] | None = None
        """The policy's log-probs of the probe at the start, and how far from them the servers' were."""

    def sample(
        self, scripts: Sequence[Script], n: int, sampling: Sampling, streams: Sequence[tuple[int, ...]]
    ) -> list[list[Rollout]]:
        """``n`` rollouts of every script. A group stays on one server, which holds its prompt."""
        with ThreadPoolExecutor(PARALLEL) as pool:
            work = [
                pool.submit(self._group, client, [Row(script, (*stream, k)) for k in range(n)], stream, sampling)
                for script, stream, client in zip(scripts, streams, cycle(self.clients), strict=False)
            ]
            return [[row.rollout(self.version) for row in group.result()] for group in work]

    def _group(self, client: Any, rows: list[Row], stream: tuple[int, ...], sampling: Sampling) -> list[Row]:
        self._write(client, rows, stream, sampling)  # the group still is one sequence: one request
        for row in rows:
            while row.now is not None:
                if isinstance(row.now, Given):
                    row.force(len(row.forced()))
                else:
                    self._write(client, [row], (*row.stream, len(row.ids)), sampling)
        return rows

    def _write(self, client: Any, rows: list[Row], stream: tuple[int, ...], sampling: Sampling) -> None:
        """Have the segment written that rows of the same tokens have come to."""
        segment = rows[0].now
        if not isinstance(segment, Write):
            return
        asked = {
            "model": self.model, "prompt": [*rows[0].script.prompt, *rows[0].ids], "n": len(rows),
            "max_tokens": segment.max_tokens, "temperature": sampling.temperature, "ignore_eos": True,
            "seed": int(np.random.SeedSequence(stream).generate_state(1)[0]), "stop_token_ids": list(segment.stop),
            "logprobs": 0, "return_token_ids": True, "skip_special_tokens": False,
            **({"allowed_token_ids": list(segment.allowed)} if segment.allowed else {}),
        }  # fmt: skip
        choices = sorted(self._post(client, "/v1/completions", asked)["choices"], key=lambda choice: choice["index"])
        for row, choice in zip(rows, choices, strict=True):
            ids, logps = choice["token_ids"], choice["logprobs"]["token_logprobs"]
            if not 0 < len(ids) == len(logps):
                raise Halted(f"{client.base_url}: expected a log-prob a token, got {len(logps)} for {len(ids)}")
            for token, logp in zip(ids, logps, strict=True):
                row.write(token, logp)

    def follow(self, policy: Model, version: int, prompt: Sequence[int], logps: Logps) -> None:
        """Have every server sample from ``policy`` as it is. Raises Halted where one goes on with old weights."""
        if isinstance(policy, PeftModel):
            self._swap(policy, f"step-{version:06d}")
        else:
            place = str((self.folder / "weights").resolve())
            policy.save_pretrained(place)
            for client in self.clients:
                self._post(client, "/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": place}})
                self._post(client, "/reset_prefix_cache", {})
        self.version, self.probe = version, self.probe or prompt[:PROBED]
        own, theirs = logps(self.probe), [self._probed(client) for client in self.clients]
        gaps = [float(np.abs(told - own).sum()) for told in theirs]
        self.began = self.began or (own, gaps)
        moved = float(np.abs(own - self.began[0]).sum())
        for client, gap, noise in zip(self.clients, gaps, self.began[1], strict=True):
            if gap > max(FOLLOWS * moved, NOISE * noise):
                said = f"its log-probs are {gap:.1e} apart where the policy's have moved by {moved:.1e}; restart it"
                raise Halted(f"{client.base_url}: it has kept old weights at step {version}: {said}")

    def _swap(self, policy: PeftModel, name: str) -> None:
        """Another adapter in the place of the one before."""
        place = self.folder.resolve() / name
        policy.save_pretrained(str(place), save_embedding_layers=False)
        for client in self.clients:
            self._post(client, "/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(place)})
            if self.adapter:
                self._post(client, "/v1/unload_lora_adapter", {"lora_name": self.adapter})
        if self.adapter:
            shutil.rmtree(self.folder / self.adapter)
        self.model = self.adapter = name

    def _probed(self, client: Any) -> np.ndarray:
        asked = {"model": self.model, "prompt": list(self.probe), "max_tokens": 1, "prompt_logprobs": 0}
        told = self._post(client, "/v1/completions", asked)["choices"][0]["prompt_logprobs"]
        return np.array([one[str(token)]["logprob"] for one, token in zip(told[1:], self.probe[1:], strict=True)])

    def _post(self, client: Any, path: str, body: dict[str, Any]) -> Any:
        import httpx

        try:
            answer = client.post(path, json=body).raise_for_status()
            return answer.json() if "json" in answer.headers.get("content-type", "") else None
        except (httpx.HTTPError, ValueError) as error:
            text = getattr(getattr(error, "response", None), "text", "")[:300]
            said = f"expected vLLM to answer, got {type(error).__name__}: {error} {text}"
            raise Halted(f"{client.base_url}{path}: {said}; see that it runs, then resume the run") from error
