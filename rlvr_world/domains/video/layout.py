"""How frames, actions and proprioception stand in a sequence of tokens, for single-step and multi-step prediction.

Ids (RLVR-World): visual tokens, then the context frame's (multi-step), then action bins, BOS, EOS. Published sizes give
4633 ids and sequences of 1654 (single-step), 9008 ids and 2024 (multi-step). Proprioception shares the actions' ids and
follows its frame, on both sides (or comes before it): what is known of a step, then what is done there.
Shape legend: S given frames, F = S + horizon frames and rows of actions, n tokens a frame, A action width, P
proprioception width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, get_type_hints

import torch
from torch import Tensor

from rlvr_world.domains.video.actions import ActionBins
from rlvr_world.errors import InputError
from rlvr_world.types import Given, Malformed, Script, Write, Written

Rows = Sequence[Sequence[int]]
Frames = tuple[tuple[int, ...], ...]
"""One tuple of numbers a frame: its tokens, or its proprioception in bins."""


def frames_of(numbers: Any) -> Frames:
    """Of an array or tensor with a row a frame."""
    return tuple(map(tuple, numbers.tolist()))


@dataclass(frozen=True)
class VideoLayout:
    """The sequence of one kind of model; every size is free.

    >>> VideoLayout("single_step", visual=4375, tokens=320, action_width=13, context=4).max_length
    1654
    """

    kind: Literal["single_step", "multi_step"]
    visual: int
    """Codebook of the frames that are predicted."""
    tokens: int
    """Tokens of one such frame."""
    action_width: int
    context_visual: int = 0
    """Multi-step: codebook of the far context frame; 0 without one."""
    context_tokens: int = 0
    """Multi-step: tokens of the far context frame; 0 without one."""
    context: int = 1
    """Frames that are given, each with its action; after a far context frame only 1."""
    horizon: int = 1
    """Frames that are written. Single-step writes several without their actions (as the published code could)."""
    action_bins: int = 256
    proprio_width: int = 0
    """Fields of proprioception; 0 for none."""
    proprio_first: bool = False
    """Proprioception comes before its frame, which can then be drawn after what is felt."""
    same: bool = False
    """Of one frame ahead, a token that stays at its place is written as one id more, after the codes."""

    def __post_init__(self) -> None:
        if self.kind not in ("single_step", "multi_step"):
            raise InputError(f"layout: kind: expected single_step or multi_step, got {self.kind!r}")
        far = self.kind == "multi_step" and self.context_tokens > 0
        least = {"visual": 1, "tokens": 1, "action_width": 1, "horizon": 1, "action_bins": 2, "proprio_width": 0}
        least |= {"context": 1, "context_visual": int(far), "context_tokens": int(far)}
        fixed = {"context"} if far else {"context_visual", "context_tokens"}
        for name, lowest in least.items():
            if (got := getattr(self, name)) < lowest or (name in fixed and got != lowest):
                only = "only" if name in fixed else "at least"
                raise InputError(f"layout of a {self.kind} model: {name}: expected {only} {lowest}, got {got}")

    @property
    def context_offset(self) -> int:
        return self.visual + self.same

    @property
    def action_offset(self) -> int:
        return self.context_offset + self.context_visual

    @property
    def bos(self) -> int:
        return self.action_offset + self.action_bins

    @property
    def eos(self) -> int:
        return self.bos + 1

    @property
    def vocabulary(self) -> int:
        return self.eos + 1

    @property
    def frames(self) -> int:
        """Frames of a sequence, given and written, and rows of actions that come with it."""
        return self.context + self.horizon

    @property
    def max_length(self) -> int:
        """Tokens of the whole sequence."""
        state = self.tokens + self.proprio_width
        if self.kind == "multi_step":
            return self.context_tokens + self.frames * (state + self.action_width)
        return self.context * (state + self.action_width) + self.horizon * (1 + state) + 1

    @property
    def prompt_length(self) -> int:
        """Given tokens before the first that is written."""
        step = self.tokens + self.proprio_width + self.action_width
        return self.context_tokens + self.context * step + (self.kind == "single_step")

    def script(
        self, tokens_Fn: Tensor, actions_FA: Tensor, context_c: Tensor | None = None, proprio_FP: Tensor | None = None
    ) -> Script:
        """The sequence as a script; with only the first S rows of frames and proprioception, one without targets.

        ``context_c`` are the context frame's tokens, without offset. Single-step:

            Given([z p b] * S, BOS)  Write(z)  Write(p)  (Given(BOS)  Write(z)  Write(p)) ...  Given(EOS)

        Multi-step, where the last row of actions leads nowhere and only keeps the published length:

            Given(context, [z p b] * S)  Write(z)  Write(p)  Given(b)  Write(z)  Write(p)  Given(b) ...

        BOS and EOS are given: with only visual tokens legal before, a model has nothing to say there.
        Raises InputError for a wrong number of rows or tokens, or a token that is not of its codebook.
        """
        given, multi = len(tokens_Fn) == self.context, self.kind == "multi_step"
        rows = self.context if given else self.frames
        context_c = torch.empty(0, dtype=torch.int64) if context_c is None else context_c
        proprio_FP = torch.empty(rows, 0, dtype=torch.int64) if proprio_FP is None else proprio_FP
        _check("frame tokens", tokens_Fn, (rows, self.tokens), self.visual)
        _check("context tokens", context_c, (self.context_tokens,), self.context_visual)
        _check("bins of actions", actions_FA, (self.frames, self.action_width), self.action_bins)
        _check("bins of proprioception", proprio_FP, (rows, self.proprio_width), self.action_bins)
        z: list[list[int]] = tokens_Fn.tolist()
        b: list[list[int]] = (actions_FA + self.action_offset).tolist()
        p: list[list[int]] = (proprio_FP + self.action_offset).tolist()
        segments: list[Given | Write] = [self._prompt(context_c.tolist(), z[: self.context], p, b)]
        for t in range(self.context, self.frames):
            pairs = [] if given else zip(z[t], z[t - 1], strict=True)
            new = tuple(self.visual if self.same and now == then else now for now, then in pairs)
            segments += self._state() if given else self._state(new, tuple(p[t]))
            last = t == self.frames - 1
            segments.append(Given(tuple(b[t]) if multi else (self.eos if last else self.bos,)))
        return Script(tuple(segments))

    def next_frame(self, frames: Frames, bins: Frames, felt: Frames = (), context: Sequence[int] = ()) -> Script:
        """One more frame after any number of given ones, each with what was felt and is done there: what a session
        asks step by step. Multi-step, frames that were written before stand where they were written."""
        p = [[i + self.action_offset for i in row] for row in felt] or [[]] * len(frames)
        b = [[i + self.action_offset for i in row] for row in bins]
        guess = (self.visual,) * self.tokens if self.same else tuple(frames[-1])
        return Script((self._prompt(context, frames, p, b), *self._state(guess=guess)))

    def _prompt(self, context: Sequence[int], frames: Rows, felt: Rows, bins: Rows) -> Given:
        steps = (step for z, p, b in zip(frames, felt, bins, strict=False) for step in (*self._ordered(z, p), b))
        far = [token + self.context_offset for token in context]
        return Given((*far, *chain(*steps), *(() if self.kind == "multi_step" else (self.bos,))))

    def _state(
        self, z: tuple[int, ...] | None = None, p: tuple[int, ...] | None = None, guess: tuple[int, ...] = ()
    ) -> list[Write]:
        frame = Write(self.tokens, allowed=range(self.context_offset), target=z, guess=guess)
        felt = Write(self.proprio_width, allowed=range(self.action_offset, self.bos), target=p)
        return [write for write in self._ordered(frame, felt) if write.max_tokens]

    def _ordered(self, frame: Any, felt: Any) -> tuple[Any, Any]:
        return (felt, frame) if self.proprio_first else (frame, felt)

    def read(self, written: Written, before: Sequence[int] = ()) -> tuple[Frames, Frames] | Malformed:
        """Tokens of each written frame (after ``before``, of which ``same`` asks), and its proprioception in bins.
        Legal-token masks make ``Malformed`` impossible for rollouts of ``script``; other samplers may lack masks."""
        frame = ("frame", self.tokens, 0, self.context_offset)
        felt = ("proprioception", self.proprio_width, self.action_offset, self.bos)
        kinds = [kind for kind in self._ordered(frame, felt) if kind[1]]
        if len(written) != self.horizon * len(kinds):
            return Malformed(f"expected {self.horizon * len(kinds)} written segments, got {len(written)}")
        found: dict[str, list[tuple[int, ...]]] = {"frame": [], "proprioception": []}
        for i, ids in enumerate(written):
            name, count, low, high = kinds[i % len(kinds)]
            if len(ids) != count or not all(low <= token < high for token in ids):
                return Malformed(f"{name} {i // len(kinds)}: expected {count} tokens from {low} to {high - 1}")
            found[name].append(tuple(token - low for token in ids))
        frames = tuple(tuple(before[i] if z[i] == self.visual else z[i] for i in range(len(z))) for z in found["frame"])
        return frames, tuple(found["proprioception"])


def _check(what: str, ids: Tensor, shape: tuple[int, ...], size: int) -> None:
    if tuple(ids.shape) != shape:
        raise InputError(f"{what}: the layout expects {list(shape)}, got {list(ids.shape)}; check data and tokenizer")
    if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < size:
        got = f"{int(ids.min())} to {int(ids.max())}; use the model's tokenizer and ranges"
        raise InputError(f"{what}: the layout expects ids below {size}, got {got}")


@dataclass(frozen=True)
class Codec:
    """All that turns pixels and numbers into a model's tokens: stored in its ``config.json`` under ``codec``."""

    layout: VideoLayout
    actions: ActionBins
    tokenizer: str
    """Fingerprint of the visual tokenizer."""
    size: tuple[int, int]
    """Height and width that frames are brought to, in pixels."""
    proprio: ActionBins | None = None

    def __post_init__(self) -> None:
        layout = self.layout
        fields = {"actions": (self.actions, layout.action_width), "proprio": (self.proprio, layout.proprio_width)}
        for name, (bins, width) in fields.items():
            got, wanted = (bins.width, bins.bins) if bins else (0, layout.action_bins), (width, layout.action_bins)
            if got != wanted:
                wants, has = (f"{count} fields in {each} bins" for count, each in (wanted, got))
                raise InputError(f"codec: {name}: the layout expects {wants}, got ranges of {has}; fit the ranges anew")

    def check_visual_tokenizer(self, codebook: int, context_codebook: int, fingerprint: str) -> None:
        """Refuse one that the model was not trained with: the same tokens mean other pictures in another."""
        got, wanted = (codebook, context_codebook), (self.layout.visual, self.layout.context_visual)
        if got != wanted:
            has = f"its codebooks have {codebook} (frames) and {context_codebook} (context) codes"
            wants = f"the model's vocabulary has {wanted[0]} and {wanted[1]}"
            raise InputError(f"tokenizer: {has}, {wants}; use the one that the model was trained with")
        if fingerprint != self.tokenizer:
            has = f"it has the fingerprint {fingerprint}"
            raise InputError(f"tokenizer: {has}, the model was trained with {self.tokenizer}; use that one")

    def check_model(self, vocabulary: int) -> None:
        """Refuse a model with fewer token ids than the layout: InputError with both numbers."""
        if vocabulary < (needed := self.layout.vocabulary):
            got = f"its vocabulary has {vocabulary} ids, codebooks and action bins need {needed}"
            raise InputError(f"model: {got}; use the tokenizer and the bins that it was trained with")

    @classmethod
    def from_json(cls, data: Any, where: str) -> Codec:
        """Raises InputError naming ``where`` for anything but the fields as JSON has them."""
        try:
            written = {"proprio_first": False, "same": False, **data["layout"]}  # models of before there was the choice
            known = {name: written[name] for name in get_type_hints(VideoLayout)}
            height, width = data["size"]
            proprio = data["proprio"] and ActionBins.from_json(data["proprio"], f"{where}: proprio")
            actions = ActionBins.from_json(data["actions"], f"{where}: actions")
            return cls(VideoLayout(**known), actions, str(data["tokenizer"]), (int(height), int(width)), proprio)
        except InputError:
            raise
        except (KeyError, OverflowError, TypeError, ValueError) as error:
            raise InputError(f"{where}: expected a codec of a video model, it lacks or misnames {error}") from error
