"""What a look before RL finds out about a codec: what its round trip costs, and whether it decides who is better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any, Literal

import numpy as np

from rlvr_world.domains.video.domain import VideoDomain
from rlvr_world.scoring import score
from rlvr_world.types import Finding, Score, Transition

STILL, FLIPS = 1.0, 0.3
"""The round trip may lose at most ``STILL`` of what copying loses, and turn round at most ``FLIPS`` of the pairs."""
Judged = Sequence[Sequence[tuple[Any, Score]]]


def round_trip(domain: VideoDomain, rows: Sequence[Transition]) -> list[Finding]:
    """What the codec's round trip costs, beside what really moves: the reward of the last frame once more."""
    trivial = [dict(domain.baselines(row)) for row in rows]
    scored = score(domain, [list(named.values()) for named in trivial], rows)
    means = {name: float(np.mean([group[i].value for group in scored])) for i, name in enumerate(next(iter(trivial)))}
    copied, back = means.get("copy last frame"), means.get("tokenizer round trip")
    if copied is None or back is None:
        return []
    advice = "tokens lose more than moves: train the tokenizer longer (data.tokenizer.steps), or give it more codes"
    text = f"reward {back:.4g}; copying the last frame, which is as far off as things move, {copied:.4g}"
    return [Finding("round trip of the codec", text, advice if back < STILL * copied else "")]


def flips(domain: VideoDomain, rows: Sequence[Transition], judged: Judged) -> list[Finding]:
    """Of the pairs of a group, the share whose order depends on whether they are held against the true frames or
    against what the tokenizer can show of them."""
    other: Literal["frame", "round_trip"] = "frame" if domain.config.target == "round_trip" else "round_trip"
    reward = replace(domain.config, target=other)
    held = VideoDomain(domain.codec, domain.cache, domain.metrics, reward, domain.skip_blocks)
    again = score(held, [[prediction for prediction, _ in group] for group in judged], rows)
    turned = pairs = 0
    for group, theirs in zip(judged, again, strict=True):
        ours = [one for _, one in group]
        for i, j in combinations(range(len(ours)), 2):
            one, two = ours[i].value - ours[j].value, theirs[i].value - theirs[j].value
            if one or two:
                pairs, turned = pairs + 1, turned + (one * two < 0)
    share = turned / pairs if pairs else 0.0
    advice = f"the codec decides who is better: train it longer, or data.reward.target={other}" if share > FLIPS else ""
    return [Finding("pairs that the codec would order otherwise", f"{share:.0%} of {pairs}", advice)]
