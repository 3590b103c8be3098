"""The episodes of a run: which are trained on, which are kept apart, and the clips of either.

Shape legend: F frames of a clip, A action width, N windows. Source of the published rule and of its fixed clips:
RLVR-World's ``EvalDataset`` (sorted names, every hundredth one for testing, one clip an episode).
"""

from __future__ import annotations

import copy
import hashlib
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import overload

import numpy as np

from rlvr_world.domains.row_files import OnFault, left_out, skipping
from rlvr_world.domains.video.actions import chosen_dims, pooled
from rlvr_world.domains.video.config import EpisodeSplitRule, VideoConfig
from rlvr_world.domains.video.envs.collect import collect
from rlvr_world.domains.video.episodes import Clip, Episodes
from rlvr_world.domains.video.readers import KINDS, open_episodes
from rlvr_world.errors import InputError
from rlvr_world.system.files import write_whole
from rlvr_world.system.progress import track
from rlvr_world.types import Transition

Part = tuple[Episodes, Sequence[int]]
"""A data set and the numbers of some of its episodes."""


class Parts(dict[str, Part]):
    """By name: train, valid and test."""

    skipped: Sequence[str] = ()
    """What is wrong with the episodes that ``data.skip_faulty`` left out."""


def opened(data: VideoConfig, on_fault: OnFault = None) -> Episodes:
    """All episodes but those that lie apart for tests; embedded worlds are played first where they have not been."""
    if data.source not in KINDS:
        return open_episodes("npz", collect(data.source, data.env, Path(data.cache)))
    if not data.path:
        raise InputError(f"data.path: data.source={data.source} reads episodes; say where, as in data.path=FOLDER")
    return open_episodes(data.source, data.path, "train", data.camera, on_fault)


@lru_cache(maxsize=1)
def parts(data: VideoConfig) -> Parts:
    """The episodes of train, valid and test."""
    on_fault, faults = skipping(data.skip_faulty)
    episodes = opened(data, on_fault)
    chosen = split_episodes(episodes.ids, data.split)
    found = Parts({name: (episodes, numbers) for name, numbers in chosen.items()})
    if data.source == "dino_wm":  # its test episodes lie apart
        held = open_episodes(data.source, data.path, split="val")
        found["test"] = (held, range(len(held.ids)))
    for name, (episodes, numbers) in found.items() if data.skip_faulty else ():
        bad = _unread(data, episodes)
        faults += [bad[n] for n in numbers if n in bad]
        found[name] = (episodes, [n for n in numbers if n not in bad])
        if numbers and not found[name][1]:
            raise InputError(f"{episodes.name}: no episode for {name} reads; the last: {faults[-1]}")
    found.skipped = faults
    return found


def _unread(data: VideoConfig, episodes: Episodes) -> dict[int, str]:
    """What is wrong with episodes that do not read, by number. Each is read whole, frame by frame, and what is found is
    kept under ``data.cache`` for as long as the files stay as they are."""
    files = sorted(file for file in Path(data.path).expanduser().rglob("*") if data.path and file.is_file())
    states = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    about = [data.source, data.path, data.camera, data.proprio, episodes.name, *episodes.ids, *states]
    kept = Path(data.cache).expanduser() / f"faults-{_hash(json.dumps(about)):016x}.json"
    if not kept.exists():
        bad = {}
        for episode in track(range(len(episodes.ids)), f"reading {episodes.name}", "episodes"):
            try:
                episodes.actions(episode)
                episodes.frames(episode, range(episodes.lengths[episode]))
                if data.proprio:
                    episodes.proprio(episode)
            except InputError as error:
                bad[episode] = str(error)
        write_whole(kept, json.dumps(bad))
    return {int(episode): told for episode, told in json.loads(kept.read_text()).items()}


def split_episodes(ids: Sequence[str], rule: EpisodeSplitRule) -> dict[str, list[int]]:
    """The numbers of the episodes of 'train', 'valid' and 'test'. ``ids`` are sorted, as readers give them. Raises
    InputError for a rule that cannot be followed, and where a share above 0 gets no episode."""
    split: dict[str, list[int]] = {"train": [], "valid": [], "test": []}
    if rule.kind == "every_nth":
        part = {0: "test", rule.every // 2: "valid"}
        for i in range(len(ids)):
            split[part.get(i % rule.every, "train")].append(i)
    else:
        if rule.test < 0 or rule.valid < 0 or rule.test + rule.valid >= 1:
            wanted, got = "shares for test and valid that leave some for train", f"{rule.test} and {rule.valid}"
            raise InputError(f"split rule fraction: expected {wanted}, got {got}; lower them")
        for i, name in enumerate(ids):
            place = _hash(f"{rule.seed}:{name}") / 2**64
            split["test" if place < rule.test else "valid" if place < rule.test + rule.valid else "train"].append(i)
    shares = {"train": 1.0, "valid": rule.valid, "test": rule.test}
    empty = [part for part, share in shares.items() if (share or rule.kind == "every_nth") and not split[part]]
    if empty:
        got = f"of {len(ids)} episodes none falls into {' and '.join(empty)}"
        raise InputError(f"split rule {rule.describe()}: {got}; give more episodes, or another rule, share or seed")
    return split


@dataclass(frozen=True)
class Window:
    """The F frames of a clip, ``frame_skip`` steps apart: ``context`` of the state, ``horizon`` of the next state."""

    context: int
    horizon: int
    frame_skip: int = 1
    context_back: int | None = None
    """With a far context frame (``context`` is 1, the current one): the state begins with one frame more, drawn from up
    to so many steps before the start, the start included; it has no action."""
    pool: int = 1
    """Steps whose actions are given as their mean."""
    dims: tuple[int, ...] = ()
    """Which numbers of an action are given; empty for all."""
    pad: bool = False
    """An episode shorter than a window has one all the same: its last frame and action stand for what it lacks."""

    @property
    def frames(self) -> int:
        return self.context + self.horizon


class Clips(Sequence[Transition]):
    """Every window of the chosen episodes as a transition. Holds numbers only: frames are read when a clip is.

    Row k of the action holds the actions, or means of actions, of the steps from frame k up to frame k + 1, one after
    the other: float32 [F, A * frame_skip / pool]. The last row leads out of the window and is unused or a placeholder;
    where the episode ends within it, the rest is zeros.
    """

    def __init__(self, episodes: Episodes, chosen: Sequence[int], window: Window, every: int = 1, seed: int = 0):
        """``every``: steps from one start to the next; ``seed`` draws the frames of ``context_back``, the same ones
        for the same clip always."""
        # Clips are mostly read in order, and a reader may have to open a file for the actions.
        self._rows = lru_cache(maxsize=64)(episodes.actions)
        self._episodes, self._window, self._seed = episodes, window, seed
        self._place = {episode: place for place, episode in enumerate(chosen)}
        span = (window.frames - 1) * window.frame_skip + 1
        starts = [np.arange(0, max(episodes.lengths[e] - span + 1, int(window.pad)), every) for e in chosen]
        self.without = sum(not len(each) for each in starts)  # episodes
        # One row a window: episode, start, and the far context frame, or -1 for the one that the clip's id draws.
        rows = [np.stack(np.broadcast_arrays(e, each, -1), 1) for e, each in zip(chosen, starts, strict=True)]
        self._windows_N3 = np.concatenate([np.empty((0, 3), np.int32), *rows]).astype(np.int32)

    def __len__(self) -> int:
        return len(self._windows_N3)

    @overload
    def __getitem__(self, index: int) -> Transition: ...

    @overload
    def __getitem__(self, index: slice) -> Clips: ...

    def __getitem__(self, index: int | slice) -> Transition | Clips:
        if isinstance(index, slice):
            return self._with(self._windows_N3[index])
        episode, start, far = self._windows_N3[index].tolist()
        name, window = self._episodes.ids[episode], self._window
        last = self._episodes.lengths[episode] - 1
        steps = tuple(min(start + k * window.frame_skip, last) for k in range(window.frames))
        row_id = f"{self._episodes.name}/{name}:{start}"
        before: tuple[int, ...] = ()
        if window.context_back is not None:
            first = max(start - window.context_back, 0)
            before = (far if far >= 0 else first + _hash(f"{self._seed}:{row_id}") % (start - first + 1),)
        state = Clip(self._episodes, episode, (*before, *steps[: window.context]))
        after = Clip(self._episodes, episode, steps[window.context :])
        return Transition(row_id, state, self._actions(episode, start), after, world=name)

    def one_per_episode(self) -> Clips:
        """One fixed clip of each episode: the published test protocol, with its very draws where ``every`` is 1. The
        place of the episode among the chosen ones seeds numpy's legacy generator, which draws the start and then the
        far context frame."""
        rows, back = [], self._window.context_back
        episodes, first, count = np.unique(self._windows_N3[:, 0], return_index=True, return_counts=True)
        for episode, begin, windows in zip(episodes.tolist(), first, count, strict=True):
            draw = np.random.RandomState(self._place[episode])
            row = self._windows_N3[begin + draw.randint(windows)].copy()
            if back is not None:
                row[2] = draw.randint(max(row[1] - back, 0), row[1] + 1)
            rows.append(row)
        return self._with(np.array(rows, np.int32).reshape(-1, 3))

    def _with(self, windows_N3: np.ndarray) -> Clips:
        clips = copy.copy(self)
        clips._windows_N3 = windows_N3
        return clips

    def _actions(self, episode: int, start: int) -> np.ndarray:
        count = self._window.frames * self._window.frame_skip
        actions = chosen_dims(self._rows(episode), self._window.dims, self._episodes.name)[start : start + count]
        short = self._window.pad and len(actions) <= count - self._window.frame_skip
        padded = np.pad(actions, ((0, count - len(actions)), (0, 0)), mode="edge" if short else "constant")
        return pooled(padded, self._window.pool).reshape(self._window.frames, -1)


def clips_of(data: VideoConfig, part: Part, seed: int, held_out: bool = False) -> Clips:
    """Windows of the episodes, ``data.train_every`` steps apart; held-out ones ``data.test_every``, or one an episode
    as published. Raises InputError where no episode is long enough."""
    (episodes, chosen), window = part, _window(data)
    clips = Clips(episodes, chosen, window, (data.test_every or 1) if held_out else data.train_every, seed)
    if not len(clips):
        wanted = f"a clip of {window.frames} frames, {data.frame_skip} steps apart"
        got = f"none of its {len(chosen)} episodes is long enough for {wanted}"
        raise InputError(f"{episodes.name}: {got}; lower data.horizon, data.frame_skip or data.closed_loop")
    return clips.one_per_episode() if held_out and not data.test_every else clips


def whole_episodes(data: VideoConfig, part: Part) -> list[Transition]:
    """Each episode that is long enough as one row: its first frames, and all that follow."""
    episodes, chosen = part
    window = replace(_window(data), context_back=None)
    later = {e: (episodes.lengths[e] - 1) // window.frame_skip + 1 - window.context for e in chosen}
    return [Clips(episodes, [e], replace(window, horizon=more))[0] for e, more in later.items() if more > 0]


def _window(data: VideoConfig) -> Window:
    context, back = (1, data.context_back) if data.tokenizer.kind == "compressive" else (data.context, None)
    pad = data.short == "pad"
    return Window(context, data.horizon, data.frame_skip, back, data.action_pool, data.action_dims, pad)


def counted(found: Parts, clips: Iterable[Clips]) -> dict[str, int]:
    """Episodes that are not used, by why; stderr is told."""
    gone, short = left_out(found.skipped, "episodes"), sum(part.without for part in clips)
    if short:
        print(f"left out: {short} episodes shorter than a clip; data.short=pad keeps them", file=sys.stderr)
    return gone | ({"episodes shorter than a clip": short} if short else {})


def _hash(text: str) -> int:
    """64 bits that depend on nothing but the text."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
