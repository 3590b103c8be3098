"""The state after a prediction, and questions asked of a model: on a moving square, with random tokenizers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlvr_world.domains.video.actions import ActionBins
from rlvr_world.domains.video.config import RewardConfig
from rlvr_world.domains.video.domain import Prediction, VideoDomain
from rlvr_world.domains.video.episodes import read_question
from rlvr_world.domains.video.scene import VideoScene
from rlvr_world.domains.video.splits import Clips, Window
from rlvr_world.errors import InputError
from rlvr_world.types import Malformed, Transition, Write
from tests.domains.video.worlds import Made, video_domain

SIZE = (16, 16)


def square(scale: int = 1) -> Made:
    """A bright square that goes where the action says, and feels where it is; ``scale`` enlarges the frames."""
    videos, moves, felt = [], [], []
    for episode in range(2):
        rng = np.random.default_rng(episode)
        moved = rng.integers(-2, 3, (9, 2))
        place = rng.integers(2, 10, 2)
        images, places = np.full((9, 16, 16, 3), (240, 230, 220), np.uint8), []
        for t in range(9):
            y, x = place
            images[t, y : y + 4, x : x + 4] = (200, 40, 40 + 20 * t)
            places.append(place)
            place = np.clip(place + moved[t], 0, 12)
        videos.append(images.repeat(scale, 1).repeat(scale, 2))
        moves.append(moved)
        felt.append(np.array(places))
    return Made(videos, moves, felt)


def domain(folder: Path, multi: bool = False, proprio: bool = False, **layout: Any) -> VideoDomain:
    ranges = ActionBins((-2.0, -2.0), (2.0, 2.0), 16), ActionBins((0.0, 0.0), (12.0, 12.0), 16) if proprio else None
    return video_domain(folder, ranges, RewardConfig(lpips=0), multi, **{"context": 1, "horizon": 1, **layout})


def row_of(world: VideoDomain, episodes: Made | None = None) -> Transition:
    """A clip whose frames all differ; multi-step, its far context frame lies before the current one."""
    layout = world.layout
    back = 3 if layout.context_tokens else None
    clips = Clips(episodes or square(), (0, 1), Window(layout.context, layout.horizon, context_back=back))
    steps = [(*row.state.steps, *row.next_state.steps) for row in clips]
    return clips[next(i for i, each in enumerate(steps) if each[0] > 0 and len(set(each)) == len(each))]


def perfect(world: VideoDomain, row: Transition) -> Prediction:
    """What a model that makes no mistake predicts."""
    prediction = world.decode([s.target for s in world.encode(row).tail if isinstance(s, Write) and s.target], row)
    assert isinstance(prediction, Prediction)
    assert len(set(prediction.tokens)) == world.layout.horizon
    return prediction


def as_bytes(frames: torch.Tensor) -> np.ndarray:
    return (frames * 255).round().byte().movedim(1, -1).numpy()


KINDS = pytest.mark.parametrize(
    "kind",
    [
        {"context": 1},
        {"context": 2},
        {"context": 1, "horizon": 2},
        {"context": 3, "horizon": 2},
        {"context": 2, "proprio": True},
        {"context": 2, "same": True},
        {"multi": True, "horizon": 1},
        {"multi": True, "horizon": 3, "proprio": True},
        {"kind": "multi_step", "context": 2, "horizon": 3, "proprio": True},
    ],
)


@KINDS
def test_the_true_prediction_leads_to_the_true_frames_as_the_tokenizer_shows_them(
    tmp_path: Path, kind: dict[str, Any]
) -> None:
    world = domain(tmp_path, **kind)
    row = row_of(world)
    trip = as_bytes(world.baselines(row)["tokenizer round trip"].frames)
    after = world.advance(row.state, row.action, perfect(world, row))
    assert not isinstance(after, Malformed)
    frames = after.read()
    assert frames.dtype == np.uint8
    assert len(after.steps) == len(frames) == len(row.state.steps)
    far = 1 if kind.get("multi") else 0
    seen = np.concatenate([row.state.read()[far:], trip])
    np.testing.assert_array_equal(frames[far:], seen[-(len(frames) - far) :])
    np.testing.assert_array_equal(frames[:far], row.state.read()[:far])
    assert not np.array_equal(frames[-1], as_bytes(world.baselines(row)["copy last frame"].frames)[-1])


@pytest.mark.parametrize("kind", [{"context": 1}, {"context": 2}, {"multi": True, "horizon": 3}])
def test_proprioception_goes_on_as_the_frames_do(tmp_path: Path, kind: dict[str, Any]) -> None:
    world = domain(tmp_path, proprio=True, **kind)
    row = row_of(world)
    prediction = perfect(world, row)
    felt = world.advance(row.state, row.action, prediction).proprio()
    before, truth = row.state.proprio(), row.next_state.proprio()
    assert prediction.proprio is not None
    np.testing.assert_array_equal(felt[-1], prediction.proprio[-1])
    np.testing.assert_allclose(felt[-1], truth[-1], atol=12 / 16 / 2)
    if len(felt) > 1:  # what was felt at the frame that is kept
        np.testing.assert_array_equal(felt[0], before[0] if kind.get("multi") else before[1])
    plain = domain(tmp_path, **kind)
    assert plain.advance(row.state, row.action, perfect(plain, row)).proprio() is None


@KINDS
def test_a_next_step_can_be_asked_of_what_was_predicted(tmp_path: Path, kind: dict[str, Any]) -> None:
    world = domain(tmp_path, **kind)
    row = row_of(world)
    after = world.advance(row.state, row.action, perfect(world, row))
    script = world.encode(Transition("next", after, row.action, None))
    assert len(script.prompt) == len(world.encode(row).prompt)
    assert all(s.target is None for s in script.tail if isinstance(s, Write))


def test_malformed_leads_to_malformed(tmp_path: Path) -> None:
    world = domain(tmp_path)
    row = row_of(world)
    malformed = Malformed("frame 0: expected 16 tokens from 0 to 63")
    assert world.advance(row.state, row.action, malformed) is malformed


@pytest.mark.parametrize("kind", [{"context": 2}, {"multi": True, "horizon": 2}])
def test_frames_of_another_size_are_brought_to_that_of_the_tokenizer(tmp_path: Path, kind: dict[str, Any]) -> None:
    world = domain(tmp_path, **kind)
    small, large = row_of(world), row_of(world, square(scale=2))
    after = world.advance(large.state, large.action, perfect(world, large)).read()
    assert after.shape == (2, *SIZE, 3)
    kept = small.state.read()[0 if kind.get("multi") else 1]
    assert np.abs(after[0].astype(int) - kept).max() <= 60  # the edges of the square are smoothed
    assert np.abs(after[0].astype(int) - kept).mean() < 3


@KINDS
def test_without_a_next_state_the_prompt_is_the_same_and_there_are_no_targets(
    tmp_path: Path, kind: dict[str, Any]
) -> None:
    world = domain(tmp_path, **kind)
    row = row_of(world)
    known, unknown = world.encode(row), world.encode(replace(row, next_state=None))
    assert unknown.prompt == known.prompt
    assert [replace(s, target=None) if isinstance(s, Write) else s for s in known.tail] == list(unknown.tail)


@KINDS
def test_a_question_of_plain_arrays_has_the_prompt_of_the_clip(tmp_path: Path, kind: dict[str, Any]) -> None:
    world = domain(tmp_path, **kind)
    row = row_of(world)
    arrays = {"state": row.state.read(), "action": row.action.tolist(), "proprio": row.state.proprio()}
    for given in (arrays, {"state": row.state, "action": row.action}):
        asked = read_question({**given, "id": 7})
        assert (asked.id, asked.next_state) == ("7", None)
        assert world.encode(asked).prompt == world.encode(row).prompt
    if kind.get("proprio"):
        with pytest.raises(InputError, match=r"row question: proprioception: .* frames in memory has none"):
            world.encode(read_question({"state": arrays["state"], "action": row.action}))


def test_a_question_that_is_no_object_is_refused() -> None:
    with pytest.raises(InputError, match="question: expected an object with the keys state and action, got 'x'"):
        read_question("x")


FRAMES, MOVES = np.zeros((2, 16, 16, 3), np.uint8), [[0.0, 0.0]] * 3


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"action": MOVES}, "state"),
        ({"state": FRAMES.astype(float), "action": MOVES}, "state"),
        ({"state": FRAMES[0], "action": MOVES}, "state"),
        ({"state": [[1], [1, 2]], "action": MOVES}, "state"),
        ({"state": FRAMES[:0], "action": MOVES}, "state"),
        ({"state": FRAMES}, "action"),
        ({"state": FRAMES, "action": [0.0, 0.0]}, "action"),
        ({"state": FRAMES, "action": [[0.0], [0.0, 0.0]]}, "action"),
        ({"state": FRAMES, "action": MOVES, "proprio": [[0.0]]}, "proprio"),
    ],
)
def test_a_question_of_anything_else_is_refused_by_its_field(given: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError, match=f"question, field {field}: expected"):
        read_question(given)


@pytest.mark.parametrize("proprio", [False, True])
@pytest.mark.parametrize("kind", [{"multi": True}, {"kind": "multi_step"}])
def test_a_session_goes_on_past_the_horizon_of_training(tmp_path: Path, kind: dict[str, Any], proprio: bool) -> None:
    """As far as the horizon a multi-step model is asked what training showed it; past it its window slides."""
    horizon, steps = 3, 7
    world = domain(tmp_path, horizon=horizon, proprio=proprio, **kind)
    row = row_of(world)
    scene = VideoScene(world, lambda seed, options: (row, {}), ())
    state, _ = scene.start(0, {})
    tail = world.encode(row).tail
    trained = list(world.encode(row).prompt)
    assert list(scene.script(state, row.action[0]).prompt) == trained
    actions = [*row.action[:horizon], *(np.float32([k - 5, 5 - k]) / 4 for k in range(horizon, steps))]
    frames, bins, felt = [*state.frames], [*state.bins], [*state.felt]
    for k, action in enumerate(actions):
        script = scene.script(state, action)
        bins += map(tuple, world.codec.actions.bins_of(action[None], "").tolist())
        kept = slice(-min(k + 1, horizon), None)
        assert script == world.layout.next_frame(frames[kept], bins[kept], felt[kept], state.context)
        if k < horizon:
            assert list(script.prompt) == trained
            parts, tail = tail[: len(script.tail) + 1], tail[len(script.tail) + 1 :]
            trained += [id for part in parts for id in (part.target if isinstance(part, Write) else part.ids)]
            written = [part.target for part in parts if isinstance(part, Write)]
        else:  # some tokens that are legal there
            written = [(part.allowed[k],) * part.max_tokens for part in script.tail]
        [outcome] = scene.follow([(state, action)], [written])
        assert not outcome.terminated
        state = outcome.state
        frames.append(written[0])
        felt += [tuple(id - world.layout.action_offset for id in one) for one in written[1:]]
        seen = scene.observe(state)
        if proprio:
            np.testing.assert_array_equal(seen["agent_pos"], world.codec.proprio.value_of(np.array(felt[-1:]))[0])
    assert len(state.frames) == horizon
    fresh = scene.start(0, {"window": 5})[0]
    assert (fresh.window, fresh.context) == (5, state.context)


@pytest.mark.parametrize(
    "kind",
    [{"context": 1, "horizon": 2}, {"context": 2, "horizon": 2, "proprio": True}, {"context": 1, "proprio": True}],
)
def test_a_clip_goes_on_from_what_was_written_for_the_one_before(tmp_path: Path, kind: dict[str, Any]) -> None:
    world = domain(tmp_path, kind="multi_step" if kind.get("horizon") else "single_step", **kind)
    given, horizon, episodes = world.layout.context, world.layout.horizon, square()
    long = Clips(episodes, (0,), Window(given, 2 * horizon))[0]
    first, second = world.clips(long)
    assert (*first.state.steps, *first.next_state.steps) == tuple(range(given + horizon))
    assert second.state.steps == tuple(range(horizon, horizon + given))
    assert (second.action == long.action[horizon : 2 * horizon + given]).all()

    other = world.clips(Clips(episodes, (1,), Window(given, 2 * horizon))[0])[0]
    written = [s.target for s in world.encode(other).tail if isinstance(s, Write) and s.target]
    carried = world.carried(first, written, second)
    prediction = world.decode(written, first)
    assert isinstance(prediction, Prediction)
    tokens = (*world._given(first), *prediction.tokens)[-given:]
    assert world._given(carried) == tokens != world._given(second)
    drawn = np.concatenate([as_bytes(world.cache.read(first.state)), as_bytes(prediction.frames)])[-given:]
    assert (carried.state.read() == drawn).all()
    assert (carried.next_state.read() == second.next_state.read()).all()
    true = [s.target for s in world.encode(second).tail if isinstance(s, Write)]
    assert [s.target for s in world.encode(carried).tail if isinstance(s, Write)] == true
    if world.codec.proprio:
        assert (carried.state.proprio()[-1] == prediction.proprio[-1]).all()
    assert world.carried(first, [()], second) is second  # nothing that reads was written
