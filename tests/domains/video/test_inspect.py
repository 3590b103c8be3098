"""What ``inspect`` says of a data set, whole and broken."""

from __future__ import annotations

from pathlib import Path

import matplotlib.image
import numpy as np

from rlvr_world.domains.video.inspect import SHEET, inspect
from rlvr_world.domains.video.readers import open_episodes


def write(root: Path, spoil: bool = False) -> Path:
    for index in range(6):
        action = np.linspace([0.0, -10.0], [1.0, 10.0], 101)[: 101 - index]
        if spoil and index in (2, 3):
            action[7, 1] = np.nan
        images = np.full((101 - index, 8, 12, 3), 40 * index, np.uint8)
        np.savez_compressed(root / f"a_eps_{index:08d}.npz", image=images, action=action)
    return root


def test_a_whole_data_set(tmp_path: Path) -> None:
    text = inspect(open_episodes("npz", write(tmp_path)), tmp_path / "out")
    assert "- 6 episodes, 591 frames" in text
    assert "- length: 96 to 101 frames, median 98.5" in text
    assert "- frame: 8 x 12" in text
    ramp = np.concatenate([np.linspace(0, 1, 101)[: 101 - index] for index in range(6)])
    first, last = np.quantile(ramp, [0.01, 0.99])
    assert f"| 0 | 0 | {first:.4g} | {last:.4g} | 1 |" in text
    assert f"| 1 | -10 | {20 * first - 10:.4g} | {20 * last - 10:.4g} | 10 |" in text
    assert "No proprio." in text
    assert "Problems: none" in text
    picture = matplotlib.image.imread(tmp_path / "out" / SHEET)
    assert picture.shape[2] == 4
    greys = {round(float(value) * 255) for value in np.unique(picture[..., 0])}
    assert greys >= {0, 40, 120, 200}  # four episodes of the six, spread evenly


def test_what_does_not_read_is_told(tmp_path: Path) -> None:
    write(tmp_path, spoil=True)
    whole = (tmp_path / "a_eps_00000000.npz").read_bytes()
    episodes = open_episodes("npz", tmp_path)
    (tmp_path / "a_eps_00000000.npz").write_bytes(whole[: len(whole) // 2])
    text = inspect(episodes, tmp_path)
    assert "Problems: 4" in text
    assert "a_eps_00000000.npz, episode a_eps_00000000, field action: does not read" in text
    assert "a_eps_00000000.npz, episode a_eps_00000000, field image: does not read" in text
    for index in (2, 3):
        assert f"a_eps_0000000{index}, field action: expected finite numbers, got nan at step 7, dimension 1" in text
    assert "| 0.99 |" in text  # the largest of the rows that read: the one row with 1 is in the broken file


def test_many_problems_are_counted(tmp_path: Path) -> None:
    for index in range(14):
        action = np.full((3, 1), np.nan)
        np.savez_compressed(tmp_path / f"a_eps_{index:08d}.npz", image=np.zeros((3, 4, 4, 3), np.uint8), action=action)
    text = inspect(open_episodes("npz", tmp_path), tmp_path)
    assert "Problems: 14" in text
    assert "- and 4 more" in text
    assert "No action." in text
