"""Rollouts and scores of a step that ranks make in shares; a group stays whole on one. Every rank knows all of them."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from rlvr_world.scoring import judge
from rlvr_world.system import ranks
from rlvr_world.types import Domain, Rollout, Score, Script, Streams, Transition

Draw = Callable[[Sequence[Script], Streams], list[list[Rollout]]]


def sampled(draw: Draw, scripts: Sequence[Script], streams: Streams) -> list[list[Rollout]]:
    """What ``draw`` gives for scripts and the keys of their streams, each rank for its share of them."""
    own = draw(ranks.mine(scripts), ranks.mine(streams))
    if ranks.size() == 1:
        return own
    told = ranks.gathered([[to_json(rollout) for rollout in group] for group in own], len(scripts))
    return [[from_json(data, script) for data in group] for script, group in zip(scripts, told, strict=True)]


def closed_loop(
    domain: Any, draw: Draw, rows: Sequence[Transition], streams: Streams, last: Sequence[int]
) -> tuple[list[Transition], int]:
    """Of each row, of several clips, the ``last`` that counts, given what ``draw``, a rollout of each script, came to
    from the first one on; and the tokens that took. In use a model goes on from what it wrote, so that it is rewarded,
    or measured, for that (DAgger, arXiv 1011.0686)."""
    clips, tokens = [domain.clips(row) for row in rows], 0
    now = [some[0] for some in clips]
    for k in range(max(last)):
        going = [i for i in range(len(rows)) if k < last[i]]
        drawn = sampled(draw, [domain.encode(now[i]) for i in going], [(*streams[i], k, 0) for i in going])
        for i, [rollout] in zip(going, drawn, strict=True):
            tokens += len(rollout.script.prompt) + len(rollout.ids)
            now[i] = domain.carried(now[i], rollout.written, clips[i][k + 1])
    return now, tokens


def to_json(rollout: Rollout) -> dict[str, Any]:
    """A rollout without its script, which its row gives again; log-probs to the last bit, as base64 of float32."""
    return {
        "stream": list(rollout.stream),
        "policy_version": rollout.policy_version,
        "finished": rollout.finished,
        "ids": rollout.ids.tolist(),
        "sampled": rollout.sampled.int().tolist(),
        "logps": base64.b64encode(rollout.logps.numpy().astype("<f4").tobytes()).decode(),
        "written": [list(ids) for ids in rollout.written],
    }


def from_json(data: dict[str, Any], script: Script) -> Rollout:
    """The counterpart of ``to_json``."""
    return Rollout(
        script=script,
        ids=torch.tensor(data["ids"], dtype=torch.int64),
        sampled=torch.tensor(data["sampled"], dtype=torch.bool),
        logps=torch.from_numpy(np.frombuffer(base64.b64decode(data["logps"]), "<f4").astype(np.float32)),
        written=tuple(map(tuple, data["written"])),
        finished=data["finished"],
        stream=tuple(data["stream"]),
        policy_version=data["policy_version"],
    )


def scored(domain: Domain, groups: Sequence[Sequence[Rollout]], transitions: Sequence[Transition]) -> list[list[Score]]:
    """The score of every rollout of every group, each rank for its share of the groups. A domain may have its say on
    what each earns beside the others, ``among(predictions, scores, row)``."""
    written, rows = [[rollout.written for rollout in group] for group in ranks.mine(groups)], ranks.mine(transitions)
    among: Any = getattr(domain, "among", lambda predictions, scores, row: list(scores))
    judged = zip(judge(domain, written, rows), rows, strict=True)
    own = [among(*zip(*group, strict=True), row) for group, row in judged]
    if ranks.size() == 1:
        return own
    plain: list[list[Any]] = [[[score.value, dict(score.parts), score.malformed] for score in group] for group in own]
    return [[Score(*one) for one in group] for group in ranks.gathered(plain, len(groups))]
