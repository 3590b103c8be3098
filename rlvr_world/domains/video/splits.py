"""Which episodes are trained on, which are kept apart, and the clips of either.

Shape legend: F frames of a clip, A action width, N windows. Source of the published rule and of its fixed clips:
RLVR-World's ``EvalDataset`` (sorted names, every hundredth one for testing, one clip an episode).
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import overload

import numpy as np

from rlvr_world.domains.video.actions import pooled
from rlvr_world.domains.video.config import EpisodeSplitRule
from rlvr_world.domains.video.episodes import Clip, Episodes
from rlvr_world.errors import InputError
from rlvr_world.types import Transition


def split_episodes(ids: Sequence[str], rule: EpisodeSplitRule) -> dict[str, list[int]]:
    """The numbers of the episodes of 'train', 'valid' and 'test'. ``ids`` are sorted, as readers give them.

    Raises InputError for a rule that cannot be followed, and where a share above 0 gets no episode.
    """
    split: dict[str, list[int]] = {"train": [], "valid": [], "test": []}
    if rule.kind == "every_nth":
        if rule.every < 3:
            raise InputError(f"split rule every_nth: expected every of at least 3, got {rule.every}")
        part = {0: "test", rule.every // 2: "valid"}
        for i in range(len(ids)):
            split[part.get(i % rule.every, "train")].append(i)
    else:
        if rule.test < 0 or rule.valid < 0 or rule.test + rule.valid >= 1:
            raise InputError(
                f"split rule fraction: expected shares for test and valid that leave some for train, got {rule.test} "
                f"and {rule.valid}"
            )
        for i, name in enumerate(ids):
            place = _hash(f"{rule.seed}:{name}") / 2**64
            split["test" if place < rule.test else "valid" if place < rule.test + rule.valid else "train"].append(i)
    wanted = {
        "train": True,
        "valid": rule.kind == "every_nth" or rule.valid,
        "test": rule.kind == "every_nth" or rule.test,
    }
    empty = [part for part, episodes in split.items() if wanted[part] and not episodes]
    if empty:
        raise InputError(
            f"split rule {rule.describe()}: of {len(ids)} episodes none falls into {' and '.join(empty)}; give more "
            "episodes, or another rule, share or seed"
        )
    return split


class Clips(Sequence[Transition]):
    """Every window of the chosen episodes as a transition. Holds numbers only: frames are read when a clip is.

    A window has F = ``context`` + ``horizon`` frames, ``frame_skip`` steps apart; none is padded. The state holds the
    first ``context``, the next state the others, and row k of the action the actions of the steps from frame k up to
    frame k + 1, or the means of ``pool`` of them, one after the other: float32 [F, A * frame_skip / pool]. The last
    row leads out of the window and is unused or a placeholder; where the episode ends within it, the rest is zeros.

    With ``context_back`` (multi-step: ``context`` is 1, the current frame) the state begins with one frame more,
    drawn from up to so many steps before the start, the start included; it has no action. The same clip has the same
    frame always.
    """

    too_short: int
    """Chosen episodes that are shorter than a window, and so have no clip."""

    def __init__(
        self,
        episodes: Episodes,
        chosen: Sequence[int],
        context: int,
        horizon: int,
        frame_skip: int = 1,
        every: int = 1,
        context_back: int | None = None,
        seed: int = 0,
        pool: int = 1,
    ) -> None:
        """``every``: steps from one start to the next; ``seed`` is for the frames of ``context_back``.

        Raises InputError for numbers that make no sense together.
        """
        far = context_back is not None
        if min(context, horizon, frame_skip, every) < 1 or (context_back or 0) < 0 or (far and context != 1):
            raise InputError(
                f"clips of {episodes.name}: expected context, horizon, frame_skip and every above 0, and context 1 "
                f"with a context_back of at least 0, got {context}, {horizon}, {frame_skip}, {every} and {context_back}"
            )
        if pool < 1 or frame_skip % pool:
            raise InputError(
                f"clips of {episodes.name}: the actions of {frame_skip} steps do not fall into means of {pool}; let "
                "data.action_pool divide data.frame_skip"
            )
        # Clips are mostly read in order, and a reader may have to open a file for the actions.
        self._rows = lru_cache(maxsize=64)(episodes.actions)
        self._episodes, self._context, self._frames, self._skip = episodes, context, context + horizon, frame_skip
        self._back, self._seed, self._pool = context_back, seed, pool
        self._place = {episode: place for place, episode in enumerate(chosen)}
        span = (self._frames - 1) * frame_skip + 1
        starts = [np.arange(0, max(episodes.lengths[e] - span + 1, 0), every) for e in chosen]
        self.too_short = sum(len(each) == 0 for each in starts)
        owners = [np.full(len(each), e) for e, each in zip(chosen, starts, strict=True)]
        # One row a window: episode, start, and the far context frame, or -1 for the one that the clip's id draws.
        columns = [np.concatenate([np.empty(0, int), *each]) for each in (owners, starts)]
        self._windows_N3 = np.stack([*columns, np.full(len(columns[0]), -1)], axis=1).astype(np.int32)

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
        name = self._episodes.ids[episode]
        steps = range(start, start + self._frames * self._skip, self._skip)
        row_id = f"{self._episodes.name}/{name}:{start}"
        before: tuple[int, ...] = ()
        if self._back is not None:
            first = max(start - self._back, 0)
            before = (far if far >= 0 else first + _hash(f"{self._seed}:{row_id}") % (start - first + 1),)
        return Transition(
            id=row_id,
            state=Clip(self._episodes, episode, (*before, *steps[: self._context])),
            action=self._actions(episode, start),
            next_state=Clip(self._episodes, episode, tuple(steps[self._context :])),
            world=name,
        )

    def one_per_episode(self, seed: int = 0) -> Clips:
        """One fixed clip of each episode: the published test protocol, with its very draws at seed 0 and ``every`` 1.

        The place of the episode among the chosen ones seeds numpy's legacy generator, which draws the start and then
        the far context frame.
        """
        rows = []
        episodes, first, count = np.unique(self._windows_N3[:, 0], return_index=True, return_counts=True)
        for episode, begin, windows in zip(episodes.tolist(), first, count, strict=True):
            draw = np.random.RandomState(seed + self._place[episode])
            row = self._windows_N3[begin + draw.randint(windows)].copy()
            if self._back is not None:
                row[2] = draw.randint(max(row[1] - self._back, 0), row[1] + 1)
            rows.append(row)
        return self._with(np.array(rows, np.int32).reshape(-1, 3))

    def _with(self, windows_N3: np.ndarray) -> Clips:
        clips = copy.copy(self)
        clips._windows_N3 = windows_N3
        return clips

    def _actions(self, episode: int, start: int) -> np.ndarray:
        actions = self._rows(episode)[start : start + self._frames * self._skip]
        missing = self._frames * self._skip - len(actions)
        return pooled(np.pad(actions, ((0, missing), (0, 0))), self._pool).reshape(self._frames, -1)


def _hash(text: str) -> int:
    """64 bits that depend on nothing but the text."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
