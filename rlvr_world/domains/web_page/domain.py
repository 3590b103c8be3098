"""The web-page world: a page and an action in, the change to the next page out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from transformers import PreTrainedTokenizerBase

from rlvr_world.config import what
from rlvr_world.domains.web_page.browser import WebSpec
from rlvr_world.domains.web_page.change import Change, write_change
from rlvr_world.domains.web_page.explain import explain_change
from rlvr_world.domains.web_page.prompt import (
    acted_node,
    build_answer,
    build_prompt,
    nearest,
    page_lines,
    read_answer,
)
from rlvr_world.domains.web_page.published import published_f1
from rlvr_world.domains.web_page.rows import PageState
from rlvr_world.domains.web_page.scoring import make_score, score_change
from rlvr_world.errors import InputError
from rlvr_world.tokenizers import turn_ids
from rlvr_world.types import Given, Malformed, Score, Script, Transition, Write


@dataclass(frozen=True)
class WebPageConfig:
    source: Literal["browser", "files"] = what("browser", "play pages in a browser, or read row files")
    web: WebSpec = field(default_factory=WebSpec)
    cache: str = what("~/.cache/rlvr_world", "browser: folder where played rows are kept")
    train: str = what("", "files: training rows (.jsonl, .jsonl.gz, .json, .parquet, or a folder of parquet)")
    test: str = what("", "files: test rows, same layouts; empty splits data.train")
    label: Literal["aligned", "published"] = what("aligned", "the true change: ours, or as the published code finds it")
    scoring: Literal["strict", "published"] = what("strict", "reward: F1 without credit for 'None', or the published")
    reward_beta: float = what(
        1.0, "reward: F-beta, where recall counts so many times as much as precision; results always give F1"
    )
    reasoning_column: str = what("", "column that holds a chain of thought with its answer, for sft.reasoning")
    test_tasks: float = what(0.2, "share of tasks held out whole for testing", "fraction")
    test_seeds: float = what(0.15, "share of the other tasks' episodes held out for testing", "fraction")
    valid_seeds: float = what(0.05, "share of the other tasks' episodes held out for validation", "fraction")
    unchanged_per_hundred: float = what(-1.0, "RL rows: unchanged ones for 100 changed ones; negative takes all rows")
    style: Literal["published", "compact"] = what(
        "compact", "prompt and answer: 'published', or 'compact' for models trained from scratch"
    )
    changed_cap: int = what(0, "most items a section that count where part of a page changes; 0 counts all", "items")
    navigation_cap: int = what(
        20, "most items a section that count where most of a page changes; 0 counts all", "items"
    )
    max_prompt: int = what(5000, "longest prompt; of a longer page the lines around the acted element stay", "tokens")
    max_response: int = what(7288, "longest answer", "tokens")


@dataclass(frozen=True)
class Prediction:
    """A model's text and what it says. The published scoring reads the text in its own way, so both are kept."""

    text: str
    change: Change | Malformed


class WebPage:
    """Encode, decode and score page changes (states are ``PageState``, next states ``PageResult``)."""

    lower_is_better = frozenset[str]()

    def __init__(self, config: WebPageConfig, tokenizer: PreTrainedTokenizerBase) -> None:
        self.config, self.tokenizer = config, tokenizer
        if tokenizer.eos_token_id is None:
            raise InputError("the model's tokenizer has no end-of-sequence token; text answers need one to stop at")
        if not 0 < config.reward_beta < math.inf:
            raise InputError(f"data.reward_beta: expected a number above 0, got {config.reward_beta}; 1 rewards F1")
        if config.style == "compact" and "published" in (config.label, config.scoring):
            raise InputError(
                "data.style=compact: edits cannot state published labels, and published scoring cannot read them; "
                "set data.style=published, or data.label=aligned and data.scoring=strict"
            )

    def true_change(self, transition: Transition) -> Change:
        """The change that counts: its first items, at most so many as the config says for its kind."""
        return self._capped(transition.next_state.change, transition)

    def _capped(self, change: Change, transition: Transition) -> Change:
        of_whole = "navigation" in transition.kind
        return change.capped(self.config.navigation_cap if of_whole else self.config.changed_cap)

    def encode(self, transition: Transition) -> Script:
        state: PageState = transition.state
        try:
            answer = build_answer(self.true_change(transition), state, transition.action, self.config.style)
        except InputError as error:
            raise InputError(f"row {transition.id}: {error}") from error
        answer = transition.reasoning or answer
        target = (*self.tokenizer.encode(answer, add_special_tokens=False), self.tokenizer.eos_token_id)
        stop = (self.tokenizer.eos_token_id,)
        return Script((Given(self._prompt(transition)), Write(self.config.max_response, stop=stop, target=target)))

    def _prompt(self, transition: Transition) -> tuple[int, ...]:
        """The prompt's tokens. Of a page that is too long, lines go that are far from the acted element."""
        state: PageState = transition.state
        style, most = self.config.style, self.config.max_prompt
        ids = turn_ids(self.tokenizer, build_prompt(state, transition.action, style))
        if len(ids) <= most:
            return tuple(ids)
        acted = acted_node(state.page, transition.action)
        lines = page_lines(state.page, style, acted)
        sizes = [len(self.tokenizer.encode(f"{line}\n", add_special_tokens=False)) for line in lines]
        room = most - len(ids) + sum(sizes)
        while room > 0:
            kept = nearest(sizes, acted or 0, room)
            ids = turn_ids(self.tokenizer, build_prompt(state, transition.action, style, kept))
            if len(ids) <= most:
                return tuple(ids)
            room -= len(ids) - most
        raise InputError(
            f"row {transition.id}: the prompt has {len(ids)} tokens without most of its page, expected at most {most}; "
            "raise data.max_prompt"
        )

    def decode(self, written: Sequence[Sequence[int]], transition: Transition) -> Prediction:
        text = str(self.tokenizer.decode(list(written[0]), clean_up_tokenization_spaces=False))
        return Prediction(text, read_answer(text, transition.state, transition.action, self.config.style))

    def score(self, prediction: Prediction, transition: Transition) -> Score:
        true, said = self.true_change(transition), prediction.change
        beta = self.config.reward_beta
        strict = score_change(said if isinstance(said, Malformed) else self._capped(said, transition), true, beta)
        if self.config.scoring == "strict":
            return strict
        published = published_f1(prediction.text, write_change(true))
        return make_score(published.precision, published.recall, strict.parts["exact"], strict.malformed, beta)

    def baselines(self, transition: Transition) -> Mapping[str, Prediction]:
        """Nothing changes; all lines of the page stand in the next one, which published labels make a good answer."""
        page = Change(updated=tuple(node.line for node in transition.state.page.nodes))
        return {name: Prediction(write_change(c), c) for name, c in (("no change", Change()), ("copy page", page))}

    def explain(self, prediction: Prediction, transition: Transition) -> str:
        return explain_change(prediction.change, prediction.text, self.true_change(transition), transition)
