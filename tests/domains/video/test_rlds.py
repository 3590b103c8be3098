"""The converter, on tiny sets in the layout that tensorflow_datasets writes: TFRecord files of tf.train.Example."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rlvr_world import cli
from rlvr_world.domains.video.readers import open_episodes
from rlvr_world.domains.video.rlds import _varint, convert, interleaved
from rlvr_world.errors import InputError
from tests.recipes.published_layout import rlds

RT1 = "fractal20220817_data"
Change = Callable[[dict[str, Any]], dict[str, Any]]


def png(value: int, size: tuple[int, int] = (16, 20)) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def episode(number: int) -> dict[str, Any]:
    """An episode as RT-1 has it: the action is a dictionary of floats and integers."""
    T = 3 + number
    action = {
        "world_vector": [10, 11, 12],
        "terminate_episode": [0, -1, 0],
        "rotation_delta": [4, 5, 6],
        "gripper_closedness_action": [7],
        "base_displacement_vertical_rotation": [2],
        "base_displacement_vector": [0, 0.5],
    }
    types = {"terminate_episode": np.int64}
    return {
        "steps/observation/image": [png(10 * number + t) for t in range(T)],
        "steps/observation/natural_language_instruction": [b"open middle drawer"] * T,
        "steps/is_first": np.arange(T) == 0,
        "steps/reward": np.zeros(T, np.float32),
        **{f"steps/action/{key}": np.array(row * T, types.get(key, np.float32)) for key, row in action.items()},
    }


def write(folder: Path, name: str = RT1, version: str = "0.1.0", change: Change = dict) -> Path:
    splits = {"train": [[episode(0)], [], [episode(1), episode(2)]], "val": [[episode(5)]]}
    changed = {split: [[change(each) for each in file] for file in files] for split, files in splits.items()}
    return rlds(folder, name, version, changed)


@pytest.mark.parametrize("workers", [1, 2])
def test_rt1_becomes_the_published_layout(tmp_path: Path, workers: int) -> None:
    write(tmp_path, version="0.1.0", change=lambda each: {})
    write(tmp_path, version="0.2.0")
    assert convert(str(tmp_path), RT1, tmp_path / "out", workers=workers) == (4, 0), "the highest version is taken"
    episodes = open_episodes("npz", tmp_path / "out" / RT1)
    assert episodes.ids == ["train_eps_00000000", "train_eps_00000001", "train_eps_00000002", "val_eps_00000000"]
    assert episodes.lengths == [3, 4, 5, 8]
    assert episodes.frames(1, [2]).shape == (1, 16, 20, 3)
    assert episodes.frames(1, [0, 2])[:, 0, 0, 0].tolist() == [10, 12]
    assert episodes.actions(1)[2].tolist() == [0, 0.5, 2, 7, 4, 5, 6, 0, -1, 0, 10, 11, 12]
    assert str(np.load(episodes.files[1])["instruction"]) == "open middle drawer"


def test_it_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    folder, out = write(tmp_path), tmp_path / "out"
    assert convert(str(tmp_path), RT1, out, 2, workers=1) == (2, 0)
    kept = out / RT1 / "train_eps_00000001.npz"
    before = kept.stat().st_mtime_ns
    assert convert(str(tmp_path), RT1, out, 3, workers=1) == (1, 0)
    for file in folder.glob("*-train.tfrecord-*"):
        file.write_bytes(b"")  # what has been read is not looked at again
    assert convert(str(tmp_path), RT1, out, workers=1) == (1, 0)
    assert kept.stat().st_mtime_ns == before


def test_a_download_of_a_part_keeps_its_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    next(write(tmp_path).glob("*-train.tfrecord-00000-of-00003")).unlink()
    assert cli.main(["convert", str(tmp_path), RT1, str(tmp_path / "out"), "--workers", "1"]) == 0
    assert capsys.readouterr().out.endswith("3 new episodes; 1 lie in files that are not there\n")
    names = [file.stem for file in sorted((tmp_path / "out" / RT1).iterdir())]
    assert names == ["train_eps_00000001", "train_eps_00000002", "val_eps_00000000"]


LENGTHS = [20, 5, 40, 17, 33, 1, 16, 32, 9, 25, 0, 18, 7, 31, 12, 28, 21, 3, 19, 35]
GIVEN = [
    *[(0, 16), (1, 5), (2, 16), (3, 16), (4, 16), (5, 1), (6, 16), (7, 16), (8, 9), (9, 16), (11, 16), (12, 7)],
    *[(13, 16), (14, 12), (15, 16), (16, 16), (0, 4), (17, 3), (2, 16), (3, 1), (4, 16), (18, 16), (7, 16)],
    *[(19, 16), (9, 9), (11, 2), (13, 15), (15, 12), (16, 5), (2, 8), (4, 1), (18, 3), (19, 19)],
]
"""File, and how many episodes of it come next: what tensorflow_datasets 4.9.10 gave of files so long."""


def test_episodes_are_numbered_as_tensorflow_datasets_gives_them() -> None:
    order = interleaved(LENGTHS)
    runs = [(file, len(list(some))) for file, some in groupby(order, key=lambda each: each[0])]
    assert runs == GIVEN
    for file, length in enumerate(LENGTHS):
        assert [place for number, place in order if number == file] == list(range(length))
    whole = interleaved([16] * 40)
    assert sorted(whole) == [(file, place) for file in range(40) for place in range(16)]


def test_which_picture(tmp_path: Path) -> None:
    def two(each: dict[str, Any]) -> dict[str, Any]:
        pictures = each.pop("steps/observation/image")
        return {**each, "steps/observation/rgb": pictures, "steps/observation/wrist": [png(100)] * len(pictures)}

    write(tmp_path, "language_table", "0.0.1", two)
    with pytest.raises(InputError, match=r"0\.0\.1.*episode 0: .*observation/image, found rgb, wrist; see --camera"):
        convert(str(tmp_path), "language_table", tmp_path / "out", workers=1)
    assert convert(str(tmp_path), "language_table", tmp_path / "out", 1, "wrist", 1) == (1, 0)
    assert open_episodes("npz", tmp_path / "out" / "language_table-wrist").frames(0, [0])[0, 0, 0, 0] == 100
    write(tmp_path, "bridge", change=lambda each: {key: of for key, of in two(each).items() if "wrist" not in key})
    assert convert(str(tmp_path), "bridge", tmp_path / "out", 1, workers=1) == (1, 0)


def test_plain_actions_are_taken_as_they_are(tmp_path: Path) -> None:
    def plain(each: dict[str, Any]) -> dict[str, Any]:
        kept = {key: value for key, value in each.items() if "action" not in key}
        return {**kept, "steps/action": np.array([1, 2] * len(each["steps/reward"]), np.float32)}

    write(tmp_path, "bridge", change=plain)
    convert(str(tmp_path), "bridge", tmp_path / "out", 1, workers=1)
    assert open_episodes("npz", tmp_path / "out" / "bridge").actions(0).tolist() == [[1, 2]] * 3


WRONG: dict[str, tuple[Change, str]] = {
    "no action": (
        lambda each: {key: value for key, value in each.items() if "action" not in key},
        "3 frames and only steps/is_first, steps/observation/image",
    ),
    "width": (
        lambda each: {**each, "steps/action/world_vector": np.zeros(7, np.float32)},
        "got 3 frames and .*world_vector of 7",
    ),
    "sizes": (
        lambda each: {**each, "steps/observation/image": [png(1), png(1), png(1, (8, 8))]},
        "expected frames of one size",
    ),
    "picture": (
        lambda each: {**each, "steps/observation/image": [png(1), png(2)[:60], png(3)]},
        "the image does not decode",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_episodes_are_named(tmp_path: Path, wrong: str) -> None:
    change, told = WRONG[wrong]
    write(tmp_path, "bridge", change=change)
    with pytest.raises(InputError, match=rf"bridge-train\.tfrecord-00000-of-00003, episode 0.*{told}"):
        convert(str(tmp_path), "bridge", tmp_path / "out", 1, workers=1)
    assert not list((tmp_path / "out" / "bridge").iterdir())


def test_wrong_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="absent: expected <version>/dataset_info"):
        convert(str(tmp_path), "absent", tmp_path / "out")
    folder = write(tmp_path)
    file = next(folder.glob("*-train.tfrecord-00002-of-00003"))
    whole = file.read_bytes()
    for bad, told in ((whole[:-50], "episode 1: expected a whole record"), (b"\x0f" * len(whole), "whole record")):
        file.write_bytes(bad)
        with pytest.raises(InputError, match=told):
            convert(str(tmp_path), RT1, tmp_path / "out", workers=1)
    file.write_bytes(whole[:12] + b"\x0f" * (len(whole) - 12))
    with pytest.raises(InputError, match=r"episode 0: not a tf\.train\.Example"):
        convert(str(tmp_path), RT1, tmp_path / "other", workers=1)
    (folder / "dataset_info.json").write_text(json.dumps({"name": RT1}))
    with pytest.raises(InputError, match="expected name, splits and their shardLengths"):
        convert(str(tmp_path), RT1, tmp_path / "out")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nope://x", "set", "out"], "expected a folder or a gs:// bucket"),
        (["here", "set", "out", "--workers", "-1"], "--workers: expected at least 0"),
        (["here", "set", "out", "--max-episodes", "-1"], "--max_episodes: expected at least 0"),
    ],
)
def test_what_cannot_be_converted_is_one_sentence(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["convert", *words]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("said", ['{"name": ', '{"name": "a", "splits": [{"name": "../x", "shardLengths": ["1"]}]}'])
def test_a_description_that_is_none_is_one_sentence(tmp_path: Path, said: str) -> None:
    """Cut off, or with a split whose episodes would be written elsewhere."""
    folder = tmp_path / "set" / "1.0.0"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text(said)
    with pytest.raises(InputError, match="expected name, splits and their shardLengths"):
        convert(str(tmp_path), "set", tmp_path / "out", 0)


def test_a_number_has_ten_bytes_at_most() -> None:
    """Without a bound a file of such bytes is read for hours: each makes the number longer."""
    assert _varint(memoryview(b"\xac\x02"), 0) == (300, 2)
    assert _varint(memoryview(b"\xff" * 9 + b"\x01"), 0) == (2**64 - 1, 10)
    with pytest.raises(ValueError, match="more than 64 bits"):
        _varint(memoryview(b"\xff" * 10 + b"\x01"), 0)
