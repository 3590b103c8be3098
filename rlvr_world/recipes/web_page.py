"""Web-page recipes: MiniWoB++ pages played here and a small model, and the published settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rlvr_world.config import Config, ControlConfig, EvalConfig, ModelConfig, OptimizerConfig, RLConfig, SFTConfig
from rlvr_world.domains.web_page.browser import WebSpec, collect_rows
from rlvr_world.domains.web_page.domain import WebPage, WebPageConfig
from rlvr_world.domains.web_page.prompt import build_answer, build_prompt
from rlvr_world.domains.web_page.rows import read_rows
from rlvr_world.domains.web_page.splits import mix_unchanged, split_rows
from rlvr_world.errors import InputError
from rlvr_world.models import Model
from rlvr_world.recipes import Recipe, Splits, Tokenizer, from_scratch
from rlvr_world.tokenizers import train_tokenizer
from rlvr_world.types import Transition


def miniwob() -> Config:
    return Config(
        recipe="miniwob",
        summary="MiniWoB++ pages in a real browser, a 2M-parameter model from scratch, then RL (2 cores, extra web)",
        data=WebPageConfig(
            web=WebSpec(transitions=3600),
            max_prompt=400,
            max_response=128,
            unchanged_per_hundred=50.0,
            reward_beta=1.4,
        ),
        model=ModelConfig(vocabulary=1024, pieces="pages", hidden=192, layers=4, heads=4),
        sft=SFTConfig(
            steps=200,
            pretrain_steps=70,
            batch=32,
            optimizer=OptimizerConfig(2e-3, "cosine", warmup=0.05, weight_decay=0.1, beta2=0.98),
            save_every=50,
            eval_every=50,
        ),
        rl=RLConfig(
            steps=220,
            prompts=32,
            group=16,
            seeds=(0, 1, 2),
            optimizer=OptimizerConfig(5e-4, "cosine", warmup=0.05, beta2=0.99),
            kl=0.02,
            entropy=0.03,
            eval_every=25,
        ),
        control=ControlConfig(learning_rate=1e-3),
        eval=EvalConfig(valid_rows=128),
    )


def webarena_published() -> Config:
    """The paper's web run (section 4.3; scripts ``run_web_agent_sft.sh``, ``run_web_agent_rl.sh``)."""
    return Config(
        recipe="webarena-published",
        summary="the published settings on webarena-world-model-cot (data.train, data.test; GPUs)",
        data=WebPageConfig(
            source="files",
            label="published",
            scoring="published",
            style="published",
            reasoning_column="answer",
            navigation_cap=0,
        ),
        model=ModelConfig(
            source="deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B",
            lora_rank=32,
            lora_alpha=16,
            device="cuda",
            precision="bfloat16",
            gradient_checkpointing=True,
        ),
        sft=SFTConfig(
            steps=31_730,  # 6,346 rows, batch 8, 40 epochs
            batch=8,
            forward_tokens=16384,
            reasoning=True,
            optimizer=OptimizerConfig(1e-5, "cosine", warmup=0.1, beta2=0.95),
        ),
        rl=RLConfig(
            steps=1485,  # 15 epochs
            prompts=64,
            group=5,
            minibatches=4,
            optimizer=OptimizerConfig(1e-6),
            forward_tokens=32768,
            entropy=0.001,
            drop_zero_variance=False,
        ),
        eval=EvalConfig(max_rows=256),
    )


def web_splits(config: Config) -> Splits:
    data: WebPageConfig = config.data
    column = data.reasoning_column if config.sft.reasoning and config.sft.steps else ""
    path = collect_rows(data.web, data.cache) if data.source == "browser" else data.train
    if not path:
        raise InputError("data.train: this recipe reads row files; give their path, as in data.train=rows.jsonl.gz")
    lost: list[str] = []
    rows = read_rows(path, data.label, column, lost=lost)
    tasks, seeds = (0.0, 0.0) if data.test else (data.test_tasks, data.test_seeds)
    train, valid, test = split_rows(rows, tasks, seeds, data.valid_seeds, config.seed)
    seen = len(rows) - len(train) - len(valid) - len(test)
    if data.test:
        test = read_rows(data.test, data.label, lost=lost)
    left_out = {"the browser lost the next page": len(lost), "held out, but the question stands in training": seen}
    return Splits(train, train, valid, test, partial(_rl_rows, train, data.unchanged_per_hundred), left_out)


def row_faults(config: Config) -> list[str]:
    data, faults = config.data, list[str]()
    column = data.reasoning_column if config.sft.reasoning and config.sft.steps else ""
    for path, of_path in ((data.train, column), (data.test, "")) if data.source == "files" else ():
        if path:
            read_rows(path, data.label, of_path, lambda error: faults.append(str(error)))
    return faults


def _rl_rows(train: Sequence[Transition], unchanged_per_hundred: float, seed: int, epoch: int) -> Sequence[Transition]:
    return train if unchanged_per_hundred < 0 else mix_unchanged(train, unchanged_per_hundred, seed, epoch)


def web_page(config: Config, model: Model, tokenizer: Tokenizer, folder: Path | None) -> WebPage:
    if tokenizer is None:
        raise InputError(f"model.source={config.model.source}: expected a model of text, got one without a tokenizer")
    return WebPage(config.data, tokenizer)


def new_model(config: Config, splits: Splits, folder: Path) -> tuple[Model, Tokenizer]:
    """A tokenizer trained on prompts and answers of the training rows, and a model of its size."""
    style, settings = config.data.style, config.model
    texts = (
        build_prompt(t.state, t.action, style) + build_answer(t.next_state.change, t.state, t.action, style)
        for t in splits.train
    )
    tokenizer = train_tokenizer(texts, settings.vocabulary, settings.pieces)
    return from_scratch(config, len(tokenizer), settings.context, tokenizer), tokenizer


def protocol(config: Config) -> dict[str, Any]:
    data: WebPageConfig = config.data
    names = ("style", "label", "scoring", "reward_beta", "changed_cap", "navigation_cap", "max_prompt", "max_response")
    return {"domain": "web page", **{name: getattr(data, name) for name in names}}


def _recipe(config: Callable[[], Config]) -> Recipe:
    return Recipe(config, web_splits, new_model, web_page, protocol, row_faults=row_faults)


WEB_PAGE_RECIPES = {"miniwob": _recipe(miniwob), "webarena-published": _recipe(webarena_published)}
