from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from rlvr_world.domains.video import token_cache as tokens_module
from rlvr_world.domains.video.augmentation import Jittered, recolour
from rlvr_world.domains.video.episodes import Clip, FramesInMemory
from rlvr_world.domains.video.readers.npz import NpzEpisodes, write_npz
from rlvr_world.domains.video.reconstruction import measure_reconstruction
from rlvr_world.domains.video.splits import Clips, Window
from rlvr_world.domains.video.token_cache import TokenCache, read_frames, whole_clip
from rlvr_world.errors import InputError
from rlvr_world.vision.metrics import FrameMetrics
from tests.domains.video.worlds import Made, compressive_tokenizer, frame_tokenizer


def noise(size: tuple[int, int] = (16, 16)) -> Made:
    """Episodes of random frames."""
    rng, lengths = np.random.default_rng(0), (5, 6, 7)
    return Made([rng.integers(0, 256, (n, *size, 3), np.uint8) for n in lengths], [np.zeros((n, 2)) for n in lengths])


def test_frame_tokens_are_those_of_the_tokenizer(tmp_path: Path) -> None:
    episodes = noise()
    cache = TokenCache(frame_tokenizer(), (16, 16), tmp_path)
    cache.build(rows := Clips(episodes, (0, 2), Window(2, 1)))
    read = episodes.read
    for row in rows:
        context, frames = cache.lookup(whole_clip(row))
        clip = torch.cat([read_frames(row.state, (16, 16)), read_frames(row.next_state, (16, 16))])
        assert torch.equal(frames, cache.tokenizer.encode(clip).flatten(1))
        assert (context.shape, frames.shape) == ((0,), (3, 16))
    assert episodes.read - read == 3 * len(rows)  # only this test reads: tokens come from disk


def test_clip_tokens_are_those_of_the_compressive_tokenizer(tmp_path: Path) -> None:
    cache = TokenCache(compressive_tokenizer(), (16, 16), tmp_path)
    rows = Clips(noise(), (0, 1), Window(1, 2, context_back=3))
    cache.build(rows)
    assert len({row.state.steps[0] - row.state.steps[1] for row in rows}) > 1
    for row in rows:
        context, frames = cache.lookup(clip := whole_clip(row))
        expected = cache.tokenizer.encode(read_frames(clip, (16, 16))[None])
        assert torch.equal(context, expected[0][0])
        assert torch.equal(frames, expected[1][0])


@pytest.mark.parametrize("make", [frame_tokenizer, compressive_tokenizer])
def test_nothing_is_encoded_twice(tmp_path: Path, make: type) -> None:
    episodes = noise()
    rows = Clips(episodes, (0, 1, 2), Window(1, 2))
    TokenCache(make(), (16, 16), tmp_path).build(rows[:4])
    first = episodes.read
    again = noise()
    cache = TokenCache(make(), (16, 16), tmp_path)
    cache.build(Clips(again, (0, 1, 2), Window(1, 2)))
    twice = 0 if make is frame_tokenizer else 2  # of the episode that both read; a frame of several clips is read once
    assert first + again.read == sum(again.lengths) + twice
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("make", [frame_tokenizer, compressive_tokenizer])
def test_what_another_run_built_is_looked_up(tmp_path: Path, make: type) -> None:
    TokenCache(make(), (16, 16), tmp_path).build(Clips(noise(), (0,), Window(1, 2)))
    episodes = noise()
    cache = TokenCache(make(), (16, 16), tmp_path)
    for row in Clips(episodes, (0,), Window(1, 2)):
        cache.lookup(whole_clip(row))
    assert episodes.read == 0


def test_a_build_that_was_killed_goes_on(tmp_path: Path) -> None:
    rows = Clips(noise(), (0, 1), Window(1, 1))
    TokenCache(frame_tokenizer(), (16, 16), tmp_path).build(rows)
    whole = (file := next(tmp_path.iterdir())).read_bytes()
    file.write_bytes(whole[: len(whole) // 2 + 3])
    cache = TokenCache(frame_tokenizer(), (16, 16), tmp_path)
    cache.build(rows)
    assert file.read_bytes() == whole
    plain = TokenCache(frame_tokenizer(), (16, 16), tmp_path / "other")
    assert all(torch.equal(cache.lookup(whole_clip(r))[1], plain.lookup(whole_clip(r))[1]) for r in rows)
    assert not (tmp_path / "other").exists()  # looking up alone writes nothing


def test_another_tokenizer_size_or_data_set_has_a_file_of_its_own(tmp_path: Path) -> None:
    others = noise()
    others.name = "others"
    for cache, episodes in (
        (TokenCache(frame_tokenizer(), (16, 16), tmp_path), noise()),
        (TokenCache(frame_tokenizer(), (16, 16), tmp_path), others),
        (TokenCache(frame_tokenizer((8, 7)), (16, 16), tmp_path), noise()),
        (TokenCache(frame_tokenizer(), (12, 16), tmp_path), noise()),
        (TokenCache(frame_tokenizer(), (16, 16), tmp_path), Jittered(noise(), 1)),
    ):
        cache.build(Clips(episodes, (0,), Window(1, 1)))
    assert len(list(tmp_path.iterdir())) == 5


def test_replaced_pixels_are_not_trained_on_as_they_were(tmp_path: Path) -> None:
    rng, file = np.random.default_rng(0), tmp_path / "one_eps_00000000.npz"
    image, action = rng.integers(0, 256, (6, 16, 16, 3), np.uint8), np.zeros((6, 2), np.float32)
    found = []
    for change in (0, 0, 255):
        image[3] ^= change  # never the first frame
        write_npz(file, {"image": image, "action": action})
        episodes = NpzEpisodes(tmp_path)
        for read_from in (episodes, Jittered(episodes, 1)):
            cache = TokenCache(frame_tokenizer(), (16, 16), tmp_path / "tokens")
            cache.build(rows := Clips(read_from, (0,), Window(3, 3)))
            found.append(cache.lookup(whole_clip(rows[0]))[1])
            assert torch.equal(found[-1], cache.tokenizer.encode(read_frames(whole_clip(rows[0]), (16, 16))).flatten(1))
    assert len(list((tmp_path / "tokens").iterdir())) == 4  # written anew with the same bytes, it is the same
    assert not torch.equal(found[0], found[-2])


def test_large_codebooks_are_kept_whole(tmp_path: Path) -> None:
    cache = TokenCache(frame_tokenizer((9,) * 6), (16, 16), tmp_path)
    cache.build(rows := Clips(noise(), (0,), Window(1, 1)))
    _, frames = cache.lookup(whole_clip(rows[0]))
    assert frames.max() > 2**16
    assert torch.equal(frames, cache.tokenizer.encode(read_frames(whole_clip(rows[0]), (16, 16))).flatten(1))


@pytest.mark.parametrize("at_once", [1, 3, 1000])
def test_decoding_in_batches_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setitem(tokens_module.PIXELS, "cpu", at_once * 256)
    groups = [torch.randint(64, (n, 16)) for n in (1, 4, 2)]
    cache = TokenCache(tokenizer := frame_tokenizer(), (16, 16), tmp_path)
    for tokens, frames in zip(groups, cache.decode([], groups), strict=True):
        assert torch.allclose(frames, tokenizer.decode(tokens.view(-1, 4, 4)).clamp(0, 1), atol=1e-5)
    contexts = list(torch.randint(25, (3, 64)))
    groups = [torch.randint(64, (n, 4)) for n in (1, 4, 2)]
    cache = TokenCache(compressive := compressive_tokenizer(), (16, 16), tmp_path)
    for context, tokens, frames in zip(contexts, groups, cache.decode(contexts, groups), strict=True):
        expected = compressive.decode(context[None], tokens[None])[0, 1:].clamp(0, 1)
        assert torch.allclose(frames, expected, atol=1e-5)


def test_frames_are_read_at_one_size() -> None:
    clip = Clip(noise((32, 48)), 1, (0, 3))
    plain = torch.from_numpy(clip.read()).permute(0, 3, 1, 2) / 255
    assert torch.equal(read_frames(clip, (32, 48)), plain)
    assert torch.allclose(read_frames(clip, (16, 24)).mean((2, 3)), F.avg_pool2d(plain, 2).mean((2, 3)), atol=0.02)
    with pytest.raises(InputError, match="multiples of 4"):
        TokenCache(frame_tokenizer(), (30, 30), Path())


@pytest.mark.parametrize("fit", ["letterbox", "crop", "squash"])
def test_a_line_of_pixels_is_fitted_too(fit: str) -> None:
    line = FramesInMemory(np.full((1, 1, 200, 3), 255, np.uint8)).clip
    assert tuple(read_frames(line, (64, 16), fit).shape) == (1, 3, 64, 16)


def test_the_first_episode_may_be_faulty(tmp_path: Path) -> None:
    """Its name and bytes tell the data set from others; it need not decode."""
    episodes = stored(tmp_path)
    episodes.files[0].write_bytes(b"damaged")
    cache = TokenCache(frame_tokenizer(), (16, 16), tmp_path / "tokens")
    cache.build(Clips(episodes, (1, 2), Window(1, 1)))
    assert len(list((tmp_path / "tokens").iterdir())) == 1


@pytest.mark.parametrize(("fit", "above", "white"), [("letterbox", 0.0, 12), ("crop", 1.0, 24)])
def test_frames_of_another_shape_are_fitted(fit: str, above: float, white: int) -> None:
    """16 rows of 32 columns, grey at the sides and white in the middle, brought to a square."""
    image = np.full((1, 16, 32, 3), 255, np.uint8)
    image[:, :, :10] = image[:, :, 22:] = 128
    wide = read_frames(FramesInMemory(image).clip, (32, 32), fit)[0, 0]
    tall = read_frames(FramesInMemory(image.swapaxes(1, 2)).clip, (32, 32), fit)[0, 0]
    torch.testing.assert_close(tall, wide.T)
    assert wide[1, 16].item() == pytest.approx(above)
    assert wide[16, 1].item() == pytest.approx(128 / 255)
    assert (wide[16] > 0.75).sum().item() == pytest.approx(white, abs=1), "a crop doubles the scale"
    assert tuple(read_frames(FramesInMemory(image).clip, (16, 32), fit).shape) == (1, 3, 16, 32)


def test_jitter_is_one_draw_an_episode() -> None:
    episodes = noise()
    jittered = Jittered(episodes, 1)
    one, other = jittered.frames(0, (0, 1)), jittered.frames(0, (1,))
    assert np.array_equal(one[1:], other)
    assert not np.array_equal(other, Jittered(episodes, 2).frames(0, (1,)))
    assert 0 < np.abs(one.astype(int) - episodes.frames(0, (0, 1)).astype(int)).mean() < 30
    assert (jittered.ids, jittered.lengths) == (episodes.ids, episodes.lengths)


def test_recolour_by_hand() -> None:
    grey = torch.full((1, 2, 2, 3), 0.5)
    red = torch.tensor([1.0, 0, 0]).expand(1, 2, 2, 3)
    assert torch.allclose(recolour(red, 1, 1, 1, 0), red, atol=1e-3)
    assert torch.allclose(recolour(grey, 1.1, 0.9, 0.9, 0.05), grey * 1.1, atol=1e-3)  # contrast and hue see no grey
    assert torch.allclose(recolour(red, 1, 1, 0, 0), torch.full((1, 2, 2, 3), 0.299), atol=1e-3)
    faint = 0.4 + 0.2 * red
    turned = recolour(faint, 1, 1, 1, 1 / 3)[0, 0, 0]
    assert turned.argmax() == 1  # a third of the circle: red to green
    halves = torch.stack([torch.zeros(2, 3), torch.ones(2, 3)])[None]
    assert torch.allclose(recolour(halves, 1, 0.9, 1, 0)[0, :, 0, 0], torch.tensor([0.05, 0.95]), atol=1e-3)


def stored(folder: Path) -> NpzEpisodes:
    rng = np.random.default_rng(0)
    for number in range(3):
        arrays = {"image": rng.integers(0, 256, (6, 16, 16, 3), np.uint8), "action": np.zeros((6, 2), np.float32)}
        write_npz(folder / f"one_eps_{number:08d}.npz", arrays)
    return NpzEpisodes(folder)


@pytest.mark.parametrize("make", [frame_tokenizer, compressive_tokenizer])
def test_what_is_looked_up_may_be_kept_and_is_seen_by_others(
    tmp_path: Path, make: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    episodes = stored(tmp_path)
    plain, one, other = (TokenCache(make(), (16, 16), tmp_path / "tokens") for _ in range(3))
    first, second, *_ = map(whole_clip, Clips(episodes, (0, 1), Window(1, 2)))
    expected = [plain.lookup(clip) for clip in (first, second)]
    assert not (tmp_path / "tokens").exists()
    one.keeps = other.keeps = True
    other.lookup(first)
    one.lookup(second)
    assert len(list((tmp_path / "tokens").iterdir())) == 1
    with monkeypatch.context() as patch:
        patch.setattr(TokenCache, "encode", lambda *_: pytest.fail("encoded twice"))
        found = [other.lookup(clip) for clip in (first, second)]
    for (context, frames), (their_context, their_frames) in zip(found, expected, strict=True):
        assert torch.equal(context, their_context)
        assert torch.equal(frames, their_frames)


def test_processes_share_the_episodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = TokenCache(frame_tokenizer(), (16, 16), tmp_path / "whole")
    whole.build(rows := Clips(noise(), (0, 1, 2), Window(1, 1)))
    monkeypatch.setattr(tokens_module.ranks, "size", lambda: 2)
    monkeypatch.setattr(tokens_module.ranks, "everyone", lambda value: [value, value])
    caches = [TokenCache(frame_tokenizer(), (16, 16), tmp_path / "shared") for _ in range(2)]
    read = []
    for number, cache in enumerate(caches):
        monkeypatch.setattr(tokens_module.ranks, "rank", lambda number=number: number)
        cache.build(Clips(episodes := noise(), (0, 1, 2), Window(1, 1)))
        read.append(episodes.read)
    assert read == [5 + 7, 6]
    for row in rows:
        assert torch.equal(caches[0].lookup(whole_clip(row))[1], whole.lookup(whole_clip(row))[1])


@pytest.mark.parametrize("make", [frame_tokenizer, compressive_tokenizer])
def test_bfloat16_shows_nearly_the_same_and_says_which_tokens_change(
    tmp_path: Path, make: type, capsys: pytest.CaptureFixture[str]
) -> None:
    exact, quick = (TokenCache(make(), (16, 16), tmp_path) for _ in range(2))
    quick.encodes = quick.decodes = torch.bfloat16
    rows = Clips(noise(), (0, 1, 2), Window(1, 2))
    for cache in (exact, quick):
        cache.build(rows)
    assert len(list(tmp_path.iterdir())) == 2, "tokens of each in a file of their own"
    contexts, tokens = zip(*(exact.lookup(whole_clip(row)) for row in rows), strict=True)
    others = [torch.cat([part.flatten() for part in quick.lookup(whole_clip(row))]) for row in rows]
    known = [torch.cat([context, of.flatten()]) for context, of in zip(contexts, tokens, strict=True)]
    changed = (torch.stack(others) != torch.stack(known)).float().mean().item()
    assert 0 < changed < 0.2
    _, told = measure_reconstruction(quick, FrameMetrics(None), rows)
    assert told["changed"] == pytest.approx(changed)
    assert f"{changed:.2%} of the tokens are others" in capsys.readouterr().err
    assert "changed" not in measure_reconstruction(exact, FrameMetrics(None), rows)[1]
    one, two = (torch.cat(cache.decode(contexts, tokens)) for cache in (exact, quick))
    assert one.dtype == two.dtype == torch.float32
    assert 0 < (one - two).abs().mean() < 0.005
