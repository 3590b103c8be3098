"""Data as people keep them, from the files to a report: ``init`` looks at them, ``train`` does the rest."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlvr_world import InputError, cli
from rlvr_world.domains.video.readers.npz import write_npz
from rlvr_world.domains.web_page.envs.chromium import find_chromium
from tests import tiny

av = pytest.importorskip("av", reason="pip install 'rlvr-world[video]'")
h5py = pytest.importorskip("h5py", reason="pip install 'rlvr-world[video]'")
EPISODES, STEPS = 9, 10
MIND2WEB = Path(__file__).resolve().parents[2] / "docs/examples/mind2web.py"
CAMERAS = ("observation.images.left", "observation.images.right")
MODEL = f"""{tiny.MODEL} sft.steps=2 sft.batch=4 sft.eval_every=0 rl.seeds=0 rl.steps=1 rl.prompts=2
rl.group=2 rl.eval_every=0 rl.drop_zero_variance=false eval.rows=4 eval.runs=1 control.enabled=false""".split()
VIDEO = f"""{tiny.FRAMES} data.frame_skip=2 data.action_pool=1 data.test_every=3 data.context=1
data.tokenizer.widths=32,32 data.tokenizer.steps=2 data.tokenizer.batch=2 data.tokenizer.patch_width=32""".split()


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


def write_table(file: Path, rows: list[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), file)


def csv_and_mov(root: Path) -> None:
    """Numbered episodes, steps from 1 on; names as a phone or a camera gives them."""
    lines = ["episode,step,action_x,action_y,action_gripper"]
    for episode in range(EPISODES):
        frames, actions = walk(episode)
        write_video(root / f"RUN{episode:03d}.mov", frames)
        (root / f"RUN{episode:03d}.mov").rename(root / f"RUN{episode:03d}.MOV")
        lines += [f"{episode},{step + 1},{','.join(map(str, row))}" for step, row in enumerate(actions)]
    (root / "log.csv").write_text("\n".join(lines))


def parquet_and_mp4(root: Path) -> None:
    """Named episodes in a folder below, steps from 0 on, an action fewer than frames, a state."""
    rows = []
    for episode in range(EPISODES):
        frames, actions = walk(episode)
        write_video(root / "videos" / f"pick {chr(97 + episode)}.mp4", frames)
        for step, action in enumerate(actions[:-1]):
            row = {"episode_name": f"pick {chr(97 + episode)}", "frame_index": step, "actions": action.tolist()}
            rows.append(row)
    write_table(root / "steps.parquet", rows)


def write_info(root: Path, version: str, data: str, video: str) -> None:
    features = {name: {"dtype": "video", "shape": [24, 48, 3]} for name in CAMERAS}
    features |= {name: {"dtype": "float32", "shape": [3]} for name in ("action", "observation.state")}
    features |= {"timestamp": {"dtype": "float32", "shape": [1]}}
    info = {"codebase_version": version, "fps": 10, "chunks_size": 1000, "features": features}
    (root / "meta").mkdir(parents=True)
    (root / "meta/info.json").write_text(json.dumps(info | {"data_path": data, "video_path": video}))


def lerobot_rows(episode: int) -> list[dict[str, Any]]:
    about = {"episode_index": episode, "task_index": 0}
    return [
        {"action": row, "observation.state": row, "frame_index": step, "timestamp": step / 10, **about}
        for step, row in enumerate(walk(episode)[1])
    ]


def lerobot_v2(root: Path) -> None:
    """A file an episode, two cameras."""
    name = "chunk-{episode_chunk:03d}/episode_{episode_index:06d}"
    video = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
    write_info(root, "v2.1", f"data/{name}.parquet", video)
    lines = [json.dumps({"episode_index": episode, "length": STEPS}) + "\n" for episode in range(EPISODES)]
    (root / "meta/episodes.jsonl").write_text("".join(lines))
    for episode in range(EPISODES):
        write_table(root / f"data/chunk-000/episode_{episode:06d}.parquet", lerobot_rows(episode))
        for camera in CAMERAS:
            write_video(root / f"videos/chunk-000/{camera}/episode_{episode:06d}.mp4", walk(episode)[0])


def lerobot_v3(root: Path) -> None:
    """Many episodes a file, of each camera another number; tasks and statistics beside them."""
    files = "chunk-{chunk_index:03d}/file-{file_index:03d}"
    write_info(root, "v3.0", f"data/{files}.parquet", f"videos/{{video_key}}/{files}.mp4")
    (root / "meta/stats.json").write_text("{}")
    write_table(root / "meta/tasks.parquet", [{"task_index": 0, "task": "push"}])
    held = dict(zip(CAMERAS, (4, 6), strict=True))  # episodes a file
    rows, episodes = [row for episode in range(EPISODES) for row in lerobot_rows(episode)], list[dict[str, Any]]()
    for file in (0, 1):
        write_table(root / f"data/chunk-000/file-{file:03d}.parquet", rows[file * 50 : file * 50 + 50])
    for episode in range(EPISODES):
        row = {"episode_index": episode, "length": STEPS, "tasks": ["push"], "data/chunk_index": 0}
        row |= {"data/file_index": episode // 5, "stats/action/mean": [0.0] * 3}
        for camera, count in held.items():
            file, first = divmod(episode, count)
            times = {"from_timestamp": float(first), "to_timestamp": first + 1.0}  # of ten frames, ten a second
            places = {"chunk_index": 0, "file_index": file, **times}
            row |= {f"videos/{camera}/{key}": value for key, value in places.items()}
        episodes.append(row)
    write_table(root / "meta/episodes/chunk-000/file-000.parquet", episodes)
    for camera, count in held.items():
        for first in range(0, EPISODES, count):
            frames = np.concatenate([walk(episode)[0] for episode in range(first, min(EPISODES, first + count))])
            write_video(root / f"videos/{camera}/chunk-000/file-{first // count:03d}.mp4", frames)


def robomimic(root: Path) -> None:
    """All episodes in one file, two cameras, and the masks of its splits."""
    root.mkdir()
    with h5py.File(root / "image.hdf5", "w") as store:
        store["mask/train"] = np.array([b"demo_0"])
        for episode in range(EPISODES):
            frames, actions = walk(episode)
            group = store.create_group(f"data/demo_{episode}")
            group["actions"], group["dones"], group["rewards"] = actions, np.zeros(STEPS), np.zeros(STEPS)
            group["obs/agentview_image"], group["obs/robot0_eye_in_hand_image"] = frames, frames[:, :24, :24]
            group["obs/robot0_eef_pos"] = group["next_obs/robot0_eef_pos"] = actions
        store["data"].attrs["total"] = EPISODES * STEPS


def aloha(root: Path) -> None:
    root.mkdir()
    for episode in range(EPISODES):
        frames, actions = walk(episode)
        with h5py.File(root / f"episode_{episode}.hdf5", "w") as store:
            store["action"], store["observations/qpos"], store["observations/images/top"] = actions, actions, frames


def npz(root: Path) -> None:
    root.mkdir()
    for episode in range(EPISODES):
        frames, actions = walk(episode)
        write_npz(root / f"push_eps_{episode:08d}.npz", {"image": frames, "action": actions})


LAYOUTS = {csv_and_mov: "folder", parquet_and_mp4: "folder", lerobot_v2: "lerobot", lerobot_v3: "lerobot"}
LAYOUTS |= {robomimic: "hdf5", aloha: "hdf5", npz: "npz"}


def call(*arguments: Any) -> None:
    assert cli.main([*map(str, arguments)]) == 0


@pytest.mark.parametrize("write", LAYOUTS, ids=lambda write: write.__name__)
def test_a_robots_recordings(write: Callable[[Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "mine")
    call("init", tmp_path / "mine", "--out", tmp_path / "mine.args")
    seen = capsys.readouterr().out
    print(seen)
    assert f"{EPISODES} episodes, {EPISODES * STEPS} frames" in seen
    assert "Problems: none" in seen
    assert "rl: " in seen
    name, *settings = (tmp_path / "mine.args").read_text().splitlines()
    assert name == "robot"
    assert {f"data.source={LAYOUTS[write]}", "data.height=48", "data.width=88", "data.frame_skip=1"} < {*settings}
    run = tmp_path / "run"
    call("train", f"@{tmp_path / 'mine.args'}", "--out", run, *MODEL, *VIDEO, f"data.cache={tmp_path / 'cache'}")
    assert (run / "report.html").is_file()


def train(name: str, folder: Path, source: Path, capsys: pytest.CaptureFixture[str], *settings: str) -> str:
    """The two commands for rows or pages; what ``init`` said."""
    call("init", source, "--out", folder / "mine.args", *settings)
    seen = capsys.readouterr().out
    print(seen)
    assert (folder / "mine.args").read_text().split()[0] == name
    assert "true answer scores as it should" in seen
    call("train", f"@{folder / 'mine.args'}", "--out", folder / "run", *MODEL, "model.vocabulary=400")
    assert (folder / "run/report.html").is_file()
    return seen


def test_texts_in_one_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As a Gymnasium loop over a text game writes them: observations are texts."""
    rooms = ("hall", "attic", "cellar")
    rows = [
        {"obs": f"You are in the {rooms[n % 3]}.\nDay {n // 9}.", "action": f"go {rooms[n % 7 % 3]}", "reward": 0.0,
         "next_obs": f"You are in the {rooms[n % 7 % 3]}.\nDay {n // 9}.", "terminated": False}
        for n in range(60)
    ]  # fmt: skip
    (tmp_path / "transitions.json").write_text(json.dumps(rows))
    train("json_world", tmp_path, tmp_path / "transitions.json", capsys)


def page(seed: int, ticked: int) -> str:
    lines = [f"\t[a{n}] checkbox 'Item {n}', checked='{str(n < ticked).lower()}'" for n in range(3)]
    return "\n".join([f"[1] RootWebArea 'List {seed}', focused", *lines, "\tStaticText 'Pick some'"])


def browsergym(root: Path) -> Path:
    """A line a step, in a folder of its own, as a loop around the environment writes observations."""
    root.mkdir()
    for seed in range(16):
        lines = [
            {"task_name": "miniwob.click-list", "task_seed": seed, "step": step, "goal": "Tick all", "url": "http://x/",
             "axtree_txt": page(seed, step), "action": f"click('a{step}')", "last_action_error": "", "reward": 0}
            for step in range(4)
        ]  # fmt: skip
        (root / f"episode_{seed}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return root


def mind2web(root: Path) -> Path:
    """Made into rows by the script of the docs: a command more."""
    root.mkdir()
    tasks = []
    for number in range(16):
        actions = []
        for step in range(4):
            boxes = (f'<input backend_node_id="1{n}" type="checkbox" input_checked="{n < step}">' for n in range(4))
            html = f'<html backend_node_id="1"><text backend_node_id="2">List {number}</text>{"".join(boxes)}</html>'
            element = {"tag": "input", "backend_node_id": f"1{step}", "attributes": "{}"}
            done = {"op": "CLICK", "original_op": "CLICK", "value": ""}
            page = {"action_uid": f"{number}-{step}", "cleaned_html": html, "raw_html": html}
            actions.append({**page, "operation": done, "pos_candidates": [element], "neg_candidates": []})
        about = {"website": f"site{number % 4}", "domain": "Travel", "confirmed_task": "Tick all"}
        tasks.append({**about, "annotation_id": f"{number}", "actions": actions})
    (root / "train_0.json").write_text(json.dumps(tasks))
    subprocess.run([sys.executable, MIND2WEB, root / "train_0.json", root / "rows.jsonl"], check=True, timeout=60)
    return root / "rows.jsonl"


@pytest.mark.parametrize("write", [browsergym, mind2web], ids=lambda write: write.__name__)
def test_recorded_pages(write: Callable[[Path], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen = train("miniwob", tmp_path, write(tmp_path / "mine"), capsys)
    assert "changed" in seen


def test_a_folder_of_pages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        find_chromium("", "")
    except InputError as error:
        pytest.skip(str(error))
    for name in ("start", "cart"):
        (tmp_path / "site" / name).mkdir(parents=True)
        script = "this.textContent = 'done'"
        html = f'<title>{name}</title><button onclick="{script}">go {name}</button><input type="checkbox"><p>text</p>'
        (tmp_path / "site" / name / "index.html").write_text(html)
    few = ("data.env.episodes=6", "data.env.steps=2", "data.split.test=0.3", f"data.cache={tmp_path / 'cache'}")
    train("miniwob", tmp_path, tmp_path / "site", capsys, *few)
