"""Groups of responses packed into one row: each prompt once, no padding, no token wasted on what predicts nothing.

Shape legend: N packed tokens, T tokens that carry loss, R tokens of one response.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rlvr_world.models.attention import Tree, TreeLayout
from rlvr_world.types import Given, Rollout, Script, Write


@dataclass(frozen=True)
class Branch:
    """One response to learn from."""

    ids: Tensor
    """int64 [R]."""
    trained: Tensor
    """bool [R]: which tokens carry loss."""
    weight: float
    """Weight of each trained token; the loss of a batch is the plain sum of weight times token loss."""
    advantage: float = 0.0
    old_logps: Tensor | None = None
    """float32 [R]: log-probs when sampled."""
    legal: Tensor | None = None
    """int64 [R, 2]: legal ids of each token as (start, stop); None where all are legal."""


ALL = (0, 2**31)
"""The legal range of a token that nothing restricts; who knows the vocabulary cuts it down."""


@dataclass(frozen=True)
class Group:
    """A prompt and the responses to it."""

    prompt: tuple[int, ...]
    branches: tuple[Branch, ...]

    @property
    def tokens(self) -> int:
        """Tokens that a forward reads: the last token of a response predicts nothing and is left out."""
        return len(self.prompt) + sum(len(b.ids) - 1 for b in self.branches)


@dataclass(frozen=True)
class Packed:
    """One forward's worth of groups."""

    ids_1N: Tensor
    positions_1N: Tensor
    layout: TreeLayout
    source_T: Tensor
    """Which of the hidden states that the layout asks for predicts each trained token."""
    target_T: Tensor
    weight_T: Tensor
    advantage_T: Tensor
    old_logp_T: Tensor
    branch_T: Tensor
    """int64 [T]: which branch a trained token belongs to, counted from 0; a branch is whole in its forward."""
    legal_T2: Tensor | None

    def to(self, device: torch.device) -> Packed:
        moved: dict[str, Any] = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **moved)


def example(script: Script) -> Group:
    """A script and its target as a group of one, for likelihood training (weight to be set over the batch)."""
    ids, trained = script.target_ids()
    lengths = [len(s.target or ()) for s in script.tail if isinstance(s, Write)]
    branch = Branch(torch.tensor(ids), torch.tensor(trained), 1.0, legal=legal_ranges(script, lengths))
    return Group(script.prompt, (branch,))


def legal_ranges(script: Script, lengths: Sequence[int]) -> Tensor | None:
    """The legal ids of every response token, int64 [R, 2], given how many tokens each Write segment came to
    (its stop token included); None where no segment restricts them."""
    if all(isinstance(s, Given) or s.allowed is None for s in script.tail):
        return None
    ranges: list[tuple[int, int]] = []
    left = iter(lengths)
    for segment in script.tail:
        if isinstance(segment, Given):
            ranges += [ALL] * len(segment.ids)
        else:
            legal = ALL if segment.allowed is None else (segment.allowed.start, segment.allowed.stop)
            ranges += [legal] * next(left)
    return torch.tensor(ranges)


def response_lengths(rollout: Rollout) -> list[int]:
    """Tokens that each Write segment of a rollout came to, its stop token included."""
    segments = [s for s in rollout.script.tail if isinstance(s, Write)]
    return [len(w) + (len(w) < s.max_tokens) for s, w in zip(segments, rollout.written, strict=True)]


def nothing(group: Group) -> Group:
    """A forward with nothing to learn, of which even the gradients are zero: a token of a group."""
    return Group(group.prompt[:1], (Branch(torch.tensor(group.prompt[:1]), torch.tensor([False]), 0.0),))


def pack(groups: Sequence[Group]) -> Packed:
    """Lay groups end to end. A group of one needs no branching: its response continues its prompt."""
    ids, positions, sources, trees, asked = [], [], [], [], []
    start = skipped = 0
    for group in groups:
        P = len(group.prompt)
        ids.append(torch.tensor(group.prompt))
        positions.append(torch.arange(P))
        at = start + P
        for branch in group.branches:
            read = len(branch.ids) - 1
            ids.append(branch.ids[:-1])
            positions.append(torch.arange(P, P + read))
            source = torch.arange(at - 1, at + read)
            source[0] = start + P - 1
            sources.append(source[branch.trained])
            at += read
        lengths = tuple(len(b.ids) - 1 for b in group.branches if len(b.ids) > 1)
        trees.append(Tree(P + sum(lengths), ()) if len(group.branches) == 1 else Tree(P, lengths))
        own = torch.cat(sources[-len(group.branches) :])
        first = int(own.min()) if len(own) else at - 1  # what comes before is read, and predicts nothing to learn from
        asked.append(at - first)
        skipped += first - start
        sources[-len(group.branches) :] = [own - skipped]
        start = at
    branches = [b for g in groups for b in g.branches]
    trained = torch.cat([b.trained for b in branches])
    counts = torch.stack([b.trained.sum() for b in branches])
    old = torch.cat([_or(b.old_logps, torch.zeros(len(b.ids))) for b in branches])
    legal = None
    if any(b.legal is not None for b in branches):
        legal = torch.cat([_or(b.legal, torch.tensor(ALL).expand(len(b.ids), 2)) for b in branches])[trained]
    return Packed(
        ids_1N=torch.cat(ids)[None],
        positions_1N=torch.cat(positions)[None],
        layout=TreeLayout(tuple(trees), tuple(asked)),
        source_T=torch.cat(sources),
        target_T=torch.cat([b.ids for b in branches])[trained],
        weight_T=torch.tensor([b.weight for b in branches]).repeat_interleave(counts),
        advantage_T=torch.tensor([b.advantage for b in branches]).repeat_interleave(counts),
        branch_T=torch.arange(len(branches)).repeat_interleave(counts),
        old_logp_T=old[trained],
        legal_T2=legal,
    )


def _or(value: Tensor | None, default: Tensor) -> Tensor:
    return default if value is None else value


def micro_batches(groups: Sequence[Group], forward_tokens: int) -> list[list[Group]]:
    """Groups of like length, at most ``forward_tokens`` tokens together (a larger group stands alone)."""
    batches: list[list[Group]] = []
    used = 0
    for group in sorted(groups, key=lambda g: g.tokens):
        if not batches or used + group.tokens > forward_tokens:
            batches, used = [*batches, []], 0
        batches[-1].append(group)
        used += group.tokens
    return batches
