"""A recipe's reinforcement learning as a folder that TRL or verl runs, and what the scripts in it ask of this package.

OUT/config.json  model/  train.py  rollouts.py                          trl
OUT/config.json  model/  run.sh  loop.py  loop.yaml  train.parquet      verl
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

import jinja2
import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerFast

from rlvr_world import overrides, recipes
from rlvr_world.config import Config
from rlvr_world.errors import InputError
from rlvr_world.models.loading import CODEC, WORLD, hollow_model, load_model, save_model, world_of
from rlvr_world.models.text_tokenizer import TextTokenizer, know_ends
from rlvr_world.runs import runner, sources
from rlvr_world.runs.folder import run_of, start_of_rl
from rlvr_world.runs.jobs import after_sft, fill_world
from rlvr_world.scoring import judge
from rlvr_world.training.sft import rows_of_step
from rlvr_world.types import Domain, Score, Script, Transition, Written


def export(engine: Literal["trl", "verl"], source: str, settings: list[str], out: Path) -> None:
    """Write such a folder for a run, with the model that its RL starts from, or for a recipe that names a model. Raises
    InputError where there is none, or where ``out`` is there."""
    run = run_of(Path(source))
    config = runner.stored_config(run) if run else recipes.config_of(source)
    config = after_sft(sources.rooted(overrides.override(config, settings)))
    start = start_of_rl(run) or config.model.source
    if start == "scratch":
        raise InputError(f"export {source}: expected a model for RL to start from, found none; name a run with one")
    known = ("group", "none", "batch") if engine == "trl" else ("group", "none")
    if config.rl.advantage not in known:
        raise InputError(f"rl.advantage={config.rl.advantage}: {engine} knows {', '.join(known)}; set one of them")
    if ahead := getattr(config.data, "closed_loop", 0):
        raise InputError(f"data.closed_loop={ahead}: {engine} draws from recorded frames alone; set 0")
    if out.exists():
        raise InputError(f"{out}: is there already; choose another folder")
    model, tokenizer = load_model(start)
    out.mkdir(parents=True)
    save_model(model, tokenizer or _numbers(model.config.vocab_size), out / "model", world_of(start))
    if not (out / "model" / WORLD).exists():
        (out / "model" / WORLD).mkdir()
        fill_world(recipes.find(config.recipe), config, out / "model" / WORLD, None, out)
    (out / "config.json").write_text(json.dumps(overrides.to_json(config), indent=2))
    task = load_task(out.resolve())
    scripts = [task.script(row) for row in range(len(task.rows))]
    lengths = {"prompt": max(len(s.prompt) for s in scripts), "answer": max(s.max_response for s in scripts)}
    for file in (Path(__file__).parent / "exported" / engine).glob("*.jinja"):
        template = jinja2.Template(file.read_text(), undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
        (out / file.stem).write_text(template.render(config=config, rl=config.rl, **lengths))
    if engine == "verl":
        named = {"data_source": config.recipe, "agent_name": "rlvr_world", "reward_model": {"ground_truth": ""}}
        rows = [{**named, "prompt": [{"role": "user", "content": row.id}]} for row in task.rows]
        numbered = [{**row, "extra_info": {"index": number}} for number, row in enumerate(rows)]
        pq.write_table(pa.Table.from_pylist(numbered), out / "train.parquet")


def _numbers(vocabulary: int) -> PreTrainedTokenizerFast:
    """Names for tokens that are no text: both engines ask for a tokenizer, and decode what nobody reads."""
    words = {f"<{i}>": i for i in range(vocabulary)} | {"<none>": vocabulary}
    named = Tokenizer(models.WordLevel(words, unk_token="<none>"))
    return PreTrainedTokenizerFast(tokenizer_object=named, pad_token="<0>", eos_token="<none>")


@dataclass(frozen=True)
class Task:
    """What RL learns from; a row is named by its number in the first epoch."""

    config: Config
    domain: Domain
    rows: Sequence[Transition]
    tokenizer: TextTokenizer

    def script(self, row: int) -> Script:
        return self.domain.encode(self.rows[row])

    def score(self, row: int, written: Written) -> Score:
        [[(_, score)]] = judge(self.domain, [[written]], [self.rows[row]])
        return score

    def of_step(self, step: int) -> list[int]:
        """The rows whose prompts a step samples for."""
        return rows_of_step(len(self.rows), self.config.rl.prompts, step, self.config.rl.seeds[0])


@lru_cache(maxsize=1)
def load_task(folder: Path) -> Task:
    """The task of an exported folder, opened once a process; no weights are read."""
    config, place = runner.stored_config(folder), folder / "model"
    recipe, tokenizer = recipes.find(config.recipe), AutoTokenizer.from_pretrained(place)
    model = hollow_model(replace(config.model, source=str(place)), 0, 0)
    textual = getattr(model.config, CODEC, None) is None
    if textual:
        know_ends(tokenizer, GenerationConfig.from_pretrained(place))
    domain = recipe.domain(config, model, tokenizer if textual else None, place / WORLD)
    return Task(config, domain, recipe.splits(config).rl_epoch(config.rl.seeds[0], 0), tokenizer)
