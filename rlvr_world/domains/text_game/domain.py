"""The text-game world: a game state and a command in, the difference to the next state out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from transformers import PreTrainedTokenizerBase

from rlvr_world.domains.text_game.answer import Prediction, read_prediction
from rlvr_world.domains.text_game.config import TextGameConfig
from rlvr_world.domains.text_game.diff import apply_diff
from rlvr_world.domains.text_game.explain import explain_prediction
from rlvr_world.domains.text_game.prompt import Rules, build_answer, build_prompt
from rlvr_world.domains.text_game.rows import GameState
from rlvr_world.domains.text_game.scoring import score_answer
from rlvr_world.errors import InputError
from rlvr_world.models.text_tokenizer import answer_script, answer_text, check_end, turn_ids
from rlvr_world.types import Malformed, Score, Script, Transition


class TextGame:
    """Encode, decode and score text-game transitions (states are ``GameState``)."""

    lower_is_better = frozenset[str]()

    def __init__(self, config: TextGameConfig, tokenizer: PreTrainedTokenizerBase, rules: Rules | None) -> None:
        self.config, self.tokenizer, self.rules = config, tokenizer, rules
        check_end(tokenizer)

    def encode(self, transition: Transition) -> Script:
        ids = turn_ids(self.tokenizer, build_prompt(transition, self.config.style, self.rules))
        if len(ids) > self.config.max_prompt:
            raise InputError(
                f"row {transition.id}: the prompt has {len(ids)} tokens, expected at most {self.config.max_prompt}; "
                "raise data.max_prompt, or turn off data.style.example or data.style.rules"
            )
        answer = transition.reasoning or None
        if answer is None and transition.next_state is not None:
            answer = build_answer(transition, self.config.style.instructions)
        return answer_script(self.tokenizer, ids, answer, self.config.max_response)

    def decode(self, written: Sequence[Sequence[int]], transition: Transition) -> Prediction:
        return read_prediction(answer_text(self.tokenizer, written))

    def score(self, prediction: Prediction, transition: Transition) -> Score:
        return score_answer(prediction.text, prediction, transition, self.config.reward, self.config.scoring)

    def advance(self, state: GameState, action: str, prediction: Prediction) -> GameState | Malformed:
        diff = prediction.diff
        return diff if isinstance(diff, Malformed) else apply_diff(state, diff)

    def baselines(self, transition: Transition) -> Mapping[str, Prediction]:
        return {"no change": read_prediction('{"modified": [], "removed": [], "score": {}}')}

    def explain(self, prediction: Prediction, transition: Transition) -> str:
        return explain_prediction(prediction, transition)
