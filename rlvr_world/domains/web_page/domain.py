"""The web-page world: a page and an action in, the change to the next page out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from transformers import PreTrainedTokenizerBase

from rlvr_world.domains.row_files import own_prompt
from rlvr_world.domains.web_page import prompt
from rlvr_world.domains.web_page.actions import target_of
from rlvr_world.domains.web_page.change import Change, sound, write_change
from rlvr_world.domains.web_page.config import WebPageConfig
from rlvr_world.domains.web_page.diff import apply_change
from rlvr_world.domains.web_page.explain import explain_change
from rlvr_world.domains.web_page.outcome import GOES_ON, brier_rewards, split_outcome
from rlvr_world.domains.web_page.published import published_f1
from rlvr_world.domains.web_page.rows import PageState
from rlvr_world.domains.web_page.scoring import make_score, score_change
from rlvr_world.domains.web_page.tree import parse_page, write_page
from rlvr_world.errors import InputError
from rlvr_world.models.text_tokenizer import answer_script, answer_text, check_end, turn_ids
from rlvr_world.types import Malformed, Score, Script, Transition


@dataclass(frozen=True)
class Prediction:
    """A model's text and what it says. The published scoring reads the text in its own way, so both are kept."""

    text: str
    change: Change | Malformed
    outcome: str = ""
    """How the episode stands, where that is asked."""


class WebPage:
    """Encode, decode and score page changes (states are ``PageState``, next states ``PageResult``)."""

    lower_is_better = frozenset[str]()

    def __init__(self, config: WebPageConfig, tokenizer: PreTrainedTokenizerBase) -> None:
        self.config, self.tokenizer = config, tokenizer
        check_end(tokenizer)
        if not 0 < config.reward_beta < math.inf:
            raise InputError(f"data.reward_beta: expected a number above 0, got {config.reward_beta}; 1 rewards F1")
        if not 0 <= config.outcome_weight <= 1:
            raise InputError(f"data.outcome_weight: expected 0 to 1, got {config.outcome_weight}; 0 leaves it out")
        if config.outcome_reward == "brier" and (config.style != "outcome" or not config.outcome_weight):
            got = f"data.style={config.style} and data.outcome_weight={config.outcome_weight}"
            raise InputError(f"data.outcome_reward=brier: expected data.style=outcome with a weight above 0, got {got}")
        if config.style in prompt.COMPACT and "published" in (config.label, config.scoring):
            raise InputError(
                f"data.style={config.style}: edits cannot state published labels, nor published scoring read them; "
                "set data.style=published, or data.label=aligned and data.scoring=strict"
            )

    def true_change(self, transition: Transition) -> Change:
        """The change that counts: its first items, at most so many as the config says for its kind."""
        return self._capped(transition.next_state.change, transition)

    def _capped(self, change: Change, transition: Transition) -> Change:
        of_whole = "navigation" in transition.kind
        return change.capped(self.config.navigation_cap if of_whole else self.config.changed_cap)

    def encode(self, transition: Transition) -> Script:
        answer = None
        if transition.next_state is not None:
            change, outcome = self.true_change(transition), transition.next_state.outcome
            try:
                answer = prompt.build_answer(change, transition.state, transition.action, self.config.style, outcome)
            except InputError as error:
                raise InputError(f"row {transition.id}: {error}") from error
            answer = transition.reasoning or answer
        return answer_script(self.tokenizer, self._prompt(transition), answer, self.config.max_response)

    def _prompt(self, transition: Transition) -> Sequence[int]:
        """The prompt's tokens. Of a page that is too long, lines go that are far from the acted element."""
        state, action, style, most = transition.state, transition.action, self.config.style, self.config.max_prompt
        own = own_prompt(transition) if style == "row" else ""
        ids = turn_ids(self.tokenizer, own or prompt.build_prompt(state, action, style))
        if len(ids) <= most:
            return ids
        if own:
            raise InputError(
                f"row {transition.id}: its prompt has {len(ids)} tokens, at most {most}; raise data.max_prompt"
            )
        acted = prompt.acted_node(state.page, action)
        lines = prompt.page_lines(state, style, acted)
        sizes = [len(self.tokenizer.encode(f"{line}\n", add_special_tokens=False)) for line in lines]
        room = most - len(ids) + sum(sizes)
        while room > 0:
            kept = prompt.nearest(sizes, acted or 0, room)
            ids = turn_ids(self.tokenizer, prompt.build_prompt(state, action, style, kept))
            if len(ids) <= most:
                return ids
            room -= len(ids) - most
        raise InputError(
            f"row {transition.id}: the prompt has {len(ids)} tokens without most of its page, expected at most {most}; "
            "raise data.max_prompt"
        )

    def decode(self, written: Sequence[Sequence[int]], transition: Transition) -> Prediction:
        text = answer_text(self.tokenizer, written)
        said = prompt.read_answer(text, transition.state, transition.action, self.config.style)
        if self.config.label == "aligned" and isinstance(said, Change):  # published labels name one node twice
            said = said if self.config.style in prompt.COMPACT else sound(said)
        return Prediction(text, said, "" if isinstance(said, Malformed) else split_outcome(text)[1])

    def score(self, prediction: Prediction, transition: Transition) -> Score:
        true, said = self.true_change(transition), prediction.change
        beta = self.config.reward_beta
        strict = score_change(said if isinstance(said, Malformed) else self._capped(said, transition), true, beta)
        if self.config.style == "outcome":
            right, weight = float(prediction.outcome == transition.next_state.outcome), self.config.outcome_weight
            value = (1 - weight) * strict.value + weight * right
            return Score(value, {**strict.parts, "outcome": right}, strict.malformed)
        if self.config.scoring == "strict":
            return strict
        published = published_f1(prediction.text, write_change(true))
        return make_score(published.precision, published.recall, strict.parts["exact"], strict.malformed, beta)

    def advance(self, state: PageState, action: str, prediction: Prediction) -> PageState | Malformed:
        if isinstance(prediction.change, Malformed):
            return prediction.change
        page = apply_change(state.page, prediction.change, target_of(action))
        text = write_page(page)
        with suppress(InputError):
            if parse_page(text) == page:
                done = (*state.done, action)
                return replace(state, text=text, previous=action, outcome=prediction.outcome, done=done)
        return Malformed("a line that is no node")

    def baselines(self, transition: Transition) -> Mapping[str, Prediction]:
        """Nothing changes; all lines of the page stand in the next one, which published labels make a good answer."""
        page = Change(updated=tuple(node.line for node in transition.state.page.nodes))
        trivial = {"no change": Change(), "copy page": page}
        return {name: Prediction(write_change(change), change, GOES_ON) for name, change in trivial.items()}

    def explain(self, prediction: Prediction, transition: Transition) -> str:
        return explain_change(prediction.change, prediction.text, self.true_change(transition), transition)


class CalibratedWebPage(WebPage):
    """One whose groups are rewarded for the shares of the outcomes that they state; see ``brier_rewards``."""

    def score_groups(
        self, predictions: Sequence[Sequence[Prediction]], transitions: Sequence[Transition]
    ) -> list[list[Score]]:
        scored = []
        for group, row in zip(predictions, transitions, strict=True):
            scores = [self.score(one, row) for one in group]
            earned = brier_rewards([one.outcome for one in group], row.next_state.outcome)
            more = (worth - score.parts["outcome"] for worth, score in zip(earned, scores, strict=True))
            weight = self.config.outcome_weight
            scored.append([replace(one, value=one.value + weight * m) for one, m in zip(scores, more, strict=True)])
        return scored
