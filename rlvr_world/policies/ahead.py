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
    past: dict[int, tuple[list[Any], list[Any], list[Any]]] = {}
    low, high = model.action_space.low, model.action_space.high

    def act(seen: Seen) -> np.ndarray:
        own, S = np.float32(policy(seen)), len(seen.seeds)
        begun = [_remembered(past, seen, i, own.shape[1], begin) for i in range(S)]
        rng = [np.random.default_rng((seed, seen.step, variants)) for seed in seen.seeds]
        added = np.stack([one.normal(0, SHARE, (variants, own.shape[1])) for one in rng]) * (high - low) / 2
        added[:, 0] = 0
        states = [state for state in begun for _ in range(variants)]
        named = [(seed, v) for seed in seen.seeds for v in range(variants)]
        values, first = np.zeros(S * variants), own.repeat(variants, 0)
        tried = np.clip(first + added.reshape(S * variants, -1), low, high).astype(np.float32)
        for ahead in range(DEPTH):
            actions = tried
            if ahead:
                seeds = [seed + _APART * (v + 1) for seed, v in named]
                first = policy(shown(model, states, seen.instruction, seeds, seen.step + ahead))
                actions = np.clip(first + added.reshape(S * variants, -1), low, high)
            asked = [(state, model.read_action(one)) for state, one in zip(states, actions, strict=True)]
            outcomes = model.advance(asked, [(seed, seen.step, ahead, v) for seed, v in named])
            states = [outcome.state for outcome in outcomes]
            values += measure(np.stack([model.render(state) for state in states]))
        best = values.reshape(S, variants).argmax(1)
        done = tried.reshape(S, variants, -1)[np.arange(S), best]
        for i, seed in enumerate(seen.seeds):
            past[seed][2].append(done[i])
        return done

    return act


def _remembered(past: dict[int, Any], seen: Seen, i: int, width: int, begin: Begin) -> Any:
    """The model's state where episode i stands, whose past is kept."""
    if seen.step == 0:
        past[seen.seeds[i]] = [], [], []
    frames, felt, done = past[seen.seeds[i]]
    frames.append(seen.pixels[i])
    if seen.agent_pos is not None:
        felt.append(seen.agent_pos[i])
    return begin(np.stack(frames), np.stack(felt) if felt else None, np.stack([*done, np.zeros(width, np.float32)]))
