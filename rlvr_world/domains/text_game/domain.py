"""The text-game world: a game state and a command in, the difference to the next state out."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from rlvr_world.domains.text_domain import TextDomain
from rlvr_world.domains.text_game.answer import Prediction, read_prediction
from rlvr_world.domains.text_game.config import TextGameConfig
from rlvr_world.domains.text_game.diff import apply_diff
from rlvr_world.domains.text_game.explain import explain_prediction
from rlvr_world.domains.text_game.prompt import Rules, build_answer, build_prompt
from rlvr_world.domains.text_game.rows import GameState, check_score
from rlvr_world.domains.text_game.scoring import score_answer
from rlvr_world.errors import InputError
from rlvr_world.models.text_tokenizer import TextTokenizer
from rlvr_world.types import Malformed, Score, Transition


class TextGame(TextDomain):
    """Encode, decode and score text-game transitions (states are ``GameState``)."""

    config: TextGameConfig
    explain = staticmethod(explain_prediction)
    mend = "raise data.max_prompt, or turn off data.style.example or data.style.rules"

    def __init__(self, config: TextGameConfig, tokenizer: TextTokenizer | None, rules: Rules | None) -> None:
        super().__init__(config, tokenizer)
        self.rules = rules
        self.headline = "exact" if config.scoring == "strict" else "exact_published"

    def prompt(self, row: Transition) -> str:
        return build_prompt(row, self.config.style, self.rules)

    def answer(self, row: Transition) -> str:
        return build_answer(row, self.config.style.instructions)

    def read(self, text: str, row: Transition) -> Prediction:
        return read_prediction(text)

    def score(self, prediction: Prediction, transition: Transition) -> Score:
        return score_answer(prediction, transition, self.config.reward, self.config.scoring)

    def advance(self, state: GameState, action: str, prediction: Prediction) -> GameState | Malformed:
        if isinstance(prediction.diff, Malformed):
            return prediction.diff
        after = apply_diff(state, prediction.diff)
        with suppress(InputError):  # half a score is scored for what is right of it, but no game goes on from it
            check_score(after.score, "answer", "score")
            return after
        return Malformed("'score' is not a whole score")

    def baselines(self, transition: Transition) -> Mapping[str, Prediction]:
        return {"no change": read_prediction('{"modified": [], "removed": [], "score": {}}')}
