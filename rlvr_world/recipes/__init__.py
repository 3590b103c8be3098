"""Recipes: a name, a whole config, and which domain reads it. The one place where domains are told apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rlvr_world.config import Config
from rlvr_world.errors import InputError
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


@dataclass(frozen=True)
class Recipe:
    """How a run is put together."""

    config: Callable[[], Config]
    splits: Callable[[Config], Splits]
    domain: Callable[[Config, Any], Domain]
    """(config, tokenizer) -> the domain that encodes, decodes and scores."""
    texts: Callable[[Config, Splits], Sequence[str]]
    """What a from-scratch model's tokenizer is trained on."""
    protocol: Callable[[Config], dict[str, Any]]
    """The domain settings that an evaluation result depends on, besides the rows."""


def find(name: str) -> Recipe:
    """The recipe of this name; InputError names the nearest one otherwise."""
    from rlvr_world.recipes.text_game import TEXT_GAME_RECIPES

    recipes = {**TEXT_GAME_RECIPES}
    if name not in recipes:
        raise InputError(f"recipe {name!r} does not exist; there are: {', '.join(recipes)}")
    return recipes[name]
