"""Data sets that lerobot writes are read frame for frame as lerobot reads them.

LEROBOT_PYTHON names a Python in whose environment lerobot is installed (it asks for another torch than this one):

LEROBOT_PYTHON=lerobot/bin/python pytest -s tests/domains/video/test_lerobot_itself.py
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from rlvr_world.domains.video.readers import open_episodes

PYTHON = os.environ.get("LEROBOT_PYTHON", "")
pytest.importorskip("av")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="LEROBOT_PYTHON names no Python that has lerobot"),
]
CAMERAS = ("observation.images.top", "observation.images.wrist")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lerobot")
    script = Path(__file__).with_name("lerobot_itself.py")
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"}
    told = subprocess.run([PYTHON, script, folder], capture_output=True, text=True, timeout=900, env=clean)
    assert told.returncode == 0, told.stderr[-2000:]
    print("\n" + told.stdout.splitlines()[-1])
    return folder


@pytest.mark.parametrize("kind", ["videos", "images"])
def test_read_as_lerobot_reads(written: Path, kind: str) -> None:
    with np.load(written / f"{kind}.npz") as file:
        theirs = dict(file)
    for camera in CAMERAS:
        episodes = open_episodes("lerobot", written / kind, camera=camera)
        assert sorted(episodes.lengths) == [9, 23, 31]
        for index in range(len(episodes.ids)):
            at = np.flatnonzero(theirs["episode_index"] == int(episodes.ids[index].rpartition("_")[2]))
            assert theirs["frame_index"][at].tolist() == list(range(episodes.lengths[index]))
            np.testing.assert_allclose(theirs["timestamp"][at], np.arange(len(at)) / 15, atol=1e-4)
            np.testing.assert_array_equal(episodes.actions(index), theirs["action"][at])
            np.testing.assert_array_equal(episodes.proprio(index), theirs["observation.state"][at])
            ours, true = episodes.frames(index, range(len(at))), theirs[camera][at]
            apart = np.abs(ours.astype(int) - true).reshape(len(at), -1)
            print(f"{kind:6} {camera:24} {episodes.ids[index]}: {len(at):2} frames, pixels apart: "
                  f"mean {apart.mean():.3f}, most {apart.max()}, equal {np.mean(apart == 0):.1%}")  # fmt: skip
            if kind == "images":
                assert not apart.any()
                continue
            # Two decoders round colours by themselves; a neighbouring frame is much farther away.
            each = np.abs(ours[:, None].astype(np.int16) - true[None]).mean((2, 3, 4))
            assert (each.argmin(1) == np.arange(len(at))).all()  # in these sets no two frames are the same
            assert apart.mean() < 1
