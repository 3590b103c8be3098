"""The data settings of a text-game run. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from rlvr_world.config import at_least, what
from rlvr_world.domains.splits import RowsConfig
from rlvr_world.errors import InputError


@dataclass(frozen=True)
class TextWorldSpec:
    """What to generate; the same spec gives the same bytes."""

    games: int = what(200, "games generated; growing it keeps the earlier games as they were", "games")
    rows_per_game: int = what(20, "rows a game, none of them twice; a very small game can have fewer", "rows")
    seed: int = what(0, "seed of all games and walks")
    rooms: int = what(2, "rooms a game; from three on, some have doors between them", "rooms")
    objects: int = what(4, "containers, supporters, keys, food and items a game (a quest may add some)", "objects")
    quest_length: int = what(2, "commands from the start to the win", "commands")
    changed_share: float = what(0.5, "rows in which something changes (ByteSized32's test set: 0.41)", "share of rows")
    split: Literal["train", "valid", "test"] = what(
        "train", "which games: of every ten game numbers eight are train, one is valid and one is test"
    )

    def __post_init__(self) -> None:
        at_least(self, games=1, rows_per_game=1, rooms=1, objects=1, quest_length=1)
        if not 0 <= self.changed_share <= 1:
            raise InputError(f"changed_share: expected a number from 0 to 1, got {self.changed_share}")
        if self.split not in ("train", "valid", "test"):
            raise InputError(f"split: expected train, valid or test, got {self.split!r}")

    def game_number(self, index: int) -> int:
        """The number of the index-th game of this split; numbers of different splits never meet."""
        train = index // 8 * 10 + index % 8
        return {"train": train, "valid": index * 10 + 8, "test": index * 10 + 9}[self.split]


@dataclass(frozen=True)
class Bytesized32Spec:
    """The published games, played exhaustively: every possible action at each step of their playthroughs."""

    checkout: str = what("", "your checkout of cognitiveailab/GPT-simulator; its games are Python code, and are run")
    games: tuple[str, ...] = what((), "which games; empty takes the 31 of the published test split")
    python: str = what("", "the Python that runs them, in processes of their own; empty takes this one")


@dataclass(frozen=True)
class PromptStyle:
    """Which parts a prompt has: by default those for instruction-tuned models."""

    instructions: bool = what(True, "say what the task is and how the answer must look")
    example: bool = what(False, "show two answered steps of a tiny game (about 900 tokens, the same in every prompt)")
    rules: bool = what(True, "give the written object, action and score rules of the row's game; needs a rules file")
    literals: Literal["python", "json"] = what(
        "python", "how states are printed: as in the published prompts, or letter by letter as the answer repeats them"
    )
    row: bool = what(False, "ask in the row's own words, as published rows and models need; all else here says nothing")

    def __post_init__(self) -> None:
        if self.literals not in ("python", "json"):
            raise InputError(f"literals: expected python or json, got {self.literals!r}")


@dataclass(frozen=True)
class TextGameConfig(RowsConfig):
    source: Literal["textworld", "files"] = what("textworld", "play the embedded text world, or read row files")
    env: TextWorldSpec = field(default_factory=TextWorldSpec)
    sft_train: str = what("", "files: rows that SFT fits, such as those `teach` keeps; empty takes data.train", "path")
    rules: str = what("", "files: the games' rules, where prompts give them: JSON, or GPT-simulator's folder", "path")
    deduplicate: bool = what(False, "files: leave out training rows whose question stands in the test rows")
    style: PromptStyle = field(default_factory=PromptStyle)
    max_prompt: int = what(7192, "longest prompt; a longer one is refused", "tokens")
    max_response: int = what(4096, "longest answer", "tokens")
    reward: Literal["binary", "task_specific"] = what("binary", "exact match, or the paper's task-specific sum")
    scoring: Literal["strict", "published"] = what("strict", "whole-state comparison, or the published code's")
