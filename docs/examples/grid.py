"""A world of one's own in one file: a walker on a grid with walls. One minute on two CPU cores:

rlvr-world train docs/examples/grid.py
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlvr_world import Config, Given, InputError, Malformed, Recipe, Score, Script, Splits, Transition, Write
from rlvr_world.config import ModelConfig, OptimizerConfig, RLConfig, SFTConfig, what

LETTERS = "abcdefghijklmnopqrstuvwxyz"
MOVES = {"north": (0, -1), "south": (0, 1), "west": (-1, 0), "east": (1, 0)}
Cell = tuple[int, int]


@dataclass(frozen=True)
class GridConfig:
    size: int = what(20, "the grid is so many cells wide and high, at most 26", "cells")
    walls: int = what(40, "cells that nobody can enter", "cells")
    test: int = what(400, "rows kept for testing", "rows")
    valid: int = what(100, "rows kept for validation", "rows")

    def __post_init__(self) -> None:
        if not (2 <= self.size <= 26 and 0 <= self.walls < self.size**2):
            raise InputError(f"data.size: expected 2 to 26, and fewer walls than cells; got {self.size}, {self.walls}")


def rows(data: GridConfig) -> list[Transition]:
    """Every free cell with every move: a step, or none where a wall or the edge is. Shuffled."""
    cells = [(x, y) for x in range(data.size) for y in range(data.size)]
    free = set(cells) - set(random.Random(0).sample(cells, data.walls))
    found = []
    for x, y in sorted(free):
        for move, (dx, dy) in MOVES.items():
            kind = "moved" if (x + dx, y + dy) in free else "blocked"
            after = (x + dx, y + dy) if kind == "moved" else (x, y)
            found.append(Transition(f"{LETTERS[x]}{LETTERS[y]}-{move}", (x, y), move, after, kind))
    random.Random(1).shuffle(found)
    return found


class Grid:
    """How the grid is written as tokens, read back, and scored."""

    lower_is_better = frozenset[str]()  # "exact" is better where it is more

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.end = tokenizer, tokenizer.eos_token_id

    def _tokens(self, cell: Cell) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode(LETTERS[cell[0]] + LETTERS[cell[1]]))

    def encode(self, transition: Transition) -> Script:
        move, after = self.tokenizer.encode(transition.action[0].upper()), transition.next_state
        target = None if after is None else (*self._tokens(after), self.end)  # None: it is what is asked for
        return Script((Given((*self._tokens(transition.state), *move)), Write(4, stop=(self.end,), target=target)))

    def decode(self, written: Sequence[Sequence[int]], transition: Transition) -> Cell | Malformed:
        text = self.tokenizer.decode(list(written[0]))
        if len(text) != 2 or not set(text) <= set(LETTERS):
            return Malformed("not two letters")
        return LETTERS.index(text[0]), LETTERS.index(text[1])

    def score(self, prediction: Cell | Malformed, transition: Transition) -> Score:
        exact = float(prediction == transition.next_state)
        return Score(exact, {"exact": exact}, prediction.reason if isinstance(prediction, Malformed) else "")

    def advance(self, state: Cell, action: str, prediction: Cell | Malformed) -> Cell | Malformed:
        return prediction  # it is the whole next state; one that is a difference is applied here

    def baselines(self, transition: Transition) -> Mapping[str, Cell]:
        return {"no change": transition.state}

    def explain(self, prediction: Cell | Malformed, transition: Transition) -> str:
        truth = transition.next_state
        return f"  {truth}" if prediction == truth else f"- {truth}\n+ {prediction}"


class GridRecipe(Recipe):
    def config(self) -> Config:
        return Config(
            summary="a walker on a grid with walls (2 cores, one minute)",
            data=GridConfig(),
            model=ModelConfig(vocabulary=259, hidden=64, layers=2, heads=4, context=32),
            sft=SFTConfig(steps=200, batch=64, optimizer=OptimizerConfig(3e-3, "cosine", warmup=0.05)),
            rl=RLConfig(steps=150, prompts=32, group=8, optimizer=OptimizerConfig(1e-3), eval_every=50),
        )

    def splits(self, config: Config) -> Splits:
        everything, test, kept = rows(config.data), config.data.test, config.data.test + config.data.valid
        if kept >= len(everything):
            raise InputError(f"data.test, data.valid: of {len(everything)} rows none is left to train on; lower them")
        return Splits(everything[kept:], everything[kept:], everything[test:kept], everything[:test])

    def domain(self, config: Config, model: Any, tokenizer: Any, world: Path | None) -> Grid:
        return Grid(tokenizer)

    def texts(self, config: Config, splits: Splits) -> Iterator[str]:
        return iter(())  # single bytes will do: 256 of them, and three special tokens

    def question(self, given: Any) -> Transition:
        asked = super().question(given)  # an object with state and action
        state = tuple(asked.state) if isinstance(asked.state, Sequence) else ()
        sound = len(state) == 2 and all(type(n) is int and 0 <= n < 26 for n in state)
        if not sound or asked.action not in [*MOVES]:
            raise InputError(f"expected a state [x, y] and an action of {', '.join(MOVES)}, got {given!r:.99}")
        return Transition(asked.id, state, asked.action, None)


recipe = GridRecipe()
