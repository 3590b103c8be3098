"""The nouns of the project: everything else knows these and knows nothing of text or video.

    rows -> Transition -> encode -> Script -> sample -> Rollout -> decode -> prediction -> score -> Score

A transition becomes a *script*, an ordered list of segments, each either given to the model or
written by it. What is sampled, what is forced, which positions carry loss, which tokens are legal
and how long a rollout can be all follow from the script.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import dropwhile
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch  # shapes alone need it: whoever lists recipes does not wait for it


@dataclass(frozen=True)
class Transition:
    """One observed step of a world: what was, what was done, what came of it.

    >>> Transition("test.jsonl:7", state={"door": "shut"}, action="open door",
    ...            next_state={"door": "open"}, kind="changed", world="house")
    """

    id: str
    """Names the row in errors, samples and reports."""
    state: Any
    action: Any
    next_state: Any
    """None where it is what is asked for."""
    kind: str = ""
    """The slices that evaluation reports apart: ``changed``, or several with commas, ``changed, held-out tasks``."""
    world: str = ""
    """Where the row comes from (game, site, episode): the unit that splits hold out."""
    reasoning: str = ""
    """A given chain of thought that leads to the answer, for SFT on reasoning; empty for none."""
    prompt: str = ""
    """The question as the row itself words it, for models that were trained on just that; empty where it does not."""


def verb_of(action: str) -> str:
    """The first word of an action; empty for one that begins otherwise, such as numbers.

    >>> verb_of("take key (ID: 4)"), verb_of("click('12')"), verb_of("[[0.1, 0.2]]")
    ('take', 'click', '')
    """
    word = re.match(r"[^\W\d]+", action)
    return word[0] if word else ""


@dataclass(frozen=True)
class Given:
    """Tokens that the model reads: a prompt, a context frame, an action forced in between.

    >>> Given((5, 17, 9))
    """

    ids: tuple[int, ...]


@dataclass(frozen=True)
class Write:
    """Tokens that the model writes: free text until a stop token, or exactly ``max_tokens`` visual tokens.

    >>> Write(512, stop=(2,))                       # text: until end-of-sequence, at most 512 tokens
    >>> Write(320, allowed=range(4375, 8750))       # a frame: 320 tokens of the visual vocabulary
    """

    max_tokens: int
    stop: tuple[int, ...] = ()
    """Ids that end the segment; the id itself is written, trained on, and removed before decoding."""
    allowed: range | None = None
    """Legal token ids; None means the whole vocabulary."""
    target: tuple[int, ...] | None = None
    """What likelihood training has the model write here, stop token included; None when unknown."""
    guess: tuple[int, ...] = field(default=(), compare=False)
    """Tokens that may well come, as of the frame before: drawing is faster where they do, and draws the same."""


@dataclass(frozen=True)
class Script:
    """A transition written as tokens: the segments in order, the first one given.

    >>> Script((Given((5, 17, 9)), Write(512, stop=(2,), target=(31, 8, 2))))
    """

    segments: tuple[Given | Write, ...]

    def __post_init__(self) -> None:
        if not self.segments or not isinstance(self.segments[0], Given) or not self.segments[0].ids:
            raise ValueError("a script starts with a Given segment of at least one token")

    @cached_property
    def prompt(self) -> tuple[int, ...]:
        """The leading given tokens: what all rollouts of this script share."""
        leading = self.segments[: len(self.segments) - len(self.tail)]
        return tuple(token for segment in leading if isinstance(segment, Given) for token in segment.ids)

    @cached_property
    def tail(self) -> tuple[Given | Write, ...]:
        """The segments after the prompt."""
        return tuple(dropwhile(lambda segment: isinstance(segment, Given), self.segments))

    @property
    def max_response(self) -> int:
        """The most tokens a rollout can have after the prompt."""
        return sum(len(s.ids) if isinstance(s, Given) else s.max_tokens for s in self.tail)

    @property
    def fits(self) -> bool:
        """Whether every target can be written: none has more tokens than its segment allows."""
        return all(len(s.target or ()) <= s.max_tokens for s in self.tail if isinstance(s, Write))

    def target_ids(self) -> tuple[tuple[int, ...], tuple[bool, ...]]:
        """The response that likelihood training fits, and for each of its tokens whether it carries loss."""
        ids: list[int] = []
        written: list[bool] = []
        for segment in self.tail:
            tokens = segment.ids if isinstance(segment, Given) else segment.target
            if tokens is None:
                raise ValueError("this script has a Write segment without a target")
            ids += tokens
            written += [isinstance(segment, Write)] * len(tokens)
        return tuple(ids), tuple(written)


@dataclass(frozen=True)
class Rollout:
    """One sampled response to a script. Shapes: T = tokens after the prompt, with no padding.

    >>> rollout.ids, rollout.sampled                # forced tokens stand in place, marked False
    (tensor([31, 8, 40, 7, 2]), tensor([True, True, False, True, True]))
    """

    script: Script
    ids: torch.Tensor
    """int64 [T]."""
    sampled: torch.Tensor
    """bool [T]: True where the policy drew the token, False where the script forced it."""
    logps: torch.Tensor
    """float32 [T]: log-probability of each sampled token under the policy that drew it; 0 where forced."""
    written: tuple[tuple[int, ...], ...]
    """The tokens of each Write segment, without its stop token: what ``decode`` reads."""
    finished: bool
    """False when a Write segment with stop tokens reached ``max_tokens`` without one."""
    stream: tuple[int, ...] = ()
    """The key of this rollout's random stream, (seed, step, prompt, sample): with the policy it gives the same draw."""
    policy_version: int = 0
    """Training steps that the policy had been through when it drew this."""


@dataclass(frozen=True)
class Malformed:
    """What ``decode`` returns when tokens do not read as a prediction: a value with a reason, not an exception.

    >>> Malformed("no JSON object in the answer")
    """

    reason: str


@dataclass(frozen=True)
class Score:
    """How right a prediction is: the reward, its named parts, and the reason where it is malformed.

    >>> Score(0.27, parts={"exact": 0.0, "objects": 0.75})
    """

    value: float
    parts: Mapping[str, float] = field(default_factory=dict)
    """Named measures in [0, 1] or in stated units; evaluation reports the mean of each."""
    malformed: str = ""


@dataclass(frozen=True)
class Finding:
    """What a look at a model before RL found; see ``rlvr-world doctor``.

    >>> Finding("malformed", "71%", "the start does not know the format: more sft.steps")
    """

    name: str
    text: str
    advice: str = ""
    """What to change; empty where all is well."""


@dataclass(frozen=True)
class Picture:
    """An encoded picture, for what a text cannot show.

    >>> Picture(png_bytes, "image/png")
    """

    data: bytes
    media: str = "image/png"
    columns: tuple[str, ...] = ()
    """What stands in it from left to right, in columns of equal width."""

    @property
    def uri(self) -> str:
        """The picture as a ``data:`` address, for a page that loads nothing."""
        return f"data:{self.media};base64,{base64.b64encode(self.data).decode()}"


Rows = Sequence[Transition]
Written = Sequence[Sequence[int]]
"""The tokens of each Write segment of one rollout (``Rollout.written``)."""
Groups = Sequence[Sequence[Written]]
"""Those of each rollout of each group."""
Judged = Sequence[Sequence[tuple[Any, Score]]]
"""Of each rollout of each group what it decodes to, and its score."""


class Domain(Protocol):
    """A world, to everything that samples, trains and evaluates. Bring your own by writing these."""

    @property
    def lower_is_better(self) -> Collection[str]:
        """The score parts that are errors or distances; empty where more is better throughout."""

    def encode(self, transition: Transition) -> Script:
        """How a transition is written as tokens; one without a next state gives a script without targets."""

    def decode(self, written: Written, transition: Transition) -> Any:
        """How the tokens of the Write segments are read back: a prediction, or ``Malformed``."""

    def score(self, prediction: Any, transition: Transition) -> Score:
        """How a prediction (or ``Malformed``) compares with what really happened."""

    def advance(self, state: Any, action: Any, prediction: Any) -> Any:
        """The state after a prediction, from which a next step starts; ``Malformed`` where the prediction is none.

        Its truth: with the true prediction of a row it is that row's next state.
        """

    def baselines(self, transition: Transition) -> Mapping[str, Any]:
        """Trivial predictions by name (no change, copy the last frame), reported beside every result."""

    def explain(self, prediction: Any, transition: Transition) -> str | Picture:
        """The prediction beside what really happened: a picture, or a text diff (lines begin with +, - or a space)."""


@runtime_checkable
class GroupDomain(Domain, Protocol):
    """A domain that scores a group at once: what a prediction is worth depends on the others, or many share work."""

    def score_groups(self, predictions: Sequence[Sequence[Any]], transitions: Rows) -> list[list[Score]]:
        """``score`` for every prediction of every group; one transition a group."""


@runtime_checkable
class BatchDomain(GroupDomain, Protocol):
    """One that also decodes many groups at once, where one at a time would waste work (pictures)."""

    def decode_groups(self, groups: Groups, transitions: Rows) -> list[list[Any]]:
        """``decode`` for every rollout of every group; one transition a group."""


@dataclass(frozen=True)
class Outcome:
    """What comes of one action in one state of a world.

    >>> Outcome(state, reward=1.0, terminated=True)
    >>> Outcome(state, info={"action_error": "expected a command of this game"})   # the state stays
    """

    state: Any
    """A value: nobody changes it, and whoever has it can go on from it."""
    reward: float = 0.0
    terminated: bool = False
    info: Mapping[str, Any] = field(default_factory=dict)
    """``action_error``: the action is none here, the state stays. ``malformed``: the model's answer does not read, the
    state stays and there is no going on."""


Asked = Sequence[tuple[Any, Any]]
"""Pairs of a state and an action."""
Streams = Sequence[tuple[int, ...]]
"""What names the draws of each pair: (seed, step, plan, sample)."""


class Setting(Protocol):
    """What worlds and scenes share: where a session can be, and what is seen and done there."""

    @property
    def action_space(self) -> Any: ...  # of gymnasium.spaces, as is the other

    @property
    def observation_space(self) -> Any: ...

    @property
    def render_mode(self) -> str:
        """What ``render`` gives: ``ansi`` (text) or ``rgb_array`` (uint8 [H, W, 3])."""

    def start(self, seed: int, options: Mapping[str, Any]) -> tuple[Any, Mapping[str, Any]]:
        """A first state and what else is to say of it. ``options["state"]``, a state or (where a model imagines) an
        observation, is where to start; others say what to choose, and where the world names them all in ``options``,
        no other name gets here. Raises InputError for what is none."""

    def read_action(self, given: Any) -> Any:
        """An action out of what a user or a file gives. Raises InputError for another kind than the action space has;
        whether it can be done is for ``advance`` to say."""

    def observe(self, state: Any) -> Any:
        """What of a state is seen: an element of the observation space."""

    def render(self, state: Any) -> Any:
        """The state for a person, as ``render_mode`` says."""


class World(Setting, Protocol):
    """How states move: a real environment, or one that a model imagines. It holds no session; see ``sessions``."""

    def advance(self, asked: Asked, streams: Streams) -> list[Outcome]:
        """What comes of each action in its state, whatever it is asked together with."""

    def close(self) -> None:
        """Give back what the world holds, such as a browser."""


class Scene(Setting, Protocol):
    """How the states of a domain are imagined: a world but for the model that writes what comes next."""

    def script(self, state: Any, action: Any) -> Script | Outcome:
        """What the model is asked; an outcome where it need not be, such as for an action that is none."""

    def follow(self, asked: Asked, written: Sequence[Written]) -> list[Outcome]:
        """What comes of what the model wrote for the script of each pair."""
