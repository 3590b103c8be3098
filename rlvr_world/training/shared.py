"""Rollouts and scores of a step that ranks make in shares; a group stays whole on one. Every rank knows all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from rlvr_world.scoring import judge
from rlvr_world.system import ranks
from rlvr_world.types import Domain, Rollout, Score, Script, Transition

Streams = Sequence[tuple[int, ...]]
Draw = Callable[[Sequence[Script], Streams], list[list[Rollout]]]


def sampled(draw: Draw, scripts: Sequence[Script], streams: Streams, policy_version: int) -> list[list[Rollout]]:
    """What ``draw`` gives for scripts and the keys of their streams, each rank for its share of them."""
    own = draw(ranks.mine(scripts), ranks.mine(streams))
    if ranks.size() == 1:
        return own
    told = ranks.gathered([[_plain(rollout) for rollout in group] for group in own], len(scripts))
    return [
        [_rollout(script, (*stream, k), policy_version, *plain) for k, plain in enumerate(group)]
        for script, stream, group in zip(scripts, streams, told, strict=True)
    ]


def _plain(rollout: Rollout) -> list[Any]:
    tensors = (rollout.ids, rollout.sampled, rollout.logps)
    return [*(tensor.tolist() for tensor in tensors), rollout.written, rollout.finished]


def _rollout(script: Script, stream: tuple[int, ...], policy_version: int, *plain: Any) -> Rollout:
    ids, sampled_, logps, written, finished = plain
    return Rollout(
        script=script,
        ids=torch.tensor(ids, dtype=torch.int64),
        sampled=torch.tensor(sampled_, dtype=torch.bool),
        logps=torch.tensor(logps, dtype=torch.float32),
        written=tuple(map(tuple, written)),
        finished=finished,
        stream=stream,
        policy_version=policy_version,
    )


def scored(domain: Domain, groups: Sequence[Sequence[Rollout]], transitions: Sequence[Transition]) -> list[list[Score]]:
    """The score of every rollout of every group, each rank for its share of the groups."""
    written = [[rollout.written for rollout in group] for group in ranks.mine(groups)]
    own = [[score for _, score in judged] for judged in judge(domain, written, ranks.mine(transitions))]
    if ranks.size() == 1:
        return own
    plain: list[list[Any]] = [[[score.value, dict(score.parts), score.malformed] for score in group] for group in own]
    return [[Score(*one) for one in group] for group in ranks.gathered(plain, len(groups))]
