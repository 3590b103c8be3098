"""Splits keep episodes apart, and clips hold the frames and actions that their layout says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr_world.domains.video.config import EpisodeSplitRule, VideoConfig, check_numbers
from rlvr_world.domains.video.splits import Clips, Parts, Window, counted, split_episodes
from rlvr_world.errors import InputError


class Recorded:
    """Episodes whose actions say where they come from: row t of episode e is (100 e + t, -t)."""

    name, files = "made", ()

    def __init__(self, lengths: Sequence[int]) -> None:
        self.ids: Sequence[str] = [f"e{i:03d}" for i in range(len(lengths))]
        self.lengths: Sequence[int] = list(lengths)

    def frames(self, episode: int, steps: Sequence[int]) -> np.ndarray:
        return np.array([np.full((4, 4, 3), step) for step in steps], np.uint8)

    def actions(self, episode: int) -> np.ndarray:
        steps = np.arange(self.lengths[episode], dtype=np.float32)
        return np.stack([100 * episode + steps, -steps], axis=1)

    def proprio(self, episode: int) -> None:
        return None


def names(count: int) -> list[str]:
    return [f"train_eps_{i:08d}" for i in range(count)]


def test_the_published_rule_gives_the_published_test_set() -> None:
    split = split_episodes(names(87_212), EpisodeSplitRule(kind="every_nth"))
    assert len(split["test"]) == 873
    assert split["test"][:3] == [0, 100, 200]
    assert split["valid"][:2] == [50, 150]


@given(
    st.integers(30, 200),
    st.sampled_from([EpisodeSplitRule(kind="every_nth", every=7), EpisodeSplitRule(test=0.2, valid=0.2)]),
)
def test_every_episode_is_in_one_part(count: int, rule: EpisodeSplitRule) -> None:
    split = split_episodes(names(count), rule)
    assert sorted(split["train"] + split["valid"] + split["test"]) == list(range(count))
    assert split == split_episodes(names(count), rule)


@given(st.sets(st.integers(0, 999), min_size=40), st.integers(0, 5))
def test_more_episodes_move_none_of_the_old(kept: set[int], seed: int) -> None:
    rule = EpisodeSplitRule(test=0.3, valid=0.3, seed=seed)
    more, all_names = sorted(kept), names(1000)
    few = split_episodes([all_names[i] for i in more], rule)
    for part, episodes in split_episodes(all_names, rule).items():
        assert [more[i] for i in few[part]] == [i for i in episodes if i in kept]


def test_shares_are_kept_and_seeds_differ() -> None:
    split = split_episodes(names(5000), EpisodeSplitRule(test=0.2, valid=0.1))
    assert len(split["test"]) == pytest.approx(1000, abs=100)
    assert len(split["valid"]) == pytest.approx(500, abs=80)
    assert split != split_episodes(names(5000), EpisodeSplitRule(test=0.2, valid=0.1, seed=1))


def test_a_rule_describes_what_it_goes_by() -> None:
    assert EpisodeSplitRule(kind="every_nth", every=10).describe() == {"kind": "every_nth", "every": 10}
    assert EpisodeSplitRule(seed=3).describe() == {"kind": "fraction", "test": 0.1, "valid": 0.1, "seed": 3}


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (EpisodeSplitRule(test=0.6, valid=0.4), "expected shares"),
        (EpisodeSplitRule(test=-0.1), "expected shares"),
        (EpisodeSplitRule(kind="every_nth"), "of 20 episodes none falls into valid"),
        (EpisodeSplitRule(test=1e-6), "of 20 episodes none falls into test"),
    ],
)
def test_rules_that_cannot_be_followed(rule: EpisodeSplitRule, message: str) -> None:
    with pytest.raises(InputError, match=message):
        split_episodes(names(20), rule)


def test_a_share_of_zero_may_be_empty() -> None:
    assert split_episodes(names(20), EpisodeSplitRule(test=0.0, valid=0.0))["train"] == list(range(20))


def test_single_step_clip() -> None:
    """Two context frames and a target, two steps apart: each row holds the actions of both steps to the next frame."""
    clips = Clips(Recorded([20, 7]), [1], Window(context=2, horizon=1, frame_skip=2))
    assert [clip.id for clip in clips] == ["made/e001:0", "made/e001:1", "made/e001:2"]
    clip = clips[1]
    assert clip.world == "e001"
    assert clip.state.steps == (1, 3)
    assert clip.next_state.steps == (5,)
    assert clip.action.dtype == np.float32
    assert clip.action.tolist() == [[101, -1, 102, -2], [103, -3, 104, -4], [105, -5, 106, -6]]
    assert clip.state.read()[:, 0, 0, 0].tolist() == [1, 3]
    assert clips[2].action[2].tolist() == [106, -6, 0, 0]  # the episode ends with step 6


def test_pooled_actions() -> None:
    """Four steps to the next frame, their actions as two means."""
    clips = Clips(Recorded([20]), [0], Window(context=1, horizon=1, frame_skip=4, pool=2))
    assert clips[1].action[0].tolist() == [1.5, -1.5, 3.5, -3.5]
    assert clips[1].action.shape == (2, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frame_skip": 4, "action_pool": 3}, r"data\.action_pool: expected a divisor of data\.frame_skip=4, got 3"),
        ({"split": EpisodeSplitRule(kind="every_nth", every=2)}, r"data\.split\.every: expected at least 3, got 2"),
        ({"context": 0}, r"data\.context: expected at least 1"),
        ({"context_back": -1}, r"data\.context_back: expected at least 0"),
    ],
)
def test_numbers_that_no_clip_goes_with(changes: dict[str, Any], message: str) -> None:
    sound = VideoConfig(height=128, width=128)
    check_numbers(sound)
    with pytest.raises(InputError, match=message):
        check_numbers(replace(sound, **changes))


def test_chosen_numbers_of_an_action() -> None:
    clips = Clips(Recorded([6]), [0], Window(context=1, horizon=1, frame_skip=2, dims=(1,)))
    assert clips[1].action.tolist() == [[-1, -2], [-3, -4]]
    both = Clips(Recorded([6]), [0], Window(context=1, horizon=1, dims=(1, 0)))
    assert both[0].action.tolist() == [[0, 0], [-1, 1]]
    wrong = Clips(Recorded([6]), [0], Window(context=1, horizon=1, dims=(0, 2)))
    with pytest.raises(
        InputError, match=r"data\.action_dims: expected numbers from 0 to 1, as the actions of made hav"
    ):
        wrong[0]


def test_multi_step_clip() -> None:
    clips = Clips(Recorded([40]), [0], Window(context=1, horizon=7, context_back=15))
    assert len(clips) == 33
    for clip, start in zip(clips, range(33), strict=True):
        far, current = clip.state.steps
        assert current == start
        assert max(start - 15, 0) <= far <= start
        assert clip.next_state.steps == tuple(range(start + 1, start + 8))
        assert clip.action.tolist() == [[step, -step] for step in range(start, start + 8)]
    backs = [clip.state.steps[1] - clip.state.steps[0] for clip in clips[15:]]
    assert len(set(backs)) > 5
    assert [clip.state.steps for clip in clips] == [clip.state.steps for clip in clips]
    assert clips[20].state == clips[15:][5].state
    other = Clips(Recorded([40]), [0], Window(context=1, horizon=7, context_back=15), seed=1)
    assert [clip.state for clip in other] != [clip.state for clip in clips]


@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=5),
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 4),
)
def test_windows_are_all_there_and_none_is_padded(
    lengths: list[int], context: int, horizon: int, skip: int, every: int
) -> None:
    data = Recorded(lengths)
    clips = Clips(data, range(len(lengths)), Window(context, horizon, skip), every)
    span = (context + horizon - 1) * skip
    expected = [(data.ids[e], s) for e, length in enumerate(lengths) for s in range(0, length - span, every)]
    assert [(clip.world, clip.state.steps[0]) for clip in clips] == expected
    assert len(clips) == len(expected)
    too_short = len(lengths) - len({clip.world for clip in clips})
    assert too_short == clips.without == sum(length <= span for length in lengths)
    for clip in clips:
        assert clip.next_state.steps[-1] < data.lengths[clip.next_state.episode]
        assert clip.action.shape == (context + horizon, 2 * skip)


def test_clips_slice_and_count_like_a_list() -> None:
    clips = Clips(Recorded([9, 9]), [0, 1], Window(context=1, horizon=1))
    rows = list(clips)
    assert len(clips) == len(rows) == 16
    assert clips[-1].id == rows[-1].id
    assert [clip.id for clip in clips[3:12:4]] == [clip.id for clip in rows[3:12:4]]
    with pytest.raises(IndexError):
        clips[16]


def test_one_clip_an_episode_is_drawn_as_published() -> None:
    """The item's number seeds numpy's legacy generator: first the start, then the far context frame."""
    lengths = [30, 3, 41, 8, 25]
    clips = Clips(Recorded(lengths), [0, 1, 2, 4], Window(context=1, horizon=7, context_back=15)).one_per_episode()
    assert [clip.world for clip in clips] == ["e000", "e002", "e004"]
    for clip, item in zip(clips, (0, 2, 3), strict=True):
        np.random.seed(item)
        start = np.random.randint(lengths[clip.state.episode] - 8 + 1)
        assert clip.state.steps == (np.random.randint(max(start - 15, 0), start + 1), start)
    assert [clip.id for clip in clips.one_per_episode()] == [clip.id for clip in clips]
    assert len(Clips(Recorded([2]), [0], Window(context=4, horizon=1)).one_per_episode()) == 0


def test_without_reach_the_context_frame_is_the_current_one() -> None:
    for clip in Clips(Recorded([12]), [0], Window(context=1, horizon=3, context_back=0)):
        assert clip.state.steps[0] == clip.state.steps[1]


def test_short_episodes_are_padded_by_choice() -> None:
    data = Recorded([2, 5, 3])
    clips = Clips(data, (0, 1, 2), Window(2, 2, pad=True))
    assert [clip.world for clip in clips] == ["e000", "e001", "e001", "e002"]
    assert clips.without == 0
    short, whole, later, other = clips
    assert (short.state.steps, short.next_state.steps) == ((0, 1), (1, 1))
    assert short.action[:, 0].tolist() == [0, 1, 1, 1]
    assert (other.next_state.steps, other.action[:, 0].tolist()) == ((2, 2), [200, 201, 202, 202])
    assert (whole.action[:, 0].tolist(), later.action[:, 0].tolist()) == ([100, 101, 102, 103], [101, 102, 103, 104])
    assert Clips(data, (1,), Window(2, 3, pad=True))[0].action[-1].tolist() == [104, -4], "as without padding"
    far = Clips(data, (0, 2), Window(1, 4, context_back=3, pad=True)).one_per_episode()
    assert [clip.state.steps for clip in far] == [(0, 0), (0, 0)]


def test_short_episodes_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    clips = Clips(Recorded([2, 5, 3]), (0, 1, 2), Window(2, 2))
    assert counted(Parts(), (clips, clips[:1])) == {"episodes shorter than a clip": 4}
    assert capsys.readouterr().err == "left out: 4 episodes shorter than a clip; data.short=pad keeps them\n"
    assert counted(Parts(), (Clips(Recorded([5]), (0,), Window(2, 2)),)) == {}
