"""Text-game recipes: the demo on the embedded world, real rows at small size, and the published settings."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlvr_world.config import (
    Config,
    ControlConfig,
    EvalConfig,
    ModelConfig,
    OptimizerConfig,
    PlanConfig,
    RLConfig,
    SFTConfig,
)
from rlvr_world.domains.row_files import OnFault
from rlvr_world.domains.splits import Parts, WorldSplitRule, split_rows
from rlvr_world.domains.text_game.config import PromptStyle, TextGameConfig, TextWorldSpec
from rlvr_world.domains.text_game.envs.textworld import collect_rows, collect_splits
from rlvr_world.domains.text_game.prompt import Rules
from rlvr_world.domains.text_game.rows import is_gold, question, read_question, read_rows, write_state
from rlvr_world.recipes import Splits, rows
from rlvr_world.recipes.rows import RowsRecipe, reasoning_column
from rlvr_world.recipes.tasks import Task
from rlvr_world.types import Domain, Scene, Transition

if TYPE_CHECKING:
    from rlvr_world.domains.text_game.domain import TextGame
    from rlvr_world.domains.text_game.envs.played import RealGames
    from rlvr_world.models.text_tokenizer import TextTokenizer

ROWS = "thuml/bytesized32-world-model-cot"
"""The published rows."""
COMPACT = PromptStyle(instructions=False, rules=False, literals="json")
"""For models that see nothing but this game: the state, the next uuid and the action."""
RULES = "rules.json"
"""Beside a model: the rules of its games."""


def _small(prompt: int, response: int, reward: Any = "task_specific", **settings: Any) -> TextGameConfig:
    return TextGameConfig(style=COMPACT, reward=reward, max_prompt=prompt, max_response=response, **settings)


def demo() -> Config:
    return Config(
        recipe="demo",
        summary="a 0.2M-parameter model from scratch learns generated text adventures, then RL (2 cores, minutes)",
        data=_small(512, 128, "binary", env=TextWorldSpec(800, 30), split=WorldSplitRule(valid=0.02, worlds=0.04)),
        model=ModelConfig(vocabulary=1200, pieces="names", hidden=64, layers=2, heads=4),
        sft=SFTConfig(
            steps=2800, forward_tokens=8192, optimizer=rows.from_scratch(6e-3), save_every=400, eval_every=400
        ),
        rl=RLConfig(
            steps=80,
            prompts=64,
            forward_tokens=8192,
            optimizer=OptimizerConfig(2e-4, "cosine", warmup=0.1, beta2=0.99),
            kl=0.0,
            eval_every=20,
        ),
        control=ControlConfig(learning_rate=3e-4),
        plan=PlanConfig(starts=36),
    )


def bytesized32() -> Config:
    return Config(
        recipe="bytesized32",
        summary="real ByteSized32 rows (data.train, data.test), a 1.4M-parameter model from scratch (2 cores)",
        data=_small(1024, 128, source="files", split=WorldSplitRule(valid=0.02), even=0.75),
        model=ModelConfig(vocabulary=4096, pieces="fields", hidden=128, layers=4, heads=4),
        sft=SFTConfig(steps=2200, batch=32, forward_tokens=8192, optimizer=rows.from_scratch(4e-3), eval_every=1100),
        rl=RLConfig(
            steps=40,
            prompts=64,
            seeds=(0, 1, 2),
            forward_tokens=8192,
            optimizer=OptimizerConfig(5e-4, "cosine", warmup=0.05, beta2=0.99),
            kl=0.0,
            eval_every=20,
        ),
        control=ControlConfig(learning_rate=1e-3),
    )


def smollm2() -> Config:
    return Config(
        recipe="smollm2",
        summary="real ByteSized32 rows (data.train, data.test), the pretrained SmolLM2-135M with LoRA (extra smollm)",
        data=_small(4096, 512, source="files", unchanged_per_hundred=5.0),
        model=ModelConfig(source="smollm2", lora_rank=32, lora_alpha=16),
        sft=SFTConfig(
            steps=1000, batch=16, optimizer=OptimizerConfig(5e-4, "cosine", warmup=0.1, beta2=0.95), eval_every=250
        ),
        rl=RLConfig(steps=100, prompts=16, group=8, optimizer=OptimizerConfig(5e-5), max_rows=128),
        eval=EvalConfig(max_rows=128),
    )


def _published(recipe: str, size: str, reward: Any, unchanged: float) -> Config:
    """The paper's text-game run (appendix; scripts `run_text_game_rl.sh`, `ppo_trainer.yaml`)."""
    source = f"deepseek-ai/DeepSeek-R1-Distill-Qwen-{size}"
    return Config(
        recipe=recipe,
        summary=f"the published settings for R1-Distill-Qwen-{size}, {reward.replace('_', '-')} reward (GPUs)",
        data=TextGameConfig(
            source="files",
            train=f"{ROWS}:train_state_difference_*gold",
            test=f"{ROWS}:test_state_difference",
            sft_train=f"{ROWS}:generated_cot",
            style=PromptStyle(row=True, example=True),
            max_prompt=7192,
            max_response=4096,
            reward=reward,
            scoring="published",
            reasoning_column="answer",
            unchanged_per_hundred=unchanged,
        ),
        model=rows.published_model(source),
        sft=rows.published_sft(steps=2648, batch=16),  # 4,237 samples, 10 epochs
        rl=rows.published_rl(steps=380, prompts=128, minibatches=2),
        eval=EvalConfig(max_rows=256),
    )


class TextGameRecipe(RowsRecipe):
    question, shown = staticmethod(read_question), staticmethod(write_state)

    def splits(self, config: Config) -> Splits:
        data: TextGameConfig = config.data
        played = _played(data) if data.source == "textworld" else None
        return self.of_files(config, question, is_gold, data.sft_train, played)

    def read(self, config: Config, path: str, column: str = "", on_fault: OnFault = None) -> list[Transition]:
        return read_rows(path, column, on_fault)

    def words(self, config: Config, tokenizer: TextTokenizer | None = None, world: Path | None = None) -> TextGame:
        from rlvr_world.domains.text_game.domain import TextGame

        return TextGame(config.data, tokenizer, _rules(config, world))

    def record(self, row: Transition) -> dict[str, Any]:
        states = {"state": json.loads(write_state(row.state)), "next_state": json.loads(write_state(row.next_state))}
        return {**states, "action": row.action, "game": row.world}

    def files(self, config: Config) -> Mapping[str, str]:
        data, column = config.data, reasoning_column(config)
        apart = {data.sft_train: column} if rows.has_likelihood(config) else {}
        return {data.train: "" if data.sft_train else column, data.test: "", **apart}

    def write_world(self, config: Config, folder: Path, start: Path | None, run: Path) -> Config:
        """The rules of the games, where prompts give them."""
        if rules := _rules(config, start):
            rules.save(folder / RULES)
        return replace(config, data=replace(config.data, rules=""))

    def scene(self, config: Config, domain: Domain) -> Scene:
        from rlvr_world.domains.scene import start_rows
        from rlvr_world.domains.text_game.scene import Moment, imagined_games

        if config.data.source == "textworld":
            real = self.real(config)
            return imagined_games(domain, real.start, real.commands, real.options)
        choose = start_rows(lambda: self.splits(config).test)

        def start(seed: int, options: Mapping[str, Any]) -> tuple[Moment, Mapping[str, Any]]:
            row = choose(seed, options)
            return Moment(row.state, row.world), {"row": row.id}

        return imagined_games(domain, start, lambda game: ())

    def real(self, config: Config) -> RealGames:
        from rlvr_world.domains.text_game.envs.played import RealGames

        data: TextGameConfig = config.data
        if data.source != "textworld":
            super().real(config)
        return RealGames(replace(data.env, split="test") if data.split.worlds else data.env)

    def tasks(self, config: Config) -> dict[str, Task]:
        """To win games that were trained on, and games that were not, as many of each."""
        data: TextGameConfig = config.data
        if data.source != "textworld":
            return {}
        real, found = self.real(config), {}
        specs = {"trained games": replace(data.env, split="train"), "unseen games": replace(data.env, split="test")}
        for name, spec in specs.items():
            games = [f"house-{spec.game_number(index):04d}" for index in range(spec.games)]
            found[name] = Task(real, {game: {"game": game} for game in games}, real.worth_trying, real.last)
        return found

    def protocol(self, config: Config) -> dict[str, Any]:
        data: TextGameConfig = config.data
        settings = {name: getattr(data, name) for name in ("max_response", "reward", "scoring")}
        return {"domain": "text game", "style": asdict(data.style), **settings}


def _rules(config: Config, world: Path | None) -> Rules | None:
    """The rules that prompts give, if they do: those that the config names, or those that came with the model."""
    if config.data.style.row or not config.data.style.rules:
        return None
    if config.data.rules:
        return Rules.load(config.data.rules)
    return Rules.load(world / RULES) if world and (world / RULES).is_file() else None


def _played(data: TextGameConfig) -> Parts:
    """Rows of the embedded world; of held-out worlds other games are generated."""
    cache, rule = Path(data.cache).expanduser(), data.split
    if not rule.worlds:
        return split_rows(read_rows(collect_rows(data.env, cache)), rule, question)
    valid, test = (max(1, round(share * data.env.games)) for share in (rule.valid, rule.worlds))
    files = collect_splits(data.env, cache, valid, test)
    return read_rows(files["train"]), read_rows(files["valid"]), read_rows(files["test"])


PUBLISHED = {
    "published-1.5b-binary": ("1.5B", "binary", 40.0),
    "published-1.5b-task-specific": ("1.5B", "task_specific", 5.0),
    "published-7b-binary": ("7B", "binary", 40.0),
}
RECIPES: dict[str, Callable[[], Config]] = {made.__name__: made for made in (demo, bytesized32, smollm2)}
RECIPES |= {name: partial(_published, name, *settings) for name, settings in PUBLISHED.items()}
