"""The paper's web agent: propose -> the most frequent -> predict -> summarise -> describe -> score -> act.

Each role is a language model behind a server. A step takes one request for all proposals and four for each of three
candidates: 13, where the server has ``n``. Roles and order are those of RLVR-World (arXiv 2505.13934), which are WMA's
(arXiv 2410.13232); the words, in ``web_agent.json``, are our own.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Literal

from rlvr_world.config import at_least, what
from rlvr_world.domains.answers import after_thinking
from rlvr_world.domains.scene import read_text
from rlvr_world.domains.web_page.actions import parse_action
from rlvr_world.domains.web_page.change import Change, read_change, write_change
from rlvr_world.domains.web_page.config import BrowserSpec
from rlvr_world.domains.web_page.diff import page_change
from rlvr_world.domains.web_page.prompt import build_prompt, told_action
from rlvr_world.domains.web_page.rows import PageState, read_question
from rlvr_world.domains.web_page.scene import refused
from rlvr_world.errors import Halted, InputError
from rlvr_world.recipes import named_in
from rlvr_world.recipes.chat import Chat, Reply
from rlvr_world.types import Malformed, Outcome

ASKED = json.loads(Path(__file__).with_suffix(".json").read_text())
VOTES, DIGITS = 20, ("1", "2", "3", "4", "5")
STATED = re.compile(r"(?!.*<think>)(?:.*Score\]?:)?\s*\[?\s*", re.DOTALL)
"""What stands before a score, or nothing."""


@dataclass(frozen=True)
class Role:
    url: str = what("", "an OpenAI-compatible server: http://localhost:8000/v1; empty takes that of the policy")
    model: str = what("", "the model's name there; empty takes that of the policy")
    key: str = what("OPENAI_API_KEY", "environment variable that holds the server's key")
    temperature: float = what(1.0, "sampling temperature")
    top_p: float = what(0.95, "sample among the likeliest tokens with this probability together", "share")
    tokens: int = what(1024, "longest reply", "tokens")
    together: bool = what(True, "ask for all samples in one request (n); false for a server that refuses that")


@dataclass(frozen=True)
class Judge(Role):
    tokens: int = what(0, "longest reply; 0 takes 1024, or 16 where the digit alone is asked for", "tokens")
    score: Literal["sampled", "expected", "either"] = what(
        "sampled",
        "the mean of as many scores as votes says, as in the paper; or what is expected by the probabilities of the "
        "tokens 1 to 5, which one short request tells (logprobs); or that where the server tells them",
    )


@dataclass(frozen=True)
class AgentConfig:
    env: BrowserSpec = field(default_factory=lambda: BrowserSpec(episodes=1, steps=5))
    pages: str = what("", "FILE.py:FUNCTION of env's settings -> a world of pages of your own; empty plays env's")
    policy: Role = field(default_factory=Role)
    summary: Role = field(default_factory=Role)
    value: Judge = field(default_factory=Judge)
    world: Role = field(default_factory=Role)
    imagine: str = what("", "a run, a model folder, or 'server' to ask world.url; empty acts without a world model")
    proposals: int = what(20, "actions asked of the policy", "samples")
    branches: int = what(3, "the most frequent of them, which are looked ahead from", "actions")
    votes: int = what(VOTES, "scores asked of each, where they are sampled", "samples")

    def __post_init__(self) -> None:
        at_least(self, proposals=1, branches=1, votes=1)
        if (self.env.ends, self.env.transitions) != (BrowserSpec.ends, BrowserSpec.transitions):
            raise InputError("env.ends, env.transitions: they say how rows are collected; leave them out, or set steps")
        if self.value.score == "expected" and self.votes != VOTES:
            raise InputError(f"votes: value.score=expected asks for one score, got votes={self.votes}; leave one out")


class Agent:
    """Decides what to do on a page; keeps count of what that costs, and of replies that do not read or come."""

    def __init__(self, config: AgentConfig, most: Counter[str], imagine: Callable[..., Any] | None = None) -> None:
        """``most``: the ``requests`` and ``tokens`` after which it stops; 0 for no limit. ``imagine``: the model that
        ``config.imagine`` names, where that is no server. Raises InputError for a role without a server."""
        self.config, self.most, self.imagine = config, most, imagine
        self.broken, self.spent = list[str](), list[int]()  # what was wrong with replies; the tokens of each request
        self.begun = count()  # requests, of which several go on at once
        self.roles: dict[str, tuple[Role, Chat]] = {}
        self.score: str = config.value.score  # "known" once the server has told probabilities
        for name in ("policy", "world", "summary", "value"):
            own: Role = getattr(config, name)
            if not own.url:
                own = replace(own, url=config.policy.url, model=own.model or config.policy.model, key=config.policy.key)
            if not (own.url and own.model):
                raise InputError(f"{name}.url: expected a server, with {name}.model; give at least those of policy")
            self.roles[name] = own, Chat(name, own.url, own.model, own.key, self.spent)

    def decide(self, seen: Mapping[str, str], stream: tuple[int, ...]) -> dict[str, Any]:
        """The ``action`` on a page that a session shows ("" where no proposal reads), and how it came to that. As in
        the paper, ``stop`` among the candidates ends the task; one that is alone is not looked ahead from. Raises
        Halted where the budget is spent or a server is lost, InputError for one that refuses from the first."""
        state: PageState = read_question({"state": seen, "action": ""}).state
        replies = [text for text, _ in self._ask("policy", _prompt("policy", state), self.config.proposals)]
        read = self._read("policy", [read_action(reply, state) for reply in replies])
        best = dict(Counter(read).most_common(self.config.branches))
        tried: list[dict[str, Any]] = [{"action": action, "proposals": count} for action, count in best.items()]
        chosen = next((action for action in best if action.startswith("stop")), "") or next(iter(best), "")
        if len(best) > 1 and self.config.imagine and not chosen.startswith("stop"):
            pairs, streams = [(state, action) for action in best], [(*stream, i) for i in range(len(best))]
            imagined = self.imagine(pairs, streams) if self.imagine else [None] * len(best)
            with ThreadPoolExecutor(len(best)) as pool:  # one by one until it is known how scores come
                each = pool.map if self.score in ("sampled", "known") else map
                judged = each(partial(self._judged, state), best, imagined)
                tried = [one | more for one, more in zip(tried, judged, strict=True)]
            chosen = max(tried, key=lambda one: float(one["value"]))["action"]
        return {"action": chosen, "candidates": tried, "replies": replies}

    def _judged(self, state: PageState, action: str, imagined: Outcome | None) -> dict[str, Any]:
        """What comes of the action, as told by each role, and its value: the mean of the scores that read, else 0."""
        change: Change | Malformed = Malformed("no reply")
        if imagined:
            lost = imagined.info.get("malformed")
            change = Malformed(lost) if lost else page_change(state.page, imagined.state.page)
        elif answers := self._ask("world", build_prompt(state, action, "published")):
            change = read_change(answers[0][0])
        told = [write_change(one) for one in self._read("world", [change])]
        for role in ("summary", "description") if told else ():
            said = self._ask("summary", _prompt(role, state, action, told[-1]))
            told += [after_thinking(text).strip() or told[-1] for text, _ in said]
        scores = self._scores(state, action, told[-1] if told else ASKED["unknown"])
        return {"told": told, "scores": scores, "value": sum(scores) / max(1, len(scores))}

    def _scores(self, *about: Any) -> list[float]:
        """Those that the judge samples, or the one that the probabilities of its tokens make expect. Raises InputError
        where its server is to tell them and, asked for the first time, does not."""
        own, fault, replies = self.config.value, "its reply has none", list[Reply]()
        if self.score != "sampled":
            request = {"max_tokens": own.tokens or 16, "logprobs": True, "top_logprobs": 20}
            try:
                replies = self._ask("value", _prompt("expected", *about), **request)
            except InputError as error:
                fault = str(error)
            if self.score == "known" or any(tokens for _, tokens in replies):
                self.score = "known"
                return self._read("value", [expected_score(tokens) for _, tokens in replies])
            if self.score == "expected":
                raise InputError(f"value.score=expected: the server tells no logprobs: {fault}; take either or sampled")
            self.score = "sampled"
            self.broken.append("value: no logprobs, so that scores are sampled from here on")
        replies = self._ask("value", _prompt("value", *about), self.config.votes, max_tokens=own.tokens or 1024)
        return self._read("value", [read_score(text) for text, _ in replies])

    def _ask(self, role: str, prompt: str, n: int = 1, **more: Any) -> list[Reply]:
        """``n`` replies, or as many as came: a server that has answered before may refuse, such as a long page."""
        (own, chat), replies = self.roles[role], list[Reply]()
        request = {"temperature": own.temperature, "top_p": own.top_p, "max_tokens": own.tokens, **more}
        while len(replies) < n:
            for name, spent in (("requests", next(self.begun)), ("tokens", sum(self.spent))):
                if 0 < self.most[name] <= spent:
                    raise Halted(f"the budget of {self.most[name]} {name} is spent; give another one to go on")
            try:
                replies += chat.ask(prompt, **request, **({"n": n - len(replies)} if own.together and n > 1 else {}))
            except InputError as error:
                if not chat.answered:
                    raise
                self.broken.append(str(error))
                break
        return replies[:n]

    def _read(self, role: str, read: Sequence[Any]) -> list[Any]:
        self.broken += [f"{role}: {one.reason}" for one in read if isinstance(one, Malformed)]
        return [one for one in read if not isinstance(one, Malformed)]


def _prompt(asked: str, state: PageState, action: str = "", effect: str = "") -> str:
    said = f"{ASKED[asked]}\n\nOBJECTIVE: {state.goal}\nURL: {state.url}\nPREVIOUS ACTION: {state.previous or 'None'}\n"
    done = f"\nACTION: {told_action(state.page, action)}\nEXPECTED EFFECT:\n{effect}\n" if action else ""
    return f"{said}PAGE:\n{state.text}\n{done}"


def read_action(reply: str, state: PageState) -> str | Malformed:
    """The last action between backticks. Never raises."""
    said = after_thinking(reply)
    found = re.findall(r"```(.+?)```", said, re.DOTALL) or re.findall(r"`([^`]+)`", said) or [""]
    action = found[-1].strip().partition(" where [")[0]
    try:
        error = refused(state, read_text(action))
    except InputError:  # what no session takes
        return Malformed("too long, or no text")
    if error:
        return Malformed("not on the page" if error.startswith("no element") else "no action")
    return str(parse_action(action))


def read_score(reply: str) -> float | Malformed:
    """The score from 1 to 5 that the reply states at last."""
    found = re.findall(r"\[?Score\]?:\s*\[?(\d+)", after_thinking(reply))
    return float(found[-1]) if found and found[-1] in DIGITS else Malformed("no score from 1 to 5")


def expected_score(tokens: Sequence[Mapping[str, float]]) -> float | Malformed:
    """The mean of 1 to 5 by the probabilities that are told of them where the reply states a score at last."""
    said, at = "", dict[str, float]()
    for token in tokens:
        own = next(iter(token))
        if own.strip() in DIGITS and STATED.fullmatch(said.rpartition("</think>")[2]):
            at = dict(token)
        said += own
    told = [(int(text), math.exp(min(logp, 0.0))) for text, logp in at.items() if text.strip() in DIGITS]
    total = sum(chance for _, chance in told)
    return sum(digit * chance for digit, chance in told) / total if total > 0 else Malformed("no score from 1 to 5")


def pages(config: AgentConfig) -> Any:
    """The real pages as a world: those of ``RealPages``, or of a user's own function of ``config.env``."""
    if config.pages:
        if not callable(own := named_in(config.pages)):
            raise InputError(f"pages={config.pages}: expected FILE.py:FUNCTION, got no function of this name; write it")
        return own(config.env)
    from rlvr_world.domains.web_page.envs.played import RealPages

    return RealPages(config.env)
