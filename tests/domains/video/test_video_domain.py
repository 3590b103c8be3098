from __future__ import annotations

import io
import math
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rlvr_world.domains.video.actions import ActionBins
from rlvr_world.domains.video.config import RewardConfig
from rlvr_world.domains.video.domain import Prediction, VideoDomain
from rlvr_world.domains.video.episodes import FramesInMemory
from rlvr_world.domains.video.layout import frames_of
from rlvr_world.domains.video.splits import Clips, Window
from rlvr_world.domains.video.token_cache import images_of, read_frames, whole_clip
from rlvr_world.errors import InputError
from rlvr_world.types import BatchDomain, Malformed, Picture, Transition, Write
from rlvr_world.vision.lpips import LPIPS
from rlvr_world.vision.metrics import pixel_metrics
from tests.domains.video.worlds import Made, video_domain

SIZE = (32, 32)


def noise(felt: bool = True) -> Made:
    """Episodes of random frames of 32x32, with two actions and one field of proprioception."""
    rngs = map(np.random.default_rng, range(2))
    videos = [rng.integers(0, 256, (6, 8, 8, 3), np.uint8).repeat(4, 1).repeat(4, 2) for rng in rngs]
    return Made(videos, [np.linspace([-1, 0], [1, 1], 6)] * 2, [np.linspace([0], [100], 6)] * 2 if felt else ())


def domain(
    folder: Path,
    multi: bool = False,
    proprio: bool = False,
    config: RewardConfig = RewardConfig(),  # noqa: B008 (frozen)
    horizon: int = 1,
    skip_blocks: bool = False,
) -> VideoDomain:
    ranges = ActionBins((-1.0, 0.0), (1.0, 1.0), 16), ActionBins((0.0,), (100.0,), 16) if proprio else None
    sizes = {"context": 1 if multi else 2, "horizon": horizon}
    return video_domain(folder, ranges, config, multi, LPIPS("alex"), skip_blocks, large=True, **sizes)


def clips(world: VideoDomain) -> Clips:
    layout = world.layout
    back = 2 if layout.context_tokens else None
    return Clips(noise(), (0, 1), Window(layout.context, layout.horizon, context_back=back))


def truth_of(world: VideoDomain, row: Transition) -> list[tuple[int, ...]]:
    """What a perfect model writes."""
    return [s.target for s in world.encode(row).tail if isinstance(s, Write) and s.target]


KINDS = pytest.mark.parametrize(
    "kind",
    [{}, {"multi": True, "horizon": 3}, {"horizon": 2}, {"proprio": True, "config": RewardConfig(proprio_mse=1)}],
)


@KINDS
def test_the_perfect_model_is_the_round_trip(tmp_path: Path, kind: dict[str, Any]) -> None:
    world = domain(tmp_path, **kind)
    row = clips(world)[1]
    prediction = world.decode(truth_of(world, row), row)
    assert isinstance(prediction, Prediction)
    trip = world.baselines(row)["tokenizer round trip"]
    assert prediction.tokens == trip.tokens
    assert torch.allclose(prediction.frames, trip.frames, atol=1e-5)
    score = world.score(prediction, row)
    truth = read_frames(row.next_state, SIZE)
    for name, by_hand in pixel_metrics(prediction.frames, truth).items():
        assert score.parts[name] == pytest.approx(by_hand.mean().item(), rel=1e-4)
    assert world.metrics.lpips is not None
    lpips = world.metrics.lpips(prediction.frames, truth).mean().item()
    assert score.parts["lpips"] == pytest.approx(lpips, rel=1e-3)
    assert score.value == pytest.approx(-score.parts["mae"] - lpips - score.parts.get("proprio_mse", 0), rel=1e-3)
    assert score.parts.get("proprio_mse", 0) <= (0.5 / 16) ** 2
    assert not score.malformed


@KINDS
def test_batches_score_as_one_by_one_and_do_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: dict[str, Any]
) -> None:
    world = domain(tmp_path, **kind)
    rows = list(clips(world))[:3]
    written = [truth_of(world, row) for row in rows]
    first = [[tuple(reversed(ids)) for ids in written[0]], written[0], [(64,)], written[0]]
    groups = [first, [written[1]], [written[0], written[2]]]
    alone = [[world.decode(w, row) for w in group] for group, row in zip(groups, rows, strict=True)]
    decoded: list[int] = []
    seen: list[int] = []
    decode, features = world.cache.decode, LPIPS.features
    monkeypatch.setattr(world.cache, "decode", lambda c, g: decoded.extend(map(len, g)) or decode(c, g))
    monkeypatch.setattr(LPIPS, "features", lambda self, frames: seen.append(len(frames)) or features(self, frames))
    together = world.decode_groups(groups, rows)
    scores = world.score_groups(together, rows)
    horizon = world.layout.horizon
    assert decoded == [
        len({z for p in group if isinstance(p, Prediction) for z in p.tokens}) for group in together
    ]  # every different frame once
    assert sum(seen) == horizon * (3 + 2 + 1 + 2)  # the truth once a group, and every different prediction
    for group, expected, group_scores, row in zip(together, alone, scores, rows, strict=True):
        for one, other, score in zip(group, expected, group_scores, strict=True):
            if isinstance(one, Malformed):
                assert one == other
                assert score == world.score(other, row)
            else:
                assert isinstance(other, Prediction)
                assert torch.allclose(one.frames, other.frames, atol=1e-5)
                single = world.score(other, row)
                assert score.value == pytest.approx(single.value, rel=1e-4)
                assert dict(score.parts) == pytest.approx(dict(single.parts), rel=1e-3)


def test_among_others_it_pays_to_be_as_spread_as_the_truth_is(tmp_path: Path) -> None:
    """Of two pictures one comes with probability 0.3: a model gains by writing it more where it writes it less."""
    world = domain(tmp_path, config=RewardConfig(lpips=0, mae=0, mse=1, proper=True))
    plain = domain(tmp_path, config=RewardConfig(lpips=0, mae=0, mse=1))
    row, *others = list(clips(world))[:3]
    seen = [world.decode(truth_of(world, one), row) for one in others]

    def pull(share: float) -> float:
        """Over truths and groups of four, how much better than its group one does that writes the first picture."""
        total = 0.0
        for true, chance in enumerate((0.3, 0.7)):
            came = replace(row, next_state=FramesInMemory(images_of(seen[true].frames)).clip)
            for written in product((0, 1), repeat=4):
                group = [seen[one] for one in written]
                likely = math.prod((share, 1 - share)[one] for one in written)
                values = [one.value for one in world.among(group, world.score_groups([group], [came])[0], came)]
                better = sum(v - np.mean(values) for v, one in zip(values, written, strict=True) if one == 0)
                total += chance * likely * better
        return total

    assert pull(0.1) > 0.02
    assert abs(pull(0.3)) < 1e-3, "as often as it comes"
    assert pull(0.6) < -0.02
    group = [seen[0], Malformed("none"), seen[1], seen[0]]
    scores = world.score_groups([group], [row])[0]
    far = (seen[0].frames - seen[1].frames).square().mean().item() ** 0.5
    gained = [
        one.value + math.sqrt(-two.value) if one is not two else 0
        for one, two in zip(world.among(group, scores, row), scores, strict=True)
    ]
    assert gained == pytest.approx([far, 0, 2 * far, far], rel=1e-4)
    assert plain.among(group, scores, row) == scores


def test_repetition_is_of_the_last_pair_and_of_all_pairs(tmp_path: Path) -> None:
    world = domain(tmp_path, multi=True, horizon=3, config=RewardConfig(lpips=0, mae=0, repetition=1))
    row = clips(world)[2]
    _, frames = world.cache.lookup(whole_clip(row))
    given, (a, b, _) = tuple(frames[0].tolist()), truth_of(world, row)
    assert len({given, a, b}) == 3
    for tokens, last, share in (
        ((a, b, b), 1, 1 / 3),
        ((a, a, b), 0, 1 / 3),
        ((given, given, a), 0, 2 / 3),
        ((a, given, a), 0, 0),
        ((given, given, given), 1, 1),
    ):
        score = world.score(world.decode(tokens, row), row)
        assert (score.parts["repetition"], score.parts["repetition_all"]) == pytest.approx((last, share))
        assert score.value == pytest.approx(-share)


def test_repetition_of_a_single_step_is_copying_the_last_context_frame(tmp_path: Path) -> None:
    world = domain(tmp_path)
    row = clips(world)[0]
    _, frames = world.cache.lookup(whole_clip(row))
    for tokens, repeats in ((frames[0], 0), (frames[1], 1), (frames[2], 0)):
        parts = world.score(world.decode([tuple(tokens.tolist())], row), row).parts
        assert (parts["repetition"], parts["repetition_all"]) == (repeats, repeats)


@pytest.mark.parametrize("kind", [{"proprio": True}, {"multi": True, "horizon": 3}])
def test_copying_baseline_is_what_was_seen(tmp_path: Path, kind: dict[str, Any]) -> None:
    world = domain(tmp_path, **kind)
    row = clips(world)[1]
    copied = world.baselines(row)["copy last frame"]
    last = read_frames(replace(row.state, steps=row.state.steps[-1:]), SIZE)
    assert torch.equal(copied.frames, last.expand(world.layout.horizon, -1, -1, -1))
    parts = world.score(copied, row).parts
    assert parts["repetition"] == parts["repetition_all"] == 1
    assert parts["mae"] == pytest.approx((read_frames(row.next_state, SIZE) - last).abs().mean().item(), rel=1e-5)
    if kind.get("proprio"):
        assert parts["proprio_mse"] == pytest.approx(0.2**2, rel=1e-5)


@pytest.mark.parametrize("kind", [{"horizon": 2}, {"multi": True, "horizon": 2}])
def test_skipped_blocks_keep_the_pixels_of_the_frame_before(tmp_path: Path, kind: dict[str, Any]) -> None:
    world, plain = (domain(tmp_path, skip_blocks=skip, **kind) for skip in (True, False))
    row = clips(world)[1]
    given = world._given(row)[-1]
    changed = ((given[0] + 1) % 64, *given[1:])
    seen, other = [list(given), list(given)], [list(changed), list(changed)]
    last = read_frames(replace(row.state, steps=row.state.steps[-1:]), SIZE)[0]

    copied = world.decode(seen, row)
    assert isinstance(copied, Prediction)
    assert torch.equal(copied.frames, last.expand(2, -1, -1, -1))

    one, decoded = world.decode(other, row), plain.decode(other, row)
    assert isinstance(one, Prediction)
    assert isinstance(decoded, Prediction)
    height, width = (n // g for n, g in zip(SIZE, world.cache.grid, strict=True))
    expected = last.clone()
    expected[:, :height, :width] = decoded.frames[0, :, :height, :width]
    assert not torch.equal(expected, last)
    for frame in one.frames:  # the second one says nothing new
        assert torch.equal(frame, expected)
    assert world.score(one, row).parts["mse"] != plain.score(decoded, row).parts["mse"]

    back, again = (w.decode([list(changed), list(given)], row) for w in (world, plain))
    assert isinstance(back, Prediction)
    assert isinstance(again, Prediction)
    expected[:, :height, :width] = again.frames[1, :, :height, :width]  # back to what was seen, drawn anew
    assert torch.equal(back.frames[1], expected)
    true = frames_of(world.cache.lookup(whole_clip(row))[1][world.layout.context :])
    trip, perfect = world.baselines(row)["tokenizer round trip"], world.decode([list(z) for z in true], row)
    assert isinstance(perfect, Prediction)
    assert torch.allclose(trip.frames, perfect.frames, atol=1e-5)


def test_reward_against_the_round_trip_leaves_the_parts_as_they_are(tmp_path: Path) -> None:
    plain = domain(tmp_path, multi=True, horizon=2)
    trip = domain(tmp_path, multi=True, horizon=2, config=RewardConfig(target="round_trip"))
    row = clips(plain)[1]
    perfect = plain.decode(truth_of(plain, row), row)
    assert dict(trip.score(perfect, row).parts) == pytest.approx(dict(plain.score(perfect, row).parts))
    assert trip.score(perfect, row).value == pytest.approx(0, abs=1e-5)
    assert plain.score(perfect, row).value < -0.01
    wrong = plain.baselines(row)["copy last frame"]
    assert trip.score(wrong, row).value < -0.01


def test_malformed_is_the_worst_score_with_all_parts(tmp_path: Path) -> None:
    world = domain(tmp_path, proprio=True, config=RewardConfig(proprio_mse=1, repetition=1))
    row = clips(world)[0]
    malformed = world.decode([(64,)], row)
    assert isinstance(malformed, Malformed)
    worst, good = world.score(malformed, row), world.score(world.baselines(row)["tokenizer round trip"], row)
    assert worst.malformed == malformed.reason
    assert worst.parts.keys() == good.parts.keys()
    assert worst.value == -4 < good.value
    assert malformed.reason in str(world.explain(malformed, row))


def test_explain_shows_truth_prediction_and_error(tmp_path: Path) -> None:
    for kind, size, frames in (({}, (3 * 128 + 4, 128), 1), ({"multi": True, "horizon": 2}, (3 * 128, 128), 2)):
        world = domain(tmp_path, **kind)
        row = clips(world)[0]
        picture = world.explain(world.baselines(row)["copy last frame"], row)
        assert isinstance(picture, Picture)
        shown = Image.open(io.BytesIO(picture.data))
        assert (shown.size, getattr(shown, "n_frames", 1)) == (size, frames)


def test_it_is_a_batch_domain_and_knows_its_errors(tmp_path: Path) -> None:
    world = domain(tmp_path)
    assert isinstance(world, BatchDomain)
    row = clips(world)[0]
    parts = world.score(world.baselines(row)["copy last frame"], row).parts
    assert parts.keys() - world.lower_is_better == {"psnr", "ssim"}


def test_parts_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    world = domain(tmp_path)
    parts = (world.cache, world.metrics, world.config)
    for codec, why in (
        (replace(world.codec, layout=replace(world.layout, visual=4375)), "64 .* vocabulary has 4375"),
        (replace(world.codec, tokenizer="0123"), "trained with 0123"),
        (replace(world.codec, size=(64, 64)), "at 32x32 pixels it gives 16 tokens .* 16 and 0 at 64x64"),
    ):
        with pytest.raises(InputError, match=why):
            VideoDomain(codec, *parts)
    with pytest.raises(InputError, match=r"reward\.proprio_mse"):
        domain(tmp_path, config=RewardConfig(proprio_mse=1))


def test_bad_rows_are_named(tmp_path: Path) -> None:
    world = domain(tmp_path, proprio=True)
    row = clips(world)[0]
    with pytest.raises(InputError, match=r"row made/a:0: actions: expected \[steps, 2\] numbers"):
        world.encode(replace(row, action=row.action[:, :1]))
    blind = Clips(noise(felt=False), (0,), Window(2, 1))[0]
    with pytest.raises(InputError, match=r"row made/a:0: proprioception: .* the data set made has none"):
        world.encode(blind)
