"""Text-game recipes: the demo on the embedded world, real rows at small size, and the published settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from rlvr_world.config import Config, ControlConfig, EvalConfig, ModelConfig, OptimizerConfig, RLConfig, SFTConfig
from rlvr_world.domains.text_game.domain import TextGame, TextGameConfig
from rlvr_world.domains.text_game.prompt import PromptStyle, Rules, build_answer, build_prompt
from rlvr_world.domains.text_game.rows import read_rows
from rlvr_world.domains.text_game.splits import deduplicate, hold_out_worlds, mix_unchanged, validation_split
from rlvr_world.domains.text_game.world import WorldSpec, collect_rows, collect_splits
from rlvr_world.errors import InputError
from rlvr_world.models import Model
from rlvr_world.recipes import Recipe, Splits, Tokenizer, from_scratch
from rlvr_world.tokenizers import train_tokenizer
from rlvr_world.types import Transition

COMPACT = PromptStyle(instructions=False, rules=False, literals="json")
"""For models that see nothing but this game: the state, the next uuid and the action."""


def demo() -> Config:
    return Config(
        recipe="demo",
        summary="a 2M-parameter model from scratch learns generated text adventures, then RL (2 cores, minutes)",
        data=TextGameConfig(
            world=WorldSpec(games=36, rows_per_game=300),
            valid_fraction=0.05,
            test_fraction=0.1,
            style=COMPACT,
            max_prompt=512,
            max_response=128,
            reward="task_specific",
            unchanged_per_hundred=40.0,
        ),
        model=ModelConfig(vocabulary=1024, pieces="fields", hidden=192, layers=4, heads=4),
        sft=SFTConfig(
            steps=400,
            batch=64,
            optimizer=OptimizerConfig(2e-3, "cosine", warmup=0.05, weight_decay=0.1, beta2=0.98),
            save_every=50,
            eval_every=100,
        ),
        rl=RLConfig(steps=24, prompts=64, group=8, optimizer=OptimizerConfig(1e-4), kl=0.001, eval_every=8),
    )


def bytesized32() -> Config:
    return Config(
        recipe="bytesized32",
        summary="real ByteSized32 rows (data.train, data.test), a 7.5M-parameter model from scratch (2 cores)",
        data=TextGameConfig(
            source="files",
            style=COMPACT,
            max_prompt=1024,
            max_response=256,
            reward="task_specific",
            valid_fraction=0.03,
        ),
        model=ModelConfig(vocabulary=4096, pieces="fields", hidden=256, layers=8, heads=4),
        sft=SFTConfig(
            steps=700,
            batch=64,
            optimizer=OptimizerConfig(1.5e-3, "cosine", warmup=0.05, weight_decay=0.1, beta2=0.98),
            save_every=50,
            eval_every=175,
        ),
        rl=RLConfig(
            steps=40, prompts=64, group=8, seeds=(0, 1, 2), optimizer=OptimizerConfig(1e-4), kl=0.001, eval_every=20
        ),
        control=ControlConfig(learning_rate=3e-4),
    )


def smollm2() -> Config:
    return Config(
        recipe="smollm2",
        summary="real ByteSized32 rows (data.train, data.test), the pretrained SmolLM2-135M with LoRA (extra smollm)",
        data=TextGameConfig(
            source="files",
            style=COMPACT,
            max_prompt=4096,
            max_response=512,
            reward="task_specific",
            unchanged_per_hundred=5.0,
        ),
        model=ModelConfig(source="smollm2", lora_rank=32, lora_alpha=16),
        sft=SFTConfig(
            steps=1000, batch=16, optimizer=OptimizerConfig(5e-4, "cosine", warmup=0.1, beta2=0.95), eval_every=250
        ),
        rl=RLConfig(steps=100, prompts=16, group=8, optimizer=OptimizerConfig(5e-5), max_rows=128),
        eval=EvalConfig(max_rows=128),
    )


def _published(recipe: str, source: str, reward: str, unchanged: float) -> Config:
    """The paper's text-game run (appendix; scripts `run_text_game_rl.sh`, `ppo_trainer.yaml`)."""
    size = source.rsplit("-", 1)[1]
    return Config(
        recipe=recipe,
        summary=f"the published settings for R1-Distill-Qwen-{size}, {reward.replace('_', '-')} reward (GPUs)",
        data=TextGameConfig(
            source="files",
            style=PromptStyle(instructions=True, example=True, rules=True, literals="python"),
            max_prompt=7192,
            max_response=4096,
            reward=reward,  # type: ignore[arg-type]
            scoring="published",
            reasoning_column="answer",
            unchanged_per_hundred=unchanged,
        ),
        model=ModelConfig(source=source, device="cuda", precision="bfloat16", gradient_checkpointing=True),
        sft=SFTConfig(
            steps=2648,  # 4,237 samples, batch 16, 10 epochs
            batch=16,
            forward_tokens=16384,
            reasoning=True,
            optimizer=OptimizerConfig(1e-5, "cosine", warmup=0.1, beta2=0.95),
        ),
        rl=RLConfig(
            steps=380,
            prompts=128,
            group=5,
            minibatches=2,
            optimizer=OptimizerConfig(1e-6),
            forward_tokens=32768,
            entropy=0.001,
            drop_zero_variance=False,
        ),
        eval=EvalConfig(max_rows=256),
    )


def text_splits(config: Config) -> Splits:
    data: TextGameConfig = config.data
    column = data.reasoning_column if config.sft.reasoning and config.sft.steps else ""
    if data.source == "textworld":
        train, valid, test = _from_world(config, data)
    else:
        train, valid, test = _from_files(config, data, "" if data.sft_train else column)
    sft = read_rows(data.sft_train, column) if data.sft_train else train
    return Splits(sft, train, valid, test, partial(_rl_rows, train, data.unchanged_per_hundred))


def row_faults(config: Config) -> list[str]:
    data, faults = config.data, list[str]()
    column = data.reasoning_column if config.sft.reasoning and config.sft.steps else ""
    files = {data.train: "" if data.sft_train else column, data.test: "", data.sft_train: column}
    for path, of_path in files.items() if data.source == "files" else ():
        if path:
            read_rows(path, of_path, lambda error: faults.append(str(error)))
    return faults


def _from_world(config: Config, data: TextGameConfig) -> tuple[Sequence[Transition], ...]:
    cache = Path(data.cache).expanduser()
    if data.split == "held_out":
        files = collect_splits(data.world, cache, data.valid_games, data.test_games)
        return tuple(read_rows(files[name]) for name in ("train", "valid", "test"))
    rows, test = validation_split(read_rows(collect_rows(data.world, cache)), data.test_fraction, config.seed)
    train, valid = validation_split(rows, data.valid_fraction, config.seed)
    return train, valid, test


def _from_files(config: Config, data: TextGameConfig, column: str) -> tuple[Sequence[Transition], ...]:
    for name in ("train", "test"):
        if not getattr(data, name):
            raise InputError(
                f"data.{name}: this recipe reads row files; give their path, as in data.{name}=rows/{name}.jsonl.gz"
            )
    train, test = read_rows(data.train, column), read_rows(data.test)
    if data.split == "deduplicated":
        train = deduplicate(train, test)
    elif data.split == "held_out":
        train, _ = hold_out_worlds(train, fraction=data.held_out_fraction, seed=config.seed)
        kept = {row.world for row in train}
        test = [row for row in test if row.world not in kept]
    train, valid = validation_split(train, data.valid_fraction, config.seed)
    return train, valid, test


def _rl_rows(train: Sequence[Transition], unchanged_per_hundred: float, seed: int, epoch: int) -> Sequence[Transition]:
    return train if unchanged_per_hundred < 0 else mix_unchanged(train, unchanged_per_hundred, seed, epoch)


def text_game(config: Config, model: Model, tokenizer: Tokenizer, folder: Path | None) -> TextGame:
    data: TextGameConfig = config.data
    if tokenizer is None:
        raise InputError(f"model.source={config.model.source}: expected a model of text, got one without a tokenizer")
    rules = Rules.load(data.rules) if data.style.rules and data.rules else None
    return TextGame(data, tokenizer, rules)


def new_model(config: Config, splits: Splits, folder: Path) -> tuple[Model, Tokenizer]:
    """A tokenizer trained on prompts and answers of the training rows, and a model of its size."""
    style, settings = config.data.style, config.model
    texts = [build_prompt(t, style, None) + build_answer(t, style.instructions) for t in splits.train]
    tokenizer = train_tokenizer(texts, settings.vocabulary, settings.pieces)
    return from_scratch(config, len(tokenizer), settings.context, tokenizer), tokenizer


def protocol(config: Config) -> dict[str, Any]:
    data: TextGameConfig = config.data
    return {
        "domain": "text game",
        "style": asdict(data.style),
        "max_response": data.max_response,
        "reward": data.reward,
        "scoring": data.scoring,
    }


def _recipe(config: Callable[[], Config]) -> Recipe:
    return Recipe(config, text_splits, new_model, text_game, protocol, row_faults=row_faults)


TEXT_GAME_RECIPES = {
    "demo": _recipe(demo),
    "bytesized32": _recipe(bytesized32),
    "smollm2": _recipe(smollm2),
    **{
        name: _recipe(partial(_published, name, f"deepseek-ai/DeepSeek-R1-Distill-Qwen-{size}", reward, unchanged))
        for name, size, reward, unchanged in (
            ("published-1.5b-binary", "1.5B", "binary", 40.0),
            ("published-1.5b-task-specific", "1.5B", "task_specific", 5.0),
            ("published-7b-binary", "7B", "binary", 40.0),
        )
    },
}
