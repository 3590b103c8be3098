"""A world of one's own in one file: a walker on a grid with walls. One CPU core, under a minute."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from transformers import PreTrainedTokenizerBase

from rlvr_world.config import ModelConfig, OptimizerConfig, RLConfig, SFTConfig
from rlvr_world.evaluation.evaluate import Plan, evaluate
from rlvr_world.evaluation.summary import markdown_table, paper_table
from rlvr_world.models.loading import create_model
from rlvr_world.models.text_tokenizer import train_text_tokenizer
from rlvr_world.training.grpo import GRPO
from rlvr_world.training.learner import Learner
from rlvr_world.training.sft import SFT
from rlvr_world.types import (
    Given,
    Malformed,
    Score,
    Script,
    Transition,
    Write,
)

LETTERS = "abcdefghijklmnopqrst"
MOVES = {"north": (0, -1), "south": (0, 1), "west": (-1, 0), "east": (1, 0)}
Cell = tuple[int, int]


def rows() -> list[Transition]:
    """Every free cell of a 20 x 20 grid, with every move: a step, or none where a wall or the edge is. Shuffled."""
    cells = {(x, y) for x in range(20) for y in range(20)}
    free = cells - set(random.Random(0).sample(sorted(cells), 40))
    found = []
    for x, y in sorted(free):
        for move, (dx, dy) in MOVES.items():
            kind = "moved" if (x + dx, y + dy) in free else "blocked"
            after = (x + dx, y + dy) if kind == "moved" else (x, y)
            found.append(Transition(f"{LETTERS[x]}{LETTERS[y]} {move}", (x, y), move, after, kind))
    random.Random(1).shuffle(found)
    return found


class Grid:
    """How the grid is written as tokens, read back, and scored."""

    lower_is_better = frozenset[str]()  # "exact" is better where it is more

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer, self.end = tokenizer, tokenizer.eos_token_id

    def _tokens(self, cell: Cell) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode(LETTERS[cell[0]] + LETTERS[cell[1]]))

    def encode(self, transition: Transition) -> Script:
        prompt = Given(self._tokens(transition.state) + tuple(self.tokenizer.encode(transition.action[0].upper())))
        return Script((prompt, Write(4, stop=(self.end,), target=(*self._tokens(transition.next_state), self.end))))

    def decode(self, written: Sequence[Sequence[int]], transition: Transition) -> Cell | Malformed:
        text = self.tokenizer.decode(list(written[0]))
        if len(text) != 2 or not set(text) <= set(LETTERS):
            return Malformed("not two letters")
        return LETTERS.index(text[0]), LETTERS.index(text[1])

    def score(self, prediction: Cell | Malformed, transition: Transition) -> Score:
        exact = float(prediction == transition.next_state)
        return Score(exact, {"exact": exact}, prediction.reason if isinstance(prediction, Malformed) else "")

    def baselines(self, transition: Transition) -> Mapping[str, Cell]:
        return {"no change": transition.state}

    def explain(self, prediction: Cell | Malformed, transition: Transition) -> str:
        if prediction == transition.next_state:
            return f"  {prediction}"
        return f"- {transition.next_state}\n+ {prediction}"


def main(sft_steps: int = 200, rl_steps: int = 150) -> None:
    everything = rows()
    test, train = everything[:400], everything[400:]
    tokenizer = train_text_tokenizer([], vocab_size=259)  # single bytes and the special tokens
    model = create_model(len(tokenizer), hidden=64, layers=2, heads=4, max_length=32, tokenizer=tokenizer)
    settings = ModelConfig(device="cpu", precision="float32")
    grid, results = Grid(tokenizer), {}

    def measure(name: str, learner: Learner) -> None:
        results[name], shown = evaluate(learner.policy, grid, test, Plan(), settings={})
        wrong = next((s for s in shown if not s["right"]), None)
        if wrong:
            print(f"{name}, a wrong prediction: {wrong['id']}\n{wrong['diff']}\n")

    sft = SFTConfig(steps=sft_steps, batch=64, optimizer=OptimizerConfig(3e-3, "cosine", warmup=0.05))
    learner = Learner(model, tokenizer, settings, sft.optimizer)
    likelihood = SFT(learner, sft, [grid.encode(row) for row in train], seed=0)
    for step in range(sft.steps):
        likelihood.step(step, step / sft.steps)
    measure("SFT", learner)

    rl = RLConfig(steps=rl_steps, prompts=32, group=8, optimizer=OptimizerConfig(1e-3))
    learner = Learner(learner.model, tokenizer, settings, rl.optimizer)
    grpo = GRPO(learner, rl, grid, lambda epoch: train, seed=0)
    for step in range(rl.steps):
        metrics, _ = grpo.step(step, step / rl.steps)
        if (step + 1) % 30 == 0:
            print(f"RL step {step + 1}: reward {metrics['reward']:.2f}")
    print()
    measure("SFT + RL", learner)
    print(markdown_table(paper_table(results)))


if __name__ == "__main__":
    main()
