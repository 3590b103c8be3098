"""The converter, on a stand-in for tensorflow_datasets that yields what RT-1's episodes look like."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rlvr_world.domains.video.readers import open_episodes
from rlvr_world.domains.video.rlds import convert
from rlvr_world.errors import InputError


def step(episode: int, number: int) -> dict[str, Any]:
    """A step as RT-1 has it: the action is a dictionary of floats and integers."""
    action = {
        "world_vector": np.array([10, 11, 12], np.float32),
        "terminate_episode": np.array([0, 1, 0], np.int32),
        "rotation_delta": np.array([4, 5, 6], np.float32),
        "gripper_closedness_action": np.array([number], np.float32),
        "base_displacement_vertical_rotation": np.array([2], np.float32),
        "base_displacement_vector": np.array([0, 0.5], np.float32),
    }
    picture = np.full((16, 20, 3), 10 * episode + number, np.uint8)
    observation = {"image": picture, "rgb": picture + 100, "natural_language_instruction": b"open middle drawer"}
    return {"observation": observation, "action": action, "is_first": number == 0, "reward": np.float32(0)}


class Builder:
    """Two splits of episodes, each with a nested data set of steps; counts the episodes whose steps are read."""

    def __init__(self, change: Any) -> None:
        self.info = SimpleNamespace(splits={"val": None, "train": None})
        self.read: list[int] = []
        self.change = change

    def as_dataset(self, split: str) -> Iterator[dict[str, Any]]:
        for episode in {"train": (0, 1, 2), "val": (5,)}[split]:
            yield {"steps": self.steps(episode), "episode_metadata": {}}

    def steps(self, episode: int) -> Iterator[dict[str, Any]]:
        self.read.append(episode)
        for number in range(3 + episode):
            yield self.change(step(episode, number))


@pytest.fixture
def tfds(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    state = SimpleNamespace(folders=[], builder=None, change=lambda each: each)

    def builder_from_directory(builder_dir: str) -> Builder:
        if "absent" in builder_dir:
            raise FileNotFoundError(builder_dir)
        state.folders.append(builder_dir)
        state.builder = Builder(state.change)
        return state.builder

    module = ModuleType("tensorflow_datasets")
    module.builder_from_directory = builder_from_directory  # type: ignore[attr-defined]
    module.as_numpy = lambda dataset: dataset  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", module)
    return state


def test_rt1_becomes_the_published_layout(tfds: SimpleNamespace, tmp_path: Path) -> None:
    assert convert("gs://data", "fractal20220817_data", tmp_path) == 4
    assert tfds.folders == ["gs://data/fractal20220817_data/0.1.0"]
    episodes = open_episodes("npz", tmp_path / "fractal20220817_data")
    assert episodes.ids == ["train_eps_00000000", "train_eps_00000001", "train_eps_00000002", "val_eps_00000000"]
    assert episodes.lengths == [3, 4, 5, 8]
    assert episodes.frames(1, [2]).shape == (1, 16, 20, 3)
    assert episodes.frames(1, [0, 2])[:, 0, 0, 0].tolist() == [10, 12]
    assert episodes.actions(1)[2].tolist() == [0, 0.5, 2, 2, 4, 5, 6, 0, 1, 0, 10, 11, 12]


def test_it_goes_on_where_it_was_stopped(tfds: SimpleNamespace, tmp_path: Path) -> None:
    assert convert("data", "fractal20220817_data", tmp_path, max_episodes=2) == 2
    assert tfds.builder.read == [0, 1]
    kept = tmp_path / "fractal20220817_data" / "train_eps_00000001.npz"
    before = kept.stat().st_mtime_ns
    assert convert("data", "fractal20220817_data", tmp_path, max_episodes=3) == 1
    assert tfds.builder.read == [2]
    assert convert("data", "fractal20220817_data", tmp_path) == 1
    assert tfds.builder.read == [5]
    assert kept.stat().st_mtime_ns == before


def test_an_interrupted_episode_is_written_again(tfds: SimpleNamespace, tmp_path: Path) -> None:
    def stop(each: dict[str, Any]) -> dict[str, Any]:
        if each["observation"]["image"][0, 0, 0] == 12:
            raise KeyboardInterrupt
        return each

    tfds.change = stop
    with pytest.raises(KeyboardInterrupt):
        convert("data", "fractal20220817_data", tmp_path)
    assert [file.name for file in (tmp_path / "fractal20220817_data").iterdir()] == ["train_eps_00000000.npz"]


def test_which_version_and_picture(tfds: SimpleNamespace, tmp_path: Path) -> None:
    convert("data", "language_table", tmp_path, max_episodes=1)
    assert tfds.folders == ["data/language_table/0.0.1"]
    assert open_episodes("npz", tmp_path / "language_table").frames(0, [0])[0, 0, 0, 0] == 100
    with pytest.raises(InputError, match=r"data/uiuc_d3field/0\.1\.0, split train, episode 0, step 0: .*field image_3"):
        convert("data", "uiuc_d3field3", tmp_path)


def test_plain_actions_are_taken_as_they_are(tfds: SimpleNamespace, tmp_path: Path) -> None:
    tfds.change = lambda each: {**each, "action": np.array([1.0, 2.0])}
    convert("data", "bridge", tmp_path, max_episodes=1)
    assert open_episodes("npz", tmp_path / "bridge").actions(0).tolist() == [[1, 2]] * 3


def test_wrong_input_is_named(tfds: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data/absent/0\.1\.0: not an RLDS data set"):
        convert("data", "absent", tmp_path)
    with pytest.raises(InputError, match="expected a camera of 1 to 4 after the name, got 7"):
        convert("data", "uiuc_d3field7", tmp_path)
    tfds.change = lambda each: {key: value for key, value in each.items() if key != "action"}
    with pytest.raises(InputError, match="episode 0, step 0: expected the field action, found is_first, observation"):
        convert("data", "bridge", tmp_path)
    tfds.change = lambda each: {**each, "action": np.zeros(2 + int(each["is_first"]))}
    with pytest.raises(InputError, match="episode 0: expected frames of one size and actions of one width"):
        convert("data", "bridge", tmp_path)
    tfds.builder = None
    tfds.change = None
