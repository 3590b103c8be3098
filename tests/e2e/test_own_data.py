"""A robot's recordings as people keep them: from the folder to a report in three commands."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlvr_world import cli

av = pytest.importorskip("av")
EPISODES, STEPS = 9, 10
TINY = [
    *("threads=1", "data.lpips=none", "data.reward.lpips=0", "data.height=16", "data.width=16", "data.frame_skip=2"),
    *("data.action_pool=1", "data.test_every=3", "data.split.test=0.3", "data.split.valid=0.3", "data.context=1"),
    *("data.tokenizer.widths=32,32", "data.tokenizer.groups=8", "data.tokenizer.latent=8", "data.tokenizer.steps=2"),
    *("data.tokenizer.batch=2", "data.tokenizer.patch_width=32", "model.hidden=32", "model.layers=1", "model.heads=2"),
    *("model.precision=float32", "sft.steps=2", "sft.batch=4", "rl.steps=1", "rl.prompts=2", "rl.group=2"),
    *("rl.eval_every=0", "eval.rows=4", "eval.runs=1", "control.enabled=false"),
]


def walk(episode: int) -> tuple[np.ndarray, np.ndarray]:
    """A bright square on 24 x 48 pixels, and where it is sent."""
    draw = np.random.default_rng(episode)
    frames, place = np.zeros((STEPS, 24, 48, 3), np.uint8), draw.integers(0, 16, 2)
    actions = draw.integers(-3, 4, (STEPS, 3)).astype(np.float32)
    for step in range(STEPS):
        frames[step, place[0] : place[0] + 8, place[1] : place[1] + 8] = 250
        place = np.clip(place + actions[step, :2].astype(int), 0, (16, 40))
    return frames, actions


def write_video(file: Path, frames: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "5"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def csv_and_mov(root: Path) -> list[str]:
    """Numbered episodes, steps from 1 on, one action that is not wanted."""
    lines = ["episode,step,action_x,action_y,action_gripper"]
    for episode in range(EPISODES):
        frames, actions = walk(episode)
        write_video(root / f"run{episode:03d}.mov", frames)
        lines += [f"{episode},{step + 1},{','.join(map(str, row))}" for step, row in enumerate(actions)]
    (root / "log.csv").write_text("\n".join(lines))
    return ["data.source=folder", "data.action_dims=0,1", "data.fit=crop"]


def lerobot_v2(root: Path) -> list[str]:
    """A file an episode, two cameras."""
    cameras = ("observation.images.left", "observation.images.right")
    features = {name: {"dtype": "video", "shape": [24, 48, 3]} for name in cameras}
    features |= {name: {"dtype": "float32", "shape": [3]} for name in ("action", "observation.state")}
    info = {"codebase_version": "v2.1", "fps": 10, "chunks_size": 1000, "features": features}
    info["data_path"] = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
    info["video_path"] = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
    (root / "meta").mkdir(parents=True)
    (root / "data/chunk-000").mkdir(parents=True)
    (root / "meta/info.json").write_text(json.dumps(info))
    lines = [json.dumps({"episode_index": episode, "length": STEPS}) + "\n" for episode in range(EPISODES)]
    (root / "meta/episodes.jsonl").write_text("".join(lines))
    for episode in range(EPISODES):
        frames, actions = walk(episode)
        rows = [
            {"action": row, "observation.state": row, "episode_index": episode, "frame_index": step}
            for step, row in enumerate(actions)
        ]
        pq.write_table(pa.Table.from_pylist(rows), root / f"data/chunk-000/episode_{episode:06d}.parquet")
        for camera in cameras:
            write_video(root / f"videos/chunk-000/{camera}/episode_{episode:06d}.mp4", frames)
    return ["data.camera=left,right", "data.proprio=true"]


@pytest.mark.parametrize("write", [csv_and_mov, lerobot_v2])
def test_from_ones_own_recordings_to_a_report(
    write: Callable[[Path], list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [*write(tmp_path / "mine"), f"data.path={tmp_path / 'mine'}", f"data.cache={tmp_path / 'cache'}"]
    assert cli.main(["inspect", "robot", *TINY, *given, "--out", str(tmp_path / "look")]) == 0
    seen = capsys.readouterr().out
    assert f"{EPISODES} episodes, {EPISODES * STEPS} frames" in seen
    assert f"frame: 24 x {48 if write is csv_and_mov else 96}" in seen
    assert cli.main(["check", "robot", *TINY, *given]) == 0, capsys.readouterr()
    assert cli.main(["train", "robot", "--out", str(tmp_path / "run"), *TINY, *given]) == 0, capsys.readouterr()
    assert (tmp_path / "run/report.html").is_file()
    codec = json.loads((tmp_path / "run/base/config.json").read_text())["codec"]
    assert codec["layout"]["action_width"] == 2 * (2 if write is csv_and_mov else 3)
    assert codec["layout"]["proprio_width"] == (0 if write is csv_and_mov else 3)


@pytest.mark.parametrize("write", [csv_and_mov, lerobot_v2])
def test_init_says_what_lies_there_and_writes_what_trains_on_it(
    write: Callable[[Path], list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "mine")
    file = tmp_path / "mine.args"
    assert cli.main(["init", str(tmp_path / "mine"), "--out", str(file)]) == 0, capsys.readouterr()
    seen = capsys.readouterr().out
    assert f"{EPISODES} episodes, {EPISODES * STEPS} frames" in seen
    assert "Problems: none" in seen
    assert "rl: " in seen
    written = file.read_text().splitlines()
    assert written[0] == "robot"
    assert f"data.source={'folder' if write is csv_and_mov else 'lerobot'}" in written
    assert {"data.height=48", "data.width=88", "data.frame_skip=1"} < {*written}  # of 24 x 48, ten frames an episode
    assert ("data.camera=observation.images.left" in written) == (write is lerobot_v2)
    smaller = {"data.height=16", "data.width=16", *TINY}  # the same file, at a size for a test
    names = {line.partition("=")[0] for line in smaller}
    kept = [line for line in written if line.partition("=")[0] not in names]
    file.write_text("\n".join([*kept, *smaller, f"data.cache={tmp_path / 'cache'}"]))
    assert cli.main(["train", f"@{file}", "--out", str(tmp_path / "run")]) == 0, capsys.readouterr()
    assert (tmp_path / "run/report.html").is_file()
