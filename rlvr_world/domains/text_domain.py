"""What domains over text share: a row is a question and an answer in words, which tokens only carry."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from rlvr_world.errors import InputError
from rlvr_world.models.text_tokenizer import TextTokenizer, answer_script, answer_text, turn_ids
from rlvr_world.types import Domain, Script, Transition, Written


class TextDomain(Domain):
    """A domain but for what it is about: say ``prompt``, ``answer``, ``read`` and the rest of ``Domain``.

    ``config`` has ``max_prompt`` and ``max_response``, in tokens. Without a tokenizer there are no tokens, only words.
    """

    lower_is_better = frozenset[str]()
    tokenizer: TextTokenizer
    headline = "exact"
    """The part of a score that tells how right an answer is, whatever the reward."""
    mend = "raise data.max_prompt"
    """What can be done about a prompt that is too long."""

    def __init__(self, config: Any, tokenizer: TextTokenizer | None) -> None:
        self.config = config
        if tokenizer is not None:
            if tokenizer.eos_token_id is None:
                raise InputError("the model's tokenizer has no end-of-sequence token; text answers need one to stop at")
            self.tokenizer = tokenizer

    @abstractmethod
    def prompt(self, row: Transition) -> str: ...

    @abstractmethod
    def answer(self, row: Transition) -> str:
        """The right one, of a row with a next state."""

    @abstractmethod
    def read(self, text: str, row: Transition) -> Any:
        """What an answer says: a prediction, or ``Malformed``. Never raises, whatever the text."""

    def taught(self, row: Transition) -> str:
        """The prompt for a teacher, who knows nothing of this world."""
        return self.prompt(row)

    def graded(self, text: str, row: Transition) -> float:
        """How right an answer is: 1 exactly so."""
        return self.score(self.read(text, row), row).parts[self.headline]

    def encode(self, transition: Transition) -> Script:
        ids: Sequence[int] = turn_ids(self.tokenizer, self.prompt(transition))
        if len(ids) > self.config.max_prompt:
            ids = self.shortened(transition, ids)
        answer = transition.reasoning or (None if transition.next_state is None else self.answer(transition))
        return answer_script(self.tokenizer, ids, answer, self.config.max_response)

    def shortened(self, row: Transition, ids: Sequence[int]) -> Sequence[int]:
        """A prompt of at most ``max_prompt`` tokens in place of a longer one. Raises InputError where there is none."""
        got = f"the prompt has {len(ids)} tokens, expected at most {self.config.max_prompt}"
        raise InputError(f"row {row.id}: {got}; {self.mend}")

    def decode(self, written: Written, transition: Transition) -> Any:
        return self.read(answer_text(self.tokenizer, written), transition)
