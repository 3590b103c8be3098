"""SFT data from a teacher by rejection sampling, as in the paper (RLVR-World, section on text games: DeepSeek-R1).

A teacher, behind an OpenAI-compatible server or loaded here, is asked for the changed rows of a recipe's training
split; its reasoning and answer are kept where the prediction is exactly right. The file written is a row file that
the recipe reads with ``data.train=FILE data.reasoning_column=answer sft.reasoning=true``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlvr_world.config import Config
from rlvr_world.domains.text_game.answer import read_prediction
from rlvr_world.domains.text_game.config import TextGameConfig
from rlvr_world.domains.text_game.prompt import Rules, build_prompt
from rlvr_world.domains.text_game.rows import GameState
from rlvr_world.domains.text_game.scoring import score_answer
from rlvr_world.errors import InputError
from rlvr_world.models.contract import prepare
from rlvr_world.models.device import check_device
from rlvr_world.models.loading import load_model
from rlvr_world.recipes import find
from rlvr_world.sampling.engine import Sampling, sample
from rlvr_world.system.progress import progress
from rlvr_world.types import Transition

Taught = Iterator[tuple[Transition, str | None]]
"""Rows with the teacher's first right text, or None where it had none."""


def teach(config: Config, out: Path, model: str, url: str = "", samples: int = 1) -> tuple[int, int]:
    """Ask for each changed training row ``samples`` times, append what verifies to ``out``; (kept, asked).

    ``model`` is the name on the server at ``url`` (its key, if it wants one, is ``OPENAI_API_KEY``), or without a
    ``url`` a model folder or hub id. Rows that ``out`` already holds are not asked again.
    Raises InputError where the server does not answer as it should, or the model cannot be loaded.
    """
    if out.suffix != ".jsonl":
        raise InputError(f"{out}: expected a name that ends in .jsonl; choose another --out")
    held = {json.loads(line)["row"] for line in out.read_text().splitlines()} if out.exists() else set()
    train = find(config.recipe).splits(replace(config, sft=replace(config.sft, reasoning=False))).train
    rows = [row for row in train if row.kind == "changed" and row.id not in held]
    taught = _from_server(rows, config, model, url, samples) if url else _from_model(rows, config, model, samples)
    kept = 0
    with progress("asking the teacher", len(rows), "rows") as update:
        for asked, (row, answer) in enumerate(taught, start=1):
            if answer is not None:
                with out.open("a") as file:
                    file.write(json.dumps(_record(row, answer)) + "\n")
                kept += 1
            update(asked, f"{kept} kept")
    return kept, len(rows)


def _from_model(rows: Sequence[Transition], config: Config, source: str, samples: int, batch: int = 16) -> Taught:
    """A local model samples at temperature 1 with the recipe's own prompts."""
    model, tokenizer = load_model(source, device=check_device(config.model.device))
    prepare(model)
    domain = find(config.recipe).domain(config, model, tokenizer, None)
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        streams = [(config.seed, start + i) for i in range(len(part))]
        groups = sample(model, [domain.encode(row) for row in part], samples, Sampling(), streams)
        for row, group in zip(part, groups, strict=True):
            texts = (domain.decode(rollout.written, row).text for rollout in group)
            yield row, _first_right(texts, row, config.data)


def _from_server(rows: Sequence[Transition], config: Config, model: str, url: str, samples: int) -> Taught:
    data: TextGameConfig = config.data
    rules = Rules.load(data.rules) if data.style.rules and data.rules else None
    key = os.environ.get("OPENAI_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    import httpx  # an extra: only asking a server needs it

    with httpx.Client(base_url=url, headers=headers, timeout=600) as client:

        def verified(row: Transition) -> str | None:
            return _first_right(_ask(client, model, build_prompt(row, data.style, rules), samples), row, data)

        pool = ThreadPoolExecutor(8)
        try:
            yield from zip(rows, pool.map(verified, rows), strict=True)
        finally:
            pool.shutdown(cancel_futures=True)  # a stop or a fault must not send the requests that still wait


def _first_right(texts: Iterable[str], row: Transition, data: TextGameConfig) -> str | None:
    def right(text: str) -> bool:
        return score_answer(text, read_prediction(text), row, "binary", data.scoring).value == 1

    return next(filter(right, texts), None)


def _ask(client: Any, model: str, prompt: str, samples: int) -> Iterator[str]:
    """The teacher's texts one by one: its reasoning, where the server gives it apart, then its answer (no tags)."""
    import httpx

    request = {"model": model, "messages": [{"role": "user", "content": prompt}]}
    for _ in range(samples):
        try:
            reply = client.post("chat/completions", json=request).raise_for_status().json()
            message = reply["choices"][0]["message"]
            yield (message.get("reasoning_content") or "") + (message["content"] or "")
        except (httpx.HTTPError, ValueError, LookupError) as error:
            raise InputError(
                f"teacher {model} at {client.base_url}: expected a chat completion, got {type(error).__name__}: "
                f"{str(error).partition(chr(10))[0]}; check --url, --model and OPENAI_API_KEY"
            ) from error


def _record(row: Transition, answer: str) -> dict[str, Any]:
    """A row in ByteSized32's layout with the teacher's text as column ``answer``."""

    def state(game_state: GameState, last_action: str) -> dict[str, Any]:
        return {"objects": game_state.objects, "max_UUID": game_state.next_uuid, "lastAction": last_action}

    after = state(row.next_state, row.action)
    states = {"current_state": state(row.state, ""), "action_state": after, "tick_state": after}
    scores = {"current_score_state": row.state.score, "next_score_state": row.next_state.score}
    names = {"game": row.world, "state_id": row.id.rpartition("/")[2], "row": row.id}
    return {**states, **scores, **names, "answer": answer}
