"""Policies, and their episodes, stepped together: P policies, N starts, T steps, K filmed starts, A action width."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rlvr_world.errors import InputError
from rlvr_world.policies.learned import STEPS, Frames, learn
from rlvr_world.policies.outside import openpi, recorded
from rlvr_world.recipes import named_in
from rlvr_world.recipes.tasks import Labelled, Trial
from rlvr_world.system.progress import track
from rlvr_world.types import World

AT_ONCE, FILMED = 8, 4  # real episodes that run together; starts, the first ones, that are filmed
AHEAD, HOLD, NOISE = 16, 4, 0.5  # steps that are imagined, those with an offset; the deviation of these


class Seen(NamedTuple):
    """What N episodes show: pixels uint8 [N, H, W, 3], and proprioception float32 [N, P] where the world has any.
    Seeds of episodes and the step, from 0, name draws, whatever is asked together."""

    pixels: np.ndarray
    agent_pos: np.ndarray | None
    instruction: str
    seeds: Sequence[int]
    step: int


Policy = Callable[[Seen], np.ndarray]  # -> actions float32 [N, A]


class Rollouts(NamedTuple):
    """After each step (it ends no episode), [P, N, T]: success; what the judge says of it, float32, above 0 for yes and
    how far where it tells that; whether the world told success itself. Actions float32 [P, N, T, A]; films uint8
    [P, K, T + 1, H, W, 3]."""

    success: np.ndarray
    judged: np.ndarray
    told: np.ndarray
    actions: np.ndarray
    films: np.ndarray


def read_policy(spec: str, space: Any, labelled: Callable[[], Labelled], folder: Path) -> Policy:
    """``random``; ``clone:DEMOS[:STEPS]``, cloned from the pixels of so many demonstrations; ``noisy:SIGMA:POLICY``,
    another with normal noise on its actions; ``FILE.py:FUNCTION``, one's own; ``ws://HOST:PORT``, behind a server;
    ``FILE.npz``, recorded actions. ``space``: of actions, a ``Box``. ``folder``: where what is learned is kept. Raises
    InputError for anything else."""
    if spec == "random":
        return lambda seen: _drawn(seen, lambda rng: rng.uniform(space.low, space.high))
    if noisy := re.fullmatch(r"noisy:(\d*\.?\d+):(.+)", spec):
        policy, noise = read_policy(noisy[2], space, labelled, folder), (0, float(noisy[1]), space.shape)
        return lambda seen: np.clip(policy(seen) + _drawn(seen, lambda rng: rng.normal(*noise)), space.low, space.high)
    if cloned := re.fullmatch(r"clone:(\d+)(:[1-9]\d*)?", spec):
        told, steps = labelled(), int((cloned[2] or f":{STEPS}")[1:])
        if (mine := (told.demo >= 0) & (told.demo < int(cloned[1]))).any():
            file = folder / f"{spec.replace(':', '-')}.safetensors"
            read = learn(told.frames[mine], told.expert[mine], steps, file)
            return lambda seen: np.clip(read(seen.pixels), space.low, space.high)
    if ".py:" in spec and callable(own := named_in(spec)):
        return own
    if re.match(r"wss?://", spec):
        return openpi(spec, len(space.low))
    if spec.endswith(".npz"):
        return recorded(Path(spec).expanduser(), len(space.low))
    kinds = "random, clone:DEMOS[:STEPS] with a demonstration at least, noisy:SIGMA:POLICY, FILE.py:FUNCTION, "
    kinds += "ws://HOST:PORT or FILE.npz"
    raise InputError(f"policy {spec!r}: expected {kinds}")


def _drawn(seen: Seen, draw: Callable[[np.random.Generator], np.ndarray]) -> np.ndarray:
    return np.array([draw(np.random.default_rng((seed, seen.step))) for seed in seen.seeds], np.float32)


def shown(world: World, states: Sequence[Any], instruction: str, seeds: Sequence[int], step: int) -> Seen:
    """What policies see in some states of a world."""
    observed = [world.observe(state) for state in states]
    felt = np.stack([one["agent_pos"] for one in observed]) if isinstance(observed[0], Mapping) else None
    pixels = np.stack([one if felt is None else one["pixels"] for one in observed])
    return Seen(pixels, felt, instruction, seeds, step)


def roll(
    world: World, trial: Trial, policies: Collection[Policy], says: Frames | None, starts: Mapping[int, Any]
) -> Rollouts:
    """Every policy from every start (number -> state of ``world``), in one batch; episodes of one start have the same
    draws. Success is what the world tells, where it does, else what the judge ``says`` of the frame (above 0). Without
    a judge, for one who watches the films later, all starts are filmed."""
    seeds, states = [*starts] * len(policies), [*starts.values()] * len(policies)
    filmed = [number for number, seed in enumerate(seeds) if seed < FILMED or not says]
    films, steps = [np.stack([world.render(state) for state in states])[filmed]], []
    for step in range(trial.steps):
        done = list[np.ndarray]()
        for policy, i in zip(policies, range(0, len(states), len(starts)), strict=True):
            seen = shown(world, states[i : i + len(starts)], trial.instruction, [*starts], step)
            done.extend(np.float32(policy(seen)))
        asked = [(state, world.read_action(action)) for state, action in zip(states, done, strict=True)]
        outcomes = world.advance(asked, [(seed, step, 0, 0) for seed in seeds])
        states = [outcome.state for outcome in outcomes]
        frames = np.stack([world.render(state) for state in states])
        judged = np.float32(says(frames) if says else np.zeros(len(frames)))
        told = np.array(["is_success" in outcome.info for outcome in outcomes])
        won = [outcome.info.get("is_success", said > 0) for outcome, said in zip(outcomes, judged, strict=True)]
        steps.append((np.array(won, bool), judged, told, done))
        films.append(frames[filmed])
    by_episode = [np.stack(values, 1) for values in (*zip(*steps, strict=True), films)]
    return Rollouts(*(a.reshape(len(policies), -1, *a.shape[1:]) for a in by_episode))


def improve(policy: Policy, tries: int, world: World, says: Frames, space: Any) -> Policy:
    """The policy, mended by what ``tries`` plans come to: every ``HOLD`` steps, from what is seen, ``world`` imagines
    ``AHEAD`` steps of what it does, alone and with offsets on its first ``HOLD`` actions, and the judge says how far
    each comes. Offsets count by that (MPPI, Williams et al., 2017), at a temperature of one, the error of a judge that
    is learned, and beyond an even weight: where all come as far, the action is the policy's own. Draws are the same for
    all of an episode, so that actions alone differ. For policies that remember nothing."""
    held = dict[int, np.ndarray]()  # by seed, what is added to actions for now

    def planned(seen: Seen, own: np.ndarray) -> np.ndarray:
        offsets = _drawn(seen, lambda rng: rng.normal(0, NOISE, (tries, own.shape[1])))
        offsets[:, 0] = 0
        felt = [None] * len(own) if seen.agent_pos is None else seen.agent_pos
        given = [{"pixels": frame, "agent_pos": one} for frame, one in zip(seen.pixels, felt, strict=True)]
        starts = [world.start(0, {"state": one})[0] for one in given]
        states, seeds = ([one for one in each for _ in range(tries)] for each in (starts, seen.seeds))
        does, moved = own.repeat(tries, 0), offsets.reshape(len(states), -1)
        for ahead in range(AHEAD):
            if ahead:
                does = np.float32(policy(shown(world, states, seen.instruction, seeds, seen.step + ahead)))
            done = np.clip(does + moved, space.low, space.high) if ahead < HOLD else does
            asked = [(state, world.read_action(action)) for state, action in zip(states, done, strict=True)]
            states = [one.state for one in world.advance(asked, [(seed, seen.step, ahead, 1) for seed in seeds])]
        worth = np.float32(says(np.stack([world.render(state) for state in states]))).reshape(len(own), tries)
        weights = np.exp(worth - worth.max(1, keepdims=True))
        weights = weights / weights.sum(1, keepdims=True) - 1 / tries
        return (weights[..., None] * offsets).sum(1)

    def act(seen: Seen) -> np.ndarray:
        own = np.float32(policy(seen))
        if seen.step % HOLD == 0:
            held.update(zip(seen.seeds, planned(seen, own), strict=True))
        return np.clip(own + np.stack([held[seed] for seed in seen.seeds]), space.low, space.high)

    return act


def roll_real(trial: Trial, policies: Collection[Policy], says: Frames | None, pasts: Sequence[Any]) -> Rollouts:
    """The same in the real world, policy by policy and some starts at a time; ``pasts`` are its states."""
    parts = []
    for first in track(range(0, len(pasts), AT_ONCE), f"really, {trial.instruction}", f"times {AT_ONCE} starts"):
        some = {i: pasts[i] for i in range(first, min(first + AT_ONCE, len(pasts)))}
        each = [roll(trial.real, trial, [policy], says, some) for policy in policies]
        parts.append([np.concatenate(arrays) for arrays in zip(*each, strict=True)])
    return Rollouts(*(np.concatenate(arrays, 1) for arrays in zip(*parts, strict=True)))
