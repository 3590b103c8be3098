"""What ``init`` sees in folders: the layout, one of several cameras, the shape of frames, and what is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rlvr_world import InputError
from rlvr_world.recipes.init import described

h5py = pytest.importorskip("h5py", reason="pip install 'rlvr-world[video]'")


def write_robomimic(file: Path, cameras: tuple[str, ...], episodes: int = 50) -> Path:
    with h5py.File(file, "w") as store:
        for episode in range(episodes):
            group = store.create_group(f"data/demo_{episode}")
            group["actions"] = np.zeros((60, 2), np.float32)
            for camera in cameras:
                group[f"obs/{camera}"] = np.zeros((60, 16, 40, 3), np.uint8)
    return file


def test_of_several_cameras_the_first_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_robomimic(tmp_path / "demo.hdf5", ("agentview_image", "wrist_image"))
    name, *settings = described(str(file))
    assert name == "robot"
    assert {"data.source=hdf5", "data.camera=agentview_image", "data.height=40", "data.width=104"} < {*settings}
    assert {"data.frame_skip=5", "data.action_pool=5"} < {*settings}
    assert not any(setting.startswith("data.split") for setting in settings)  # 50 episodes: shares by hash will do
    assert "agentview_image, wrist_image; the first is taken" in capsys.readouterr().out


def test_what_no_reader_reads_is_told_by_each(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"got none; as lerobot: .*info\.json.*; as hdf5: .*; as folder: .*; as json_"):
        described(str(tmp_path))
    with pytest.raises(InputError, match="none at all"):
        described(str(write_robomimic(tmp_path / "blind.hdf5", ())))
