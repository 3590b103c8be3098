"""The web-page world: a page and an action in, the change to the next page out; and a predicted change beside the true
one, with the page before and after, as a diff that a person reads."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from rlvr_world.domains.answers import printable
from rlvr_world.domains.row_files import own_prompt
from rlvr_world.domains.text_domain import TextDomain
from rlvr_world.domains.web_page import prompt
from rlvr_world.domains.web_page.actions import target_of
from rlvr_world.domains.web_page.change import Change, items, make_score, score_change, sound, write_change
from rlvr_world.domains.web_page.config import WebPageConfig
from rlvr_world.domains.web_page.diff import apply_change, match_nodes
from rlvr_world.domains.web_page.outcome import GOES_ON, brier_rewards, split_outcome
from rlvr_world.domains.web_page.published import published_precision_recall
from rlvr_world.domains.web_page.rows import PageResult, PageState
from rlvr_world.domains.web_page.tree import Node, Page, parse_page, write_page
from rlvr_world.errors import InputError
from rlvr_world.models.text_tokenizer import turn_ids
from rlvr_world.types import Malformed, Score, Transition

SHOWN = 24
"""Most nodes of a page that are shown, around the acted one."""
_WIDTH = 160


@dataclass(frozen=True)
class Prediction:
    """A model's text and what it says. The published scoring reads the text in its own way, so both are kept."""

    text: str
    change: Change | Malformed
    outcome: str = ""
    """How the episode stands, where that is asked."""


class WebPage(TextDomain):
    """Encode, decode and score page changes (states are ``PageState``, next states ``PageResult``)."""

    config: WebPageConfig
    headline = "f1"

    def true_change(self, transition: Transition) -> Change:
        """The change that counts: its first items, at most so many as the config says for its kind."""
        return self._capped(transition.next_state.change, transition)

    def _capped(self, change: Change, transition: Transition) -> Change:
        of_whole = "navigation" in transition.kind
        return change.capped(self.config.navigation_cap if of_whole else self.config.changed_cap)

    def prompt(self, row: Transition) -> str:
        style = self.config.style
        return own_prompt(row) if style == "row" else prompt.build_prompt(row.state, row.action, style)

    def taught(self, row: Transition) -> str:
        return row.prompt or self.prompt(row)

    def answer(self, row: Transition) -> str:
        change, outcome = self.true_change(row), row.next_state.outcome
        try:
            return prompt.build_answer(change, row.state, row.action, self.config.style, outcome)
        except InputError as error:
            raise InputError(f"row {row.id}: {error}") from error

    def shortened(self, row: Transition, ids: Sequence[int]) -> Sequence[int]:
        """Without the lines of a page that are far from the acted element."""
        state, action, style, most = row.state, row.action, self.config.style, self.config.max_prompt
        acted = prompt.acted_node(state.page, action)
        lines = prompt.page_lines(state, style, acted)
        sizes = [len(self.tokenizer.encode(f"{line}\n", add_special_tokens=False)) for line in lines]
        room = most - len(ids) + sum(sizes) if style != "row" else 0
        while room > 0:
            kept = prompt.nearest(sizes, acted or 0, room)
            ids = turn_ids(self.tokenizer, prompt.build_prompt(state, action, style, kept))
            if len(ids) <= most:
                return ids
            room -= len(ids) - most
        return super().shortened(row, ids)

    def read(self, text: str, row: Transition) -> Prediction:
        said = prompt.read_answer(text, row.state, row.action, self.config.style)
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
        published = published_precision_recall(prediction.text, write_change(true))
        return make_score(*published, strict.parts["exact"], strict.malformed, beta)

    def among(self, group: Sequence[Prediction], scores: Sequence[Score], row: Transition) -> list[Score]:
        """In RL a group may be rewarded for the shares of the outcomes that it states; see ``brier_rewards``."""
        if self.config.outcome_reward == "right":
            return list(scores)
        earned = brier_rewards([one.outcome for one in group], row.next_state.outcome)
        weight, gained = self.config.outcome_weight, zip(earned, scores, strict=True)
        return [replace(one, value=one.value + weight * (worth - one.parts["outcome"])) for worth, one in gained]

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
        """The action, the change item by item, and the pages, in which a star marks the nodes that come, go or differ.

        An item starts with a space where the prediction is right, ``-`` where it missed one, ``+`` where none happened.
        """
        result: PageResult = transition.next_state
        page: Page = transition.state.page
        said, true = prediction.change, self.true_change(transition)
        centre = prompt.acted_node(page, transition.action) or 0
        lines = [f"  action: {transition.action}", *([f"  error: {result.error}"] if result.error else [])]
        if isinstance(said, Malformed):
            lines += [f"+ malformed: {said.reason}", f"+ text: {prediction.text[:_WIDTH]!r}"]
            said = Change()
        predicted, wanted = items(said), items(true)
        marked = ((" ", predicted & wanted), ("-", wanted - predicted), ("+", predicted - wanted))
        body = [f"{mark} {section} {line}" for mark, found in marked for section, line in found.elements()]
        lines += body or ["  nothing changes"]
        before, after = page.nodes, parse_page(result.text).nodes
        if after:
            pairs = match_nodes(before, after)
            kept = {i: j for i, j in pairs.items() if before[i].text == after[j].text}
            lines += ["  page before:", *_page_lines(before, centre, kept)]
            lines += ["  page after:", *_page_lines(after, pairs.get(centre, 0), kept.values())]
        return "\n".join(printable(line if len(line) <= _WIDTH else f"{line[:_WIDTH]}...") for line in lines)


def _page_lines(nodes: Sequence[Node], centre: int, kept: Collection[int]) -> Iterator[str]:
    """The nodes around ``centre``, a star before those that are not at the indices ``kept``."""
    shown = prompt.nearest([1] * len(nodes), centre, SHOWN)
    for i in sorted(shown):
        yield f"    {' ' if i in kept else '*'} {'  ' * nodes[i].depth}{nodes[i].line}"
    if len(shown) < len(nodes):
        yield f"      ({len(nodes) - len(shown)} more)"
