"""What recipes over files of text rows share: faults of rows, what RL draws, the model's text tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from rlvr_world.config import Config
from rlvr_world.errors import InputError
from rlvr_world.recipes import Recipe
from rlvr_world.types import Transition

if TYPE_CHECKING:
    from rlvr_world.domains.row_files import OnFault
    from rlvr_world.models.text_tokenizer import TextTokenizer


class RowsRecipe(Recipe):
    """A recipe whose rows are files of text, or are played into such files."""

    def __init__(self, config: Callable[[], Config]) -> None:
        self._config = config

    def config(self) -> Config:
        return self._config()

    def read(self, config: Config, path: str, column: str = "", on_fault: OnFault = None) -> list[Transition]:
        """The rows of a file; ``column`` holds their reasoning."""
        raise InputError(f"recipe {config.recipe}: reads no files")

    def files(self, config: Config) -> Mapping[str, str]:
        """The row files that the config names, with the column of each that holds reasoning."""
        return {}

    def row_faults(self, config: Config) -> list[str]:
        faults: list[str] = []
        for path, column in self.files(config).items() if config.data.source == "files" else ():
            if path:
                self.read(config, path, column, lambda error: faults.append(str(error)))
        return faults


def reasoning_column(config: Config) -> str:
    """The column of reasoning that likelihood training fits; empty for none."""
    return config.data.reasoning_column if config.sft.reasoning and config.sft.steps else ""


def text_of(config: Config, tokenizer: TextTokenizer | None) -> TextTokenizer:
    """The text tokenizer of a model. Raises InputError for a model that has none."""
    if tokenizer is None:
        raise InputError(f"model.source={config.model.source}: expected a model of text, got one without a tokenizer")
    return tokenizer
