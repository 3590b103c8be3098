"""Recipes: a name, a whole config, and which domain reads it. The one place where domains are told apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from rlvr_world.config import Config
from rlvr_world.errors import InputError
from rlvr_world.models import Model, create_model
from rlvr_world.training.guards import Guard
from rlvr_world.training.tracking import Log
from rlvr_world.types import Domain, Transition


@dataclass(frozen=True)
class Splits:
    """Rows of a run, and what RL draws from in each epoch."""

    sft: Sequence[Transition]
    """What likelihood training fits."""
    train: Sequence[Transition]
    valid: Sequence[Transition]
    test: Sequence[Transition]
    rl_epoch: Callable[[int, int], Sequence[Transition]]
    """(seed, epoch) -> rows; as many in every epoch."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Why rows that were read are in no split -> how many."""


Tokenizer = PreTrainedTokenizerBase | None
"""The tokenizer of a model over text; None where tokens are something else."""


def _nothing(config: Config, splits: Splits, folder: Path, log: Log) -> None:
    """What most recipes have to do before there can be a model."""


def _none_known(config: Config) -> list[str]:
    """Where rows come from no files of rows."""
    return []


@dataclass(frozen=True)
class Recipe:
    """How a run is put together. ``folder`` is the run folder; None where a model is used outside of a run."""

    config: Callable[[], Config]
    splits: Callable[[Config], Splits]
    new_model: Callable[[Config, Splits, Path], tuple[Model, Tokenizer]]
    """(config, splits, folder) -> a model from scratch with random weights."""
    domain: Callable[[Config, Model, Tokenizer, Path | None], Domain]
    """(config, model, tokenizer, folder) -> the domain that encodes, decodes and scores."""
    protocol: Callable[[Config], dict[str, Any]]
    """The domain settings that an evaluation result depends on, besides the rows."""
    prepare: Callable[[Config, Splits, Path, Log], None] = _nothing
    """(config, splits, folder, log): what has to stand in the run folder before there can be a model."""

    prepared: Callable[[Config], tuple[Any, Guard]] | None = None
    """config -> the stage that ``prepare`` trains, as it begins, and its guard; None where nothing is trained."""

    row_faults: Callable[[Config], list[str]] = _none_known
    """config -> what is wrong with each row of its files that does not read."""


def from_scratch(config: Config, vocabulary: int, max_length: int, tokenizer: Tokenizer = None) -> Model:
    """The random model that ``config.model`` describes, over a vocabulary that the recipe knows."""
    shape = config.model
    return create_model(
        vocabulary,
        hidden=shape.hidden,
        layers=shape.layers,
        heads=shape.heads,
        max_length=max_length,
        tokenizer=tokenizer,
        seed=config.seed,
        intermediate=shape.intermediate,
        tied=shape.tied,
    )


def recipes() -> dict[str, Recipe]:
    """Every recipe by name."""
    from rlvr_world.recipes.text_game import TEXT_GAME_RECIPES
    from rlvr_world.recipes.video import VIDEO_RECIPES
    from rlvr_world.recipes.web_page import WEB_PAGE_RECIPES

    return {**TEXT_GAME_RECIPES, **VIDEO_RECIPES, **WEB_PAGE_RECIPES}


def find(name: str) -> Recipe:
    """The recipe of this name; InputError lists them all otherwise."""
    known = recipes()
    if name not in known:
        raise InputError(f"recipe {name!r} does not exist; there are: {', '.join(known)}")
    return known[name]
