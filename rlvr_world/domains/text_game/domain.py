"""The text-game world: a game state and a command in, the difference to the next state out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from transformers import PreTrainedTokenizerBase

from rlvr_world.config import what
from rlvr_world.domains.text_game.answer import Prediction, read_prediction
from rlvr_world.domains.text_game.explain import explain_prediction
from rlvr_world.domains.text_game.prompt import PromptStyle, Rules, build_answer, build_prompt
from rlvr_world.domains.text_game.scoring import score_answer
from rlvr_world.domains.text_game.world import WorldSpec
from rlvr_world.errors import InputError
from rlvr_world.tokenizers import turn_ids
from rlvr_world.types import Given, Score, Script, Transition, Write

NO_CHANGE = '{"modified": [], "removed": [], "score": {}}'


@dataclass(frozen=True)
class TextGameConfig:
    source: Literal["textworld", "files"] = what("textworld", "play the embedded text world, or read row files")
    world: WorldSpec = field(default_factory=WorldSpec)
    valid_games: int = what(10, "embedded world, split=held_out: further games for validation only", "games")
    test_games: int = what(40, "embedded world, split=held_out: further games for testing only", "games")
    cache: str = what("~/.cache/rlvr_world", "embedded world: folder where played rows are kept")
    train: str = what("", "files: training rows (.jsonl, .jsonl.gz, .parquet, or a folder of parquet)")
    test: str = what("", "files: test rows, same layouts")
    sft_train: str = what("", "files: rows that SFT fits, such as those `teach` keeps; empty takes data.train")
    rules: str = what("", "files: JSON file of the games' rules, for prompts that give them")
    split: Literal["published", "deduplicated", "held_out"] = what(
        "published", "test on other rows of the same games, on other questions of them, or on games held out whole"
    )
    valid_fraction: float = what(0.05, "share of training questions set aside for validation", "fraction")
    test_fraction: float = what(0.1, "embedded world: share of questions set aside for testing", "fraction")
    held_out_fraction: float = what(0.2, "files, split=held_out: share of games", "fraction")
    reasoning_column: str = what("", "column that holds a chain of thought with its answer, for sft.reasoning")
    style: PromptStyle = field(default_factory=PromptStyle)
    max_prompt: int = what(7192, "longest prompt; a longer one is refused", "tokens")
    max_response: int = what(4096, "longest answer", "tokens")
    reward: Literal["binary", "task_specific"] = what("binary", "exact match, or the paper's task-specific sum")
    scoring: Literal["strict", "published"] = what("strict", "whole-state comparison, or the published code's")
    unchanged_per_hundred: float = what(
        -1.0,
        "RL rows: unchanged ones for 100 changed ones (paper: 40 binary, 5 task-specific); negative takes all rows",
    )


class TextGame:
    """Encode, decode and score text-game transitions (states are ``GameState``)."""

    lower_is_better = frozenset[str]()

    def __init__(self, config: TextGameConfig, tokenizer: PreTrainedTokenizerBase, rules: Rules | None) -> None:
        self.config, self.tokenizer, self.rules = config, tokenizer, rules
        if tokenizer.eos_token_id is None:
            raise InputError("the model's tokenizer has no end-of-sequence token; text answers need one to stop at")

    def encode(self, transition: Transition) -> Script:
        ids = turn_ids(self.tokenizer, build_prompt(transition, self.config.style, self.rules))
        if len(ids) > self.config.max_prompt:
            raise InputError(
                f"row {transition.id}: the prompt has {len(ids)} tokens, expected at most {self.config.max_prompt}; "
                "raise data.max_prompt, or turn off data.style.example or data.style.rules"
            )
        answer = transition.reasoning or build_answer(transition, self.config.style.instructions)
        target = (*self.tokenizer.encode(answer, add_special_tokens=False), self.tokenizer.eos_token_id)
        stop = (self.tokenizer.eos_token_id,)
        return Script((Given(tuple(ids)), Write(self.config.max_response, stop=stop, target=target)))

    def decode(self, written: Sequence[Sequence[int]], transition: Transition) -> Prediction:
        text = self.tokenizer.decode(list(written[0]), clean_up_tokenization_spaces=False)
        return read_prediction(str(text))

    def score(self, prediction: Prediction, transition: Transition) -> Score:
        return score_answer(prediction.text, prediction, transition, self.config.reward, self.config.scoring)

    def baselines(self, transition: Transition) -> Mapping[str, Prediction]:
        return {"no change": read_prediction(NO_CHANGE)}

    def explain(self, prediction: Prediction, transition: Transition) -> str:
        return explain_prediction(prediction, transition)
