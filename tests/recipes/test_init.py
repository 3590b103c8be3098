"""What ``init`` sees in folders: the layout, one of several cameras, the shape of frames, and what is missing."""

from __future__ import annotations

import sys
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
    asked = ["data.camera=wrist_image", "data.height=64"]
    found = described(str(file), asked)
    assert found[-2:] == asked
    assert sum(setting.startswith(("data.camera=", "data.height=")) for setting in found) == 2


def test_what_no_reader_reads_is_told_by_the_likely_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"which end in meta/info\.json, \.hdf5, .*\.html; got an empty folder"):
        described(str(tmp_path))
    with pytest.raises(InputError, match=r"^[^;]*blind\.hdf5, [^;]*none at all[^;]*; name one in data\.camera[^;]*$"):
        described(str(write_robomimic(tmp_path / "blind.hdf5", ())))
    (tmp_path / "a.mp4").write_bytes(b"")
    with pytest.raises(InputError, match=r"a\.mp4: expected a folder of episodes or pages, got one of its files"):
        described(str(tmp_path / "a.mp4"))
    with pytest.raises(InputError, match="no such file or folder; check the path, or give owner/name"):
        described(str(tmp_path / "gone"))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("README.md", r"files of rows, episodes or pages, .* got README\.md"),
        ("study/step_3.pkl.gz", r"got study/step_3\.pkl\.gz: AgentLab's pickles, .* docs/examples/agentlab\.py"),
        ("1.0.0/bridge-train.tfrecord-00000-of-00002", r"RLDS: have `rlvr-world convert`"),
    ],
)
def test_files_that_nothing_reads_are_told_without_any_reader(
    name: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No reader was asked whose library may be missing, and whose complaint would be about something else."""
    monkeypatch.setitem(sys.modules, "h5py", None)
    monkeypatch.setattr("rlvr_world.recipes.init.open_episodes", None)
    file = tmp_path / "mine" / name
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x")
    with pytest.raises(InputError, match=said):
        described(str(tmp_path / "mine" if "/" in name else file))
