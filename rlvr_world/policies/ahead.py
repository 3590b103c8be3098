"""A policy that looks ahead: of some variants of what it would do, the one whose imagined outcome the judge likes best.

Shape legend: S episodes, V variants, A action width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from rlvr_world.policies.learned import Frames
from rlvr_world.policies.rollouts import Policy, Seen, shown
from rlvr_world.types import World

DEPTH, SHARE = 4, 0.4
"""Steps that are imagined; deviation of what variants add to actions, as a share of half an action's range."""
_APART = 1_000_000  # seeds of imagined episodes, so that policies that remember take them for others

Begin = Callable[[np.ndarray, np.ndarray | None, np.ndarray], Any]
"""The model's state after what an episode showed: frames uint8 [T, H, W, 3], proprioception float32 [T, P] or None,
and what was done at each but the last, float32 [T, A] (a row of zeros at the end)."""


def looking(policy: Policy, model: World, begin: Begin, measure: Frames, variants: int) -> Policy:
    """In each step V variants of the policy are imagined for ``DEPTH`` steps: itself, and itself with something added
    to all its actions there. The first action of the one whose frames have the highest ``measure``, float [N], on
    average is done. Where all are alike, that is the policy's own."""
    past: list[tuple[Seen, np.ndarray]] = []
    low, high = model.action_space.low, model.action_space.high

    def act(seen: Seen) -> np.ndarray:
        actions, S = np.float32(policy(seen)), len(seen.seeds)
        past[:] = [*(past if seen.step else ()), (seen, np.zeros_like(actions))]
        states = []
        for i in range(S):
            shots, acts = (np.stack(one) for one in zip(*((one.pixels[i], a[i]) for one, a in past), strict=True))
            known = [one.agent_pos[i] for one, _ in past if one.agent_pos is not None]
            states += [begin(shots, np.stack(known) if known else None, acts)] * variants
        values = np.zeros(S * variants)
        named = [(seed, v) for seed in seen.seeds for v in range(variants)]
        drawn = [np.random.default_rng((seed, seen.step, v)).normal(0, SHARE * (v > 0), len(low)) for seed, v in named]
        added, tried, actions = np.array(drawn) * (high - low) / 2, list[np.ndarray](), actions.repeat(variants, 0)
        for ahead in range(DEPTH):
            if ahead:
                seeds = [seed + _APART * (v + 1) for seed, v in named]
                actions = policy(shown(model, states, seen.instruction, seeds, seen.step + ahead))
            tried.append(np.float32(np.clip(actions + added, low, high)))
            asked = [(state, model.read_action(one)) for state, one in zip(states, tried[-1], strict=True)]
            outcomes = model.advance(asked, [(seed, seen.step, ahead, v) for seed, v in named])
            states = [outcome.state for outcome in outcomes]
            values += measure(np.stack([model.render(state) for state in states]))
        best = values.reshape(S, variants).argmax(1) + np.arange(S) * variants
        past[-1] = seen, tried[0][best]
        return tried[0][best]

    return act
