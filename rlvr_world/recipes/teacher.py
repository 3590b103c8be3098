"""SFT data from a teacher by rejection sampling, as in the paper (RLVR-World, section on text games: DeepSeek-R1).

A teacher, behind an OpenAI-compatible server or loaded here, is asked for the changed rows of a recipe's training
split; its reasoning and answer are kept where the prediction is right. The file written is a row file that the recipe
reads with ``data.train=FILE data.reasoning_column=answer sft.reasoning=true``; beside it a file with the ending
``.wrong.jsonl`` names the rows that were answered wrongly, which are not asked again while it is there.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path

from rlvr_world.config import Config
from rlvr_world.domains.text_domain import TextDomain
from rlvr_world.errors import InputError
from rlvr_world.models.contract import prepare
from rlvr_world.models.device import check_device
from rlvr_world.models.loading import load_model
from rlvr_world.models.text_tokenizer import answer_text
from rlvr_world.recipes import find
from rlvr_world.recipes.chat import Chat
from rlvr_world.recipes.rows import RowsRecipe
from rlvr_world.sampling.engine import Sampling, sample
from rlvr_world.system.progress import progress
from rlvr_world.types import Transition

Taught = Iterator[tuple[Transition, str | None]]
"""Rows with the teacher's first right text, or None where it had none."""


@dataclass(frozen=True)
class Teacher:
    """Who is asked, and how."""

    model: str
    """Its name on the server at ``url``, whose key is ``OPENAI_API_KEY``; without ``url`` a model folder or hub id."""
    url: str = ""
    samples: int = 1
    """Answers asked for a row, until one is right."""
    at_once: int = 8
    """Rows that are asked about together."""
    unchanged: float = 0.0
    """Share of the unchanged rows that is asked too (of the published right ones 1 in 101 was kept)."""
    least: float = 1.0
    """The score from which an answer is right: 1 is exactly so, less is for pages, where it is F1."""
    tokens: list[int] = field(default_factory=list)
    """What each answer of the server cost, prompt included."""


def teach(config: Config, out: Path, teacher: Teacher) -> tuple[int, int]:
    """Ask about each row that ``out`` does not hold yet and append what verifies; (kept, asked).

    Raises InputError where the server does not answer as it should, the model cannot be loaded, or no text is asked.
    """
    recipe = find(config.recipe)
    if not isinstance(recipe, RowsRecipe):
        raise InputError(f"recipe {config.recipe}: a teacher writes text; name a recipe of text games or web pages")
    if out.suffix != ".jsonl":
        raise InputError(f"{out}: expected a name that ends in .jsonl; choose another --out")
    wrong = out.with_suffix(".wrong.jsonl")
    held = _held(out) | _held(wrong)
    # without likelihood training, so that no row needs reasoning yet
    bare = replace(config, sft=replace(config.sft, steps=0), control=replace(config.control, enabled=False))
    train = recipe.splits(bare).train
    some = {r.id for r in train if r.kind != "unchanged" or random.Random(r.id).random() < teacher.unchanged}
    asked = [row for row in train if row.id in some and row.id not in held]
    kept, ask = 0, _from_server if teacher.url else _from_model
    with progress("asking the teacher", len(asked), "rows") as update:
        for number, (row, answer) in enumerate(ask(asked, config, recipe, teacher), start=1):
            said = {"row": row.id}
            if answer is not None:
                said |= {**recipe.record(row), "answer": answer} | ({"prompt": row.prompt} if row.prompt else {})
            with (wrong if answer is None else out).open("a") as file:
                file.write(json.dumps(said) + "\n")
            kept += answer is not None
            update(number, f"{kept} kept" + (f", {sum(teacher.tokens):,} tokens" if teacher.tokens else ""))
    return kept, len(asked)


def _held(file: Path) -> set[str]:
    """The rows in a file; a last line that was cut off is taken out of it."""
    there = file.read_bytes() if file.exists() else b""
    whole = there[: there.rfind(b"\n") + 1]
    if whole != there:
        file.write_bytes(whole)
    return {json.loads(line)["row"] for line in whole.splitlines()}


def _from_model(rows: Sequence[Transition], config: Config, recipe: RowsRecipe, teacher: Teacher) -> Taught:
    """A local model samples at temperature 1 with the recipe's own prompts."""
    model, tokenizer = load_model(teacher.model, device=check_device(config.model.device))
    prepare(model)
    domain = recipe.domain(config, model, tokenizer, None)
    for start in range(0, len(rows), teacher.at_once):
        part = rows[start : start + teacher.at_once]
        streams = [(config.seed, start + i) for i in range(len(part))]
        groups = sample(model, [domain.encode(row) for row in part], teacher.samples, Sampling(), streams)
        for row, group in zip(part, groups, strict=True):
            texts = (answer_text(domain.tokenizer, rollout.written) for rollout in group)
            yield row, _first_right(texts, row, domain, teacher)


def _from_server(rows: Sequence[Transition], config: Config, recipe: RowsRecipe, teacher: Teacher) -> Taught:
    chat, domain = Chat("teacher", teacher.url, teacher.model, spent=teacher.tokens), recipe.words(config)

    def verified(row: Transition) -> str | None:
        prompt = domain.taught(row)
        texts = (text for _ in range(teacher.samples) for text, _ in chat.ask(prompt))
        return _first_right(texts, row, domain, teacher)

    pool = ThreadPoolExecutor(teacher.at_once)
    waiting = {pool.submit(verified, row): row for row in rows}
    try:  # what has come is kept, whatever becomes of a row that was asked before it
        yield from ((waiting[done], done.result()) for done in as_completed(waiting))
    finally:
        pool.shutdown(cancel_futures=True)  # a stop or a fault must not send the requests that still wait


def _first_right(texts: Iterable[str], row: Transition, domain: TextDomain, teacher: Teacher) -> str | None:
    return next((text for text in texts if domain.graded(text, row) >= teacher.least), None)
