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
from uuid import uuid4

import numpy as np

from rlvr_world.config import RolloutConfig
from rlvr_world.errors import Halted
from rlvr_world.sampling.engine import Row, Sampling
from rlvr_world.system import ranks
from rlvr_world.types import Given, Rollout, Script, Streams, Write

PARALLEL = 128
"""Groups that are asked for at once."""
PROBED, DRAWN = 32, 4
"""Tokens that a server writes after each change of weights, so many times, for us to see which weights it has."""
APART = {True: 1e-4, False: 0.05}
"""Most that a log-prob of these may be from the policy's, in nats, the mean: where both compute in float32, or not."""
MEND = {
    True: "the adapter, got others: serve the model that RL starts from, in the type of model.precision",
    False: "the weights, got others; it says that it reloads them: use LoRA (model.lora_rank) or another vLLM build",
}


class Servers:
    """One model behind one or more servers, which read its weights from a folder that they share with us."""

    def __init__(self, config: RolloutConfig, folder: Path, exact: bool) -> None:
        """``exact``: the policy computes in float32."""
        import httpx  # an extra: only asking a server needs it

        wire: Any = {"timeout": config.timeout, "limits": httpx.Limits(max_connections=PARALLEL)}
        self.clients = [httpx.Client(base_url=u, transport=httpx.HTTPTransport(retries=3), **wire) for u in config.urls]
        self.folder, self.exact, self.band = folder.absolute(), exact, config.band
        self.model, self.version, self.adapter = "policy", -1, ""
        self.probe: Script | None = None

    def sample(self, scripts: Sequence[Script], n: int, sampling: Sampling, streams: Streams) -> list[list[Rollout]]:
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
        if isinstance(segment := rows[0].now, Write):
            prompt = [*rows[0].script.prompt, *rows[0].ids]
            for row, written in zip(rows, self._ask(client, prompt, segment, len(rows), stream, sampling), strict=True):
                for token, logp in written:
                    row.write(token, logp)

    def _ask(
        self, client: Any, prompt: list[int], segment: Write, n: int, stream: tuple[int, ...], sampling: Sampling
    ) -> list[list[tuple[int, float]]]:
        """``n`` times the tokens of a segment, each with its log-prob."""
        asked = {
            "model": self.model, "prompt": prompt, "n": n, "max_tokens": segment.max_tokens, "logprobs": 0,
            "temperature": sampling.temperature, "stop_token_ids": list(segment.stop), "ignore_eos": True,
            "seed": int(np.random.SeedSequence(stream).generate_state(1)[0]),
            "return_token_ids": True, "skip_special_tokens": False,
            **({"allowed_token_ids": list(segment.allowed)} if segment.allowed else {}),
        }  # fmt: skip
        said = self._post(client, "/v1/completions", asked)
        try:
            choices = sorted(said["choices"], key=lambda choice: choice["index"])
            answers = [([*choice["token_ids"]], [*choice["logprobs"]["token_logprobs"]]) for choice in choices]
        except (LookupError, TypeError) as error:
            wanted = "choices with token_ids and logprobs, as vLLM gives them"
            raise Halted(f"{client.base_url}: expected {wanted}, got {said!r:.80}; update the server") from error
        for ids, logps in answers:
            if not 0 < len(ids) == len(logps):
                raise Halted(f"{client.base_url}: expected a log-prob a token, got {len(logps)} for {len(ids)}")
        return [list(zip(*answer, strict=True)) for answer in answers]

    def follow(self, version: int, script: Script, write: Callable[[Path], None], logps: Callable[..., Any]) -> None:
        """Have every server sample from the policy as it is, for all ranks. ``write`` puts it, or its adapter, into a
        folder; ``logps`` gives its log-probs of a prompt's answer. Raises Halted where a server has other weights."""
        if version == self.version:
            return
        name = ranks.by_first(lambda: f"step-{version:06d}-{uuid4().hex[:6]}")  # a server may know one of another run
        write(self.folder / name)
        self.version, self.adapter = version, ranks.by_first(lambda: self._swap(self.folder / name))
        self.model = self.adapter or self.model
        self.probe = script = self.probe or script
        prompt, answer, seed = list(script.prompt), Write(min(PROBED, script.max_response)), (version,)
        told = ranks.by_first(lambda: [self._ask(c, prompt, answer, DRAWN, seed, Sampling()) for c in self.clients])
        for client, drawn in zip(self.clients, told, strict=True):
            own = np.stack([logps(prompt, [token for token, _ in written]) for written in drawn])
            apart = float(np.abs(own - [[logp for _, logp in written] for written in drawn]).mean())
            if not apart <= APART[self.exact]:
                at = f"at step {version} log-probs of what it writes are {apart:.1e} from the policy's, allowed are"
                raise Halted(f"{client.base_url}: {at} {APART[self.exact]:g}: expected {MEND[bool(self.adapter)]}")

    def _swap(self, place: Path) -> str:
        """Other weights in the place of those before: all of them, or an adapter, whose name this gives."""
        lora = (place / "adapter_config.json").exists()
        for client in self.clients:
            if lora:
                self._post(client, "/v1/load_lora_adapter", {"lora_name": place.name, "lora_path": str(place)})
                if self.adapter:
                    self._post(client, "/v1/unload_lora_adapter", {"lora_name": self.adapter})
            else:
                asked = {"method": "reload_weights", "kwargs": {"weights_path": str(place)}}
                self._post(client, "/collective_rpc", asked)
                self._post(client, "/reset_prefix_cache", {})
        for before in {*self.folder.iterdir()} - {place}:
            shutil.rmtree(before)
        return place.name if lora else ""

    def _post(self, client: Any, path: str, body: dict[str, Any]) -> Any:
        import httpx

        try:
            answer = client.post(path, json=body).raise_for_status()
            return answer.json() if "json" in answer.headers.get("content-type", "") else None
        except (httpx.HTTPError, ValueError) as error:
            text = getattr(getattr(error, "response", None), "text", "")[:300]
            said = f"expected an answer within {client.timeout.read:g} s, got {type(error).__name__}: {error} {text}"
            raise Halted(f"{client.base_url}{path}: {said}; see that it runs, then resume the run") from error
