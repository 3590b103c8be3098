"""SFT data from a teacher by rejection sampling, as in the paper (RLVR-World, section on text games: DeepSeek-R1).

A teacher model behind an OpenAI-compatible server is asked for the changed rows of a recipe's training split; its
reasoning and answer are kept where the prediction is exactly right. The file written is a row file that the recipe
reads with ``data.train=FILE data.reasoning_column=answer sft.reasoning=true``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
from rich.progress import track

from rlvr_world.config import Config
from rlvr_world.domains.text_game.answer import read_prediction
from rlvr_world.domains.text_game.domain import TextGameConfig
from rlvr_world.domains.text_game.prompt import Rules, build_prompt
from rlvr_world.domains.text_game.rows import GameState
from rlvr_world.domains.text_game.scoring import score_answer
from rlvr_world.errors import InputError
from rlvr_world.recipes import find
from rlvr_world.types import Transition


def teach(config: Config, out: Path, url: str, model: str, samples: int, workers: int = 8) -> tuple[int, int]:
    """Ask for each changed training row up to ``samples`` times, append what verifies to ``out``; (kept, asked).

    Rows that ``out`` already holds are not asked again. The key, if the server wants one, is ``OPENAI_API_KEY``.
    Raises InputError where the server does not answer as it should.
    """
    if out.suffix != ".jsonl":
        raise InputError(f"{out}: expected a name that ends in .jsonl; choose another --out")
    data: TextGameConfig = config.data
    rules = Rules.load(data.rules) if data.style.rules and data.rules else None
    held = {json.loads(line)["row"] for line in out.read_text().splitlines()} if out.exists() else set()
    train = find(config.recipe).splits(replace(config, sft=replace(config.sft, reasoning=False))).train
    rows = [row for row in train if row.kind == "changed" and row.id not in held]
    key = os.environ.get("OPENAI_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    kept = 0
    with httpx.Client(base_url=url, headers=headers, timeout=600) as client, out.open("a") as file:

        def verified(row: Transition) -> str | None:
            prompt = build_prompt(row, data.style, rules)
            return next((text for text in _ask(client, model, prompt, samples) if _is_right(text, row, data)), None)

        for row, answer in track(_in_parallel(verified, rows, workers), "asking the teacher", total=len(rows)):
            if answer is not None:
                file.write(json.dumps(_record(row, answer)) + "\n")
                file.flush()
                kept += 1
    return kept, len(rows)


def _in_parallel(answer: Any, rows: Sequence[Transition], workers: int) -> Iterator[tuple[Transition, str | None]]:
    pool = ThreadPoolExecutor(workers)
    try:
        yield from zip(rows, pool.map(answer, rows), strict=True)
    finally:
        pool.shutdown(cancel_futures=True)  # a stop or a fault must not send the requests that still wait


def _ask(client: httpx.Client, model: str, prompt: str, samples: int) -> Iterator[str]:
    """The teacher's texts one by one: its reasoning, where the server gives it apart, then its answer (no tags)."""
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


def _is_right(text: str, row: Transition, data: TextGameConfig) -> bool:
    return score_answer(text, read_prediction(text), row, "binary", data.scoring).value == 1


def _record(row: Transition, answer: str) -> dict[str, Any]:
    """A row in ByteSized32's layout with the teacher's text as column ``answer``."""

    def state(game_state: GameState, last_action: str) -> dict[str, Any]:
        return {"objects": game_state.objects, "max_UUID": game_state.next_uuid, "lastAction": last_action}

    after = state(row.next_state, row.action)
    return {
        "current_state": state(row.state, ""),
        "action_state": after,
        "tick_state": after,
        "current_score_state": row.state.score,
        "next_score_state": row.next_state.score,
        "game": row.world,
        "state_id": row.id.rpartition("/")[2],
        "row": row.id,
        "answer": answer,
    }
