"""Each storage layout is written here as its makers write it, small, and read back; and each way it can be broken."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from rlvr_world.domains.video.episodes import Clip, Episodes, decoded_image
from rlvr_world.domains.video.readers import KINDS, open_episodes
from rlvr_world.errors import InputError
from rlvr_world.system.files import digest

av = pytest.importorskip("av")
LENGTHS = (7, 12, 5)


def episode(index: int, length: int, width: int = 2) -> dict[str, np.ndarray]:
    """Frames whose grey tells episode and step, so that a wrong frame cannot pass for the right one."""
    grey = 20 + 60 * index + 4 * np.arange(length)
    rng = np.random.default_rng(index)
    return {
        "image": np.broadcast_to(grey[:, None, None, None], (length, 32, 48, 3)).astype(np.uint8),
        "action": rng.normal(size=(length, width)),
        "proprio": rng.normal(size=(length, 3)),
    }


def data() -> list[dict[str, np.ndarray]]:
    return [episode(index, length) for index, length in enumerate(LENGTHS)]


@contextmanager
def scheduled_as_before() -> Iterator[None]:
    """SVT-AV1's encoder, run as root, gives the calling thread real-time priority for good. Whatever the tests start
    afterwards inherits it, and a page that never ends, in a browser so favoured, takes the machine from all else.
    """
    if not hasattr(os, "sched_setscheduler"):
        yield
        return
    policy, priority = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, priority)


def write_mp4(file: Path, frames: np.ndarray, codec: str = "libx264", gop: int = 4, b_frames: int = 2) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with scheduled_as_before(), av.open(str(file), "w") as container:
        stream = container.add_stream(
            codec, rate=10, options={"g": str(gop), "bf": str(b_frames), "crf": "5", "sc_threshold": "0"}
        )
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        container.mux(stream.encode())


def write_npz(root: Path) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for index, arrays in enumerate(data()):
        np.savez_compressed(root / f"train_eps_{index:08d}.npz", **arrays)
    return root


def write_folder(root: Path) -> Path:
    """Rows of all episodes mixed, as a data frame that was shuffled would be; actions in named columns."""
    rows = []
    for index, arrays in enumerate(data()):
        write_mp4(root / f"run_{index}.mp4", arrays["image"])
        for step, (action, proprio) in enumerate(zip(arrays["action"], arrays["proprio"], strict=True)):
            row = {"episode": f"run_{index}", "step": step, "action_x": action[0], "action_y": action[1]}
            rows.append({**row, "proprio": proprio.tolist(), "note": "let be"})
    order = np.random.default_rng(0).permutation(len(rows))
    pq.write_table(pa.Table.from_pylist([rows[i] for i in order]), root / "steps.parquet")
    return root


def write_lerobot(root: Path, images: bool = False) -> Path:
    """Two episodes share a parquet and an mp4 file, the third has its own, as when a file has reached its size."""
    files, episodes, start = (0, 0, 1), [], {0: 0, 1: 0}
    rows: dict[int, list[dict[str, object]]] = {0: [], 1: []}
    for index, (arrays, file) in enumerate(zip(data(), files, strict=True)):
        length = len(arrays["image"])
        for step in range(length):
            row = {"action": arrays["action"][step].astype(np.float32), "observation.state": arrays["proprio"][step]}
            if images:
                row["observation.images.top"] = {"bytes": png(arrays["image"][step]), "path": f"frame-{step:06d}.png"}
            index_columns = {"episode_index": index, "frame_index": step, "timestamp": step / 10, "task_index": 0}
            rows[file].append({**row, **index_columns})
        row = {"episode_index": index, "length": length, "tasks": ["push"], "data/chunk_index": 0}
        row |= {"data/file_index": file, "dataset_from_index": 0, "dataset_to_index": length}
        if not images:
            key = "videos/observation.images.top/"
            row |= {key + "chunk_index": 0, key + "file_index": file}
            # Recorders add up durations as floats, so that later episodes begin a little beside their first frame.
            row |= {key + "from_timestamp": start[file] / 10 + 0.004, key + "to_timestamp": (start[file] + length) / 10}
        start[file] += length
        episodes.append(row)
    for file, content in rows.items():
        write_table(root / f"data/chunk-000/file-{file:03d}.parquet", content)
        shown = np.concatenate([arrays["image"] for arrays, at in zip(data(), files, strict=True) if at == file])
        if not images:
            write_mp4(root / f"videos/observation.images.top/chunk-000/file-{file:03d}.mp4", shown)
    write_table(root / "meta/episodes/chunk-000/file-000.parquet", episodes[::-1])
    camera = {"dtype": "image" if images else "video", "shape": [32, 48, 3], "names": ["height", "width", "channels"]}
    features = {"observation.images.top": camera, "action": {"dtype": "float32", "shape": [2], "names": ["x", "y"]}}
    features["observation.state"] = {"dtype": "float32", "shape": [3], "names": None}
    info = {"codebase_version": "v3.0", "fps": 10, "total_episodes": 3, "chunks_size": 1000, "features": features}
    info["data_path"] = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
    info["video_path"] = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
    (root / "meta/info.json").write_text(json.dumps(info))
    return root


def write_dino(root: Path) -> Path:
    """PushT: tensors padded to the longest episode, actions in pixels, a folder a split."""
    count, longest = len(LENGTHS), max(LENGTHS)
    tensors = {"rel_actions": torch.full((count, longest, 2), torch.nan), "velocities": torch.zeros(count, longest, 2)}
    tensors["states"] = torch.zeros(count, longest, 5)
    for index, arrays in enumerate(data()):
        length = LENGTHS[index]
        tensors["rel_actions"][index, :length] = torch.from_numpy(arrays["action"]) * 100
        tensors["states"][index, :length, :2] = torch.from_numpy(arrays["proprio"][:, :2])
        tensors["velocities"][index, :length, 0] = torch.from_numpy(arrays["proprio"][:, 2])
        write_mp4(root / "train" / "obses" / f"episode_{index:03d}.mp4", arrays["image"])
    for name, tensor in tensors.items():
        torch.save(tensor, root / "train" / f"{name}.pth")
    (root / "train" / "seq_lengths.pkl").write_bytes(pickle.dumps(list(LENGTHS)))
    return root


def write_lerobot_v2(root: Path) -> Path:
    """A parquet and an mp4 file an episode, and the lengths in a JSON file."""
    write_lerobot(root)
    table = pa.concat_tables([pq.read_table(file) for file in sorted(root.glob("data/**/*.parquet"))])
    for part in ("data", "videos", "meta/episodes"):
        shutil.rmtree(root / part)
    for index, arrays in enumerate(data()):
        rows = [row for row in table.to_pylist() if row["episode_index"] == index]
        write_table(root / f"data/chunk-000/episode_{index:06d}.parquet", rows)
        write_mp4(root / f"videos/chunk-000/observation.images.top/episode_{index:06d}.mp4", arrays["image"])
    lines = [{"episode_index": index, "tasks": ["push"], "length": length} for index, length in enumerate(LENGTHS)]
    (root / "meta/episodes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    info = json.loads((root / "meta/info.json").read_text()) | {"codebase_version": "v2.1"}
    info["data_path"] = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
    info["video_path"] = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
    (root / "meta/info.json").write_text(json.dumps(info))
    return root


def write_hdf5(root: Path) -> Path:
    """robomimic's: all episodes in one file, their numbers without zeros before them."""
    h5py = pytest.importorskip("h5py")
    root.mkdir(parents=True, exist_ok=True)
    with h5py.File(root / "push.hdf5", "w") as file:
        for index, arrays in enumerate(data()):
            demo = file.create_group(f"data/demo_{index + 8}")
            demo.attrs["num_samples"] = LENGTHS[index]
            demo["actions"] = arrays["action"]
            demo["obs/agentview_image"] = arrays["image"]
            demo["obs/robot0_eef_pos"], demo["obs/robot0_gripper_qpos"] = np.split(arrays["proprio"], [2], axis=1)
    return root


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def png(frame: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(frame)).save(stream, "png")
    return stream.getvalue()


def write_table(file: Path, rows: list[dict[str, object]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), file)


def edit(file: Path, column: str, change) -> None:  # type: ignore[no-untyped-def]
    """Rewrites one column of a parquet file."""
    table = pq.read_table(file)
    values = table[column].to_pylist()
    change(values)
    pq.write_table(table.set_column(table.column_names.index(column), column, pa.array(values)), file)


def grey(frames: np.ndarray) -> list[int]:
    assert frames.dtype == np.uint8
    assert frames.shape[1:] == (32, 48, 3)
    return np.round(frames.mean(axis=(1, 2, 3))).astype(int).tolist()


WRITERS = {"npz": write_npz, "lerobot": write_lerobot, "dino_wm": write_dino, "folder": write_folder}
WRITERS |= {"hdf5": write_hdf5, "lerobot v2": write_lerobot_v2}


@pytest.fixture(scope="module", params=[*KINDS, "lerobot v2", "lerobot images"])
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Episodes:
    root = tmp_path_factory.mktemp("data") / "push"
    if request.param == "lerobot images":
        return open_episodes("lerobot", write_lerobot(root, images=True))
    return open_episodes(request.param.split()[0], WRITERS[request.param](root), split="train")


def test_every_layout_gives_the_same_episodes(opened: Episodes) -> None:
    assert opened.name.startswith("push")
    assert list(opened.ids) == sorted(opened.ids)
    assert list(opened.lengths) == list(LENGTHS)
    for index, arrays in enumerate(data()):
        assert opened.actions(index).dtype == np.float32
        np.testing.assert_allclose(opened.actions(index), arrays["action"], rtol=1e-5)
        proprio = opened.proprio(index)
        assert proprio is not None
        np.testing.assert_allclose(proprio[:, :3], arrays["proprio"], rtol=1e-5)
        for steps in ([0], list(range(LENGTHS[index])), [4, 1, 1, 3]):
            expected = [20 + 60 * index + 4 * step for step in steps]
            np.testing.assert_allclose(grey(opened.frames(index, steps)), expected, atol=1)


def test_a_clip_reads_its_frames_and_rows(opened: Episodes) -> None:
    clip = Clip(opened, 1, (2, 9))
    np.testing.assert_allclose(grey(clip.read()), [88, 116], atol=1)
    proprio, whole = clip.proprio(), opened.proprio(1)
    assert proprio is not None
    assert whole is not None
    np.testing.assert_array_equal(proprio, whole[[2, 9]])


def test_a_step_beyond_the_episode_is_refused(opened: Episodes) -> None:
    with pytest.raises(InputError, match=rf"{opened.ids[2]}, step 5: no such frame; the episode has the steps 0 to 4"):
        opened.frames(2, [4, 5])


@pytest.mark.parametrize(
    ("codec", "gop", "b_frames"),
    [("libx264", 1, 0), ("libx264", 2, 2), ("libx264", 7, 3), ("libx264", 50, 0), ("mpeg4", 3, 2), ("libsvtav1", 4, 2)],
)
def test_any_frame_is_found_from_any_key_frame(tmp_path: Path, codec: str, gop: int, b_frames: int) -> None:
    from rlvr_world.domains.video.readers.mp4 import open_video, read_frames

    if codec not in av.codecs_available:
        pytest.skip(f"this build of PyAV does not encode {codec}")
    frames = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), dtype=np.uint8)
    write_mp4(tmp_path / "a.mp4", frames, codec, gop, b_frames)
    if hasattr(os, "sched_getscheduler"):
        assert os.sched_getscheduler(0) == os.SCHED_OTHER
    with av.open(str(tmp_path / "a.mp4")) as container:
        whole = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    assert len(np.unique(whole.mean(axis=(1, 2, 3)))) >= 19
    video = open_video(tmp_path / "a.mp4", "a")
    assert len(video) == 20
    for steps in [[step] for step in range(20)] + [[19, 0, 7, 8]]:
        read = read_frames(video, steps, "a", range(20))
        np.testing.assert_array_equal(read, whole[steps])


MATRICES = {
    "a quarter to the right": ((0, 1, -1, 0), lambda picture: np.rot90(picture, -1)),
    "a quarter to the left": ((0, -1, 1, 0), np.rot90),
    "upside down": ((-1, 0, 0, -1), lambda picture: np.rot90(picture, 2)),
    "mirrored": ((-1, 0, 0, 1), np.fliplr),
    "as it is": ((1, 0, 0, 1), np.asarray),
}


@pytest.mark.parametrize("turn", MATRICES)
def test_frames_are_turned_as_a_player_turns_them(tmp_path: Path, turn: str) -> None:
    """A phone stores what its sensor saw, and in the header of the track the matrix by which it is shown."""
    from rlvr_world.domains.video.readers.mp4 import open_video, read_frames

    file, (matrix, shown) = tmp_path / "a.mp4", MATRICES[turn]
    frames = np.zeros((3, 32, 48, 3), np.uint8)
    frames[:, :16, :24], frames[:, 16:, :24] = 250, 120  # bright above on the left, grey below it
    write_mp4(file, frames)
    content = bytearray(file.read_bytes())
    at = content.index(b"tkhd") + 44  # the track's header, version 0: its matrix, of which a, b, c, d
    for place, value in zip((0, 4, 12, 16), matrix, strict=True):
        content[at + place : at + place + 4] = struct.pack(">i", value << 16)
    file.write_bytes(content)
    [read] = read_frames(open_video(file, "a"), [1], "a", range(3))
    wanted = shown(frames[1])
    assert read.shape == wanted.shape
    assert np.abs(read.astype(int) - wanted).mean() < 4
    content[at : at + 8] = struct.pack(">2i", 46341, 46341)  # by 45 degrees
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.mp4: expected frames turned by quarters, got another angle"):
        read_frames(open_video(file, "a"), [1], "a", range(3))


def test_a_damaged_frame_is_named_and_the_others_still_read(tmp_path: Path) -> None:
    """A decoder passes over a frame it cannot read, and those that build on it come out wrong without a word."""
    rng = np.random.default_rng(0)
    write_folder(tmp_path)
    file = tmp_path / "run_1.mp4"
    write_mp4(file, rng.integers(0, 256, (12, 32, 48, 3), dtype=np.uint8), gop=4, b_frames=0)
    episodes = open_episodes("folder", tmp_path)
    whole = episodes.frames(1, range(12))
    with av.open(str(file)) as container:
        place, size = [(packet.pos, packet.size) for packet in container.demux(video=0)][5]
    content = bytearray(file.read_bytes())
    content[place : place + size] = bytes(size)
    file.write_bytes(content)
    for step in (5, 6, 7):
        with pytest.raises(InputError, match=rf"run_1\.mp4, episode run_1, step {step}: the frame does not decode"):
            episodes.frames(1, [0, step, 11])
    np.testing.assert_array_equal(episodes.frames(1, [0, 4, 8, 11]), whole[[0, 4, 8, 11]])


def test_a_truncated_mp4_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path)
    file = tmp_path / "run_2.mp4"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(InputError, match=r"run_2\.mp4, episode run_2: not a readable mp4"):
        open_episodes("folder", tmp_path)


def test_what_is_no_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown kind 'zarr'; take one of npz, lerobot"):
        open_episodes("zarr", tmp_path)
    for kind in KINDS:
        with pytest.raises(InputError, match=tmp_path.name):
            open_episodes(kind, tmp_path, split="train")


# npz


def rewrite_npz(file: Path, **changes: np.ndarray | None) -> None:
    arrays = {key: value for key, value in {**episode(1, 12), **changes}.items() if value is not None}
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"action": np.zeros((12, 3))}, r"the widths \{.*'action': 2.*\} of train_eps_00000000.npz, got the shapes"),
        ({"action": np.zeros((10, 2))}, "expected as many rows as frames"),
        ({"action": None}, "expected the arrays image and action, got no action"),
        ({"proprio": None}, "the widths"),
        ({"image": np.zeros((12, 3, 32, 48), np.uint8)}, r"field image: expected uint8 \[T, H, W, 3\], got uint8"),
        ({"image": np.zeros((12, 32, 48, 3))}, r"field image: expected uint8 \[T, H, W, 3\], got float64"),
    ],
)
def test_npz_arrays_that_do_not_fit_are_named_at_opening(
    tmp_path: Path, changes: dict[str, np.ndarray | None], message: str
) -> None:
    write_npz(tmp_path)
    rewrite_npz(tmp_path / "train_eps_00000001.npz", **changes)
    with pytest.raises(InputError, match=rf"train_eps_00000001\.npz.*{message}"):
        open_episodes("npz", tmp_path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_npz_actions_that_are_not_finite_are_named(tmp_path: Path, value: float) -> None:
    write_npz(tmp_path)
    action = np.zeros((12, 2))
    action[3, 1] = value
    rewrite_npz(tmp_path / "train_eps_00000001.npz", action=action)
    where = r"train_eps_00000001\.npz, episode train_eps_00000001, field action: .*got (nan|inf) at step 3, dimension 1"
    with pytest.raises(InputError, match=where):
        open_episodes("npz", tmp_path).actions(1)


def test_npz_pickled_objects_are_not_loaded(tmp_path: Path) -> None:
    write_npz(tmp_path)
    rewrite_npz(tmp_path / "train_eps_00000001.npz", action=np.array([[{}, {}]] * 12, dtype=object))
    with pytest.raises(InputError, match="field action: does not read"):
        open_episodes("npz", tmp_path).actions(1)


def test_npz_broken_files_are_named(tmp_path: Path) -> None:
    file = write_npz(tmp_path) / "train_eps_00000001.npz"
    with zipfile.ZipFile(file) as archive:
        middle = archive.getinfo("image.npy").header_offset + archive.getinfo("image.npy").compress_size - 20
    content = bytearray(file.read_bytes())
    content[middle : middle + 40] = bytes(40)
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"train_eps_00000001\.npz, episode train_eps_00000001, field image: does not"):
        open_episodes("npz", tmp_path).frames(1, [0])
    file.write_bytes(b"no zip at all")
    with pytest.raises(InputError, match=r"train_eps_00000001\.npz, .*not a readable .npz"):
        open_episodes("npz", tmp_path)


def test_npz_an_episode_is_inflated_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    episodes = open_episodes("npz", write_npz(tmp_path))
    episodes.frames(0, [0, 1])
    monkeypatch.setattr(np, "load", None)
    assert len(episodes.frames(0, [2])) == 1


@pytest.mark.parametrize(("frames", "actions"), [(2, 1), (7, 6)])
def test_npz_the_last_action_may_be_missing_however_short_the_episode(
    tmp_path: Path, frames: int, actions: int
) -> None:
    arrays = {**episode(0, frames), "action": np.arange(2.0 * actions).reshape(actions, 2)}
    np.savez_compressed(tmp_path / "a_eps_00000000.npz", **arrays)  # type: ignore[arg-type]
    given = open_episodes("npz", tmp_path).actions(0)
    assert len(given) == frames
    np.testing.assert_array_equal(given[-1], given[-2])


def test_npz_headers_that_lie_are_named(tmp_path: Path) -> None:
    def write(shape: str, action: np.ndarray) -> None:
        header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
        with zipfile.ZipFile(tmp_path / "a_eps_00000000.npz", "w") as archive:
            archive.writestr("image.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
            archive.writestr("action.npy", npy(action))

    write("(12, 0, 48, 3)", np.zeros((12, 2)))
    with pytest.raises(InputError, match=r"a_eps_00000000\.npz, field image: expected uint8 \[T, H, W, 3\], got"):
        open_episodes("npz", tmp_path)
    write(f"({10**12}, 640, 480, 3)", np.zeros((10**12, 0)))
    with pytest.raises(InputError, match=r"field image: does not read \(.*allocate"):  # a million GB
        open_episodes("npz", tmp_path).frames(0, [0])


# A plain folder


def test_folder_takes_a_list_of_actions(tmp_path: Path) -> None:
    table = pq.read_table(write_folder(tmp_path) / "steps.parquet")
    pairs = [[x, y] for x, y in zip(table["action_x"].to_pylist(), table["action_y"].to_pylist(), strict=True)]
    table = table.drop_columns(["action_x", "action_y", "proprio"]).append_column("action", pa.array(pairs))
    pq.write_table(table, tmp_path / "steps.parquet")
    episodes = open_episodes("folder", tmp_path)
    np.testing.assert_allclose(episodes.actions(1), data()[1]["action"], rtol=1e-5)
    assert episodes.proprio(1) is None


def test_folder_rows_and_mp4_files_must_match(tmp_path: Path) -> None:
    write_folder(tmp_path)
    shutil.copy(tmp_path / "run_0.mp4", tmp_path / "run_9.mp4")
    with pytest.raises(InputError, match=r"episode run_9: it has run_9\.mp4 but no rows"):
        open_episodes("folder", tmp_path)
    (tmp_path / "run_9.mp4").unlink()
    write_mp4(tmp_path / "run_1.mp4", data()[1]["image"][:-2])
    with pytest.raises(
        InputError, match="episode run_1, field step: expected 0 to 9, as its mp4 has 10 frames, got 12"
    ):
        open_episodes("folder", tmp_path)
    (tmp_path / "run_1.mp4").unlink()
    with pytest.raises(InputError, match="episode run_1: it has rows but no mp4 or mov"):
        open_episodes("folder", tmp_path)


def test_folder_numbers_that_do_not_fit_are_named(tmp_path: Path) -> None:
    file = write_folder(tmp_path) / "steps.parquet"
    edit(file, "action_y", lambda values: values.__setitem__(5, float("nan")))
    odd = pq.read_table(file)["episode"][5].as_py()
    episodes = open_episodes("folder", tmp_path)
    with pytest.raises(InputError, match=rf"episode {odd}, field action: .*dimension 1"):
        [episodes.actions(index) for index in range(3)]
    edit(file, "proprio", lambda values: values.__setitem__(5, [1.0]))
    episodes = open_episodes("folder", tmp_path)
    with pytest.raises(InputError, match=rf"episode {odd}, field proprio, step \d+: expected"):
        [episodes.proprio(index) for index in range(3)]
    edit(file, "proprio", lambda values: values.__setitem__(slice(None), [[1.0]] * len(values)))
    pq.write_table(pq.read_table(file).drop_columns(["action_x", "action_y"]), file)
    with pytest.raises(InputError, match="expected a column action or columns action_<name>"):
        open_episodes("folder", tmp_path)


def write_usual_folder(root: Path, first: int = 1, seconds: float = 0.1) -> Path:
    """A mov an episode in a folder of its own, a CSV file with numbered episodes, steps from 1 on, and a state."""
    lines = ["episode_index,frame_index,timestamp,action_x,action_y,state.0,state.1,state.2"]
    for index, arrays in enumerate(data()):
        write_mp4(root / "videos" / f"episode_{index + 9:06d}.mov", arrays["image"])
        for step, (action, state) in enumerate(zip(arrays["action"], arrays["proprio"], strict=True)):
            numbers = [index + 9, first + step, round(step * seconds, 3), *action, *state]
            lines.append(",".join(map(str, numbers)))
    (root / "steps.csv").write_text("\n".join([lines[0], *lines[:0:-1]]))
    return root


@pytest.mark.parametrize("first", [0, 1])
def test_folder_takes_the_usual_layouts(tmp_path: Path, first: int) -> None:
    episodes = open_episodes("folder", write_usual_folder(tmp_path, first))
    assert list(episodes.ids) == ["episode_000009", "episode_000010", "episode_000011"]
    for index, arrays in enumerate(data()):
        np.testing.assert_allclose(episodes.actions(index), arrays["action"], rtol=1e-5)
        proprio = episodes.proprio(index)
        assert proprio is not None
        np.testing.assert_allclose(proprio, arrays["proprio"], rtol=1e-5)
        expected = [20 + 60 * index + 4 * step for step in range(LENGTHS[index])]
        np.testing.assert_allclose(grey(episodes.frames(index, range(LENGTHS[index]))), expected, atol=1)


def test_folder_rows_and_frames_of_two_rates_meet_by_time(tmp_path: Path) -> None:
    """Every other frame has a row: by its time it is found, by count it would be another."""
    write_folder(tmp_path)
    table = pq.read_table(tmp_path / "steps.parquet")
    kept = [row for row in table.to_pylist() if row["step"] % 2 == 0]
    rows = [row | {"step": row["step"] // 2, "timestamp": row["step"] / 10} for row in kept]
    write_table(tmp_path / "steps.parquet", rows)
    episodes = open_episodes("folder", tmp_path)
    assert list(episodes.lengths) == [4, 6, 3]
    np.testing.assert_allclose(grey(episodes.frames(1, range(6))), [80 + 8 * step for step in range(6)], atol=1)
    write_table(tmp_path / "steps.parquet", [row | {"timestamp": row["timestamp"] * 3} for row in rows])
    with pytest.raises(InputError, match=r"run_0\.mp4, episode run_0, step 2: expected a frame at 1\.200 s"):
        open_episodes("folder", tmp_path)
    write_table(tmp_path / "steps.parquet", [{k: v for k, v in row.items() if k != "timestamp"} for row in rows])
    with pytest.raises(
        InputError, match=r"expected 0 to 6, as its mp4 has 7 frames, got 4 rows from 0 to 3; .* timestamp"
    ):
        open_episodes("folder", tmp_path)
    faults: list[InputError] = []
    with pytest.raises(InputError, match="expected at least one episode that reads"):
        open_episodes("folder", tmp_path, on_fault=faults.append)
    assert len(faults) == 3


def test_folder_rows_say_which_frames_are_read_and_count_as_bytes_of_theirs(tmp_path: Path) -> None:
    """Tokens are kept for as long as these bytes are the same: times that change mean other frames."""
    episodes = open_episodes("folder", write_usual_folder(tmp_path, seconds=0.1))
    before = digest(*episodes.files)
    write_usual_folder(tmp_path, seconds=0.098)
    assert digest(*open_episodes("folder", tmp_path).files) != before


def test_folder_takes_categories_and_a_row_fewer(tmp_path: Path) -> None:
    write_folder(tmp_path)
    table = pq.read_table(tmp_path / "steps.parquet")
    rows = [row for row in table.to_pylist() if row["step"] < LENGTHS[int(row["episode"][-1])] - 1]
    table = pa.Table.from_pylist(rows).drop_columns(["proprio"])
    column = table["episode"].combine_chunks().dictionary_encode()
    pq.write_table(table.set_column(0, "episode", column), tmp_path / "steps.parquet")
    episodes = open_episodes("folder", tmp_path)
    assert list(episodes.lengths) == list(LENGTHS)
    np.testing.assert_allclose(episodes.actions(1)[:-1], data()[1]["action"][:-1], rtol=1e-5)
    np.testing.assert_array_equal(episodes.actions(1)[-1], episodes.actions(1)[-2])


def test_folder_steps_that_are_no_numbers_are_named(tmp_path: Path) -> None:
    file = write_folder(tmp_path) / "steps.parquet"
    edit(file, "step", lambda values: values.__setitem__(slice(None), [f"step {value}" for value in values]))
    with pytest.raises(InputError, match=r"steps\.parquet, field step: expected a number a row"):
        open_episodes("folder", tmp_path)
    edit(file, "step", lambda values: values.__setitem__(slice(None), [None] * 3 + [0] * (len(values) - 3)))
    with pytest.raises(InputError, match=r"field step: expected 0 to \d+, as its mp4 has"):
        open_episodes("folder", tmp_path)


def test_folder_columns_that_are_there_twice_and_numbers_that_are_none_are_named(tmp_path: Path) -> None:
    file = write_usual_folder(tmp_path) / "steps.csv"
    text = file.read_text()
    file.write_text(text.replace("frame_index,", "episode_index,", 1))
    with pytest.raises(InputError, match=r"steps\.csv: expected each column once, found episode_index, episode_index"):
        open_episodes("folder", tmp_path)
    file.write_text(text.replace("\n9,", "\n²,", 1))
    with pytest.raises(InputError, match="episode ²: it has rows but no mp4 or mov"):
        open_episodes("folder", tmp_path)


def test_frames_of_two_sizes_are_named(tmp_path: Path) -> None:
    file = write_lerobot(tmp_path, images=True) / "data/chunk-000/file-000.parquet"
    small = png(np.zeros((8, 8, 3), np.uint8))
    edit(file, "observation.images.top", lambda values: values[8].update(bytes=small))
    with pytest.raises(InputError, match="episode episode_000001: expected frames of one size, got 8x8 and 32x48"):
        open_episodes("lerobot", tmp_path).frames(1, [0, 1])


def test_pictures_that_would_fill_the_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 16)
    with pytest.raises(InputError, match=r"step 3: the image does not decode .*exceeds limit"):
        decoded_image(png(np.zeros((8, 8, 3), np.uint8)), "a file, step 3")


def test_folder_of_several_cameras(tmp_path: Path) -> None:
    write_usual_folder(tmp_path)
    shutil.move(tmp_path / "videos", tmp_path / "top")
    shutil.copytree(tmp_path / "top", tmp_path / "wrist")
    with pytest.raises(InputError, match=r"got several; name a folder of top, wrist in data\.camera"):
        open_episodes("folder", tmp_path)
    assert len(open_episodes("folder", tmp_path, camera="wrist").ids) == 3


# HDF5


def test_hdf5_of_an_episode_a_file(tmp_path: Path) -> None:
    """As ALOHA and ACT keep them."""
    h5py = pytest.importorskip("h5py")
    for index, arrays in enumerate(data()):
        with h5py.File(tmp_path / f"episode_{index}.hdf5", "w") as file:
            file["action"], file["observations/qpos"] = arrays["action"], arrays["proprio"]
            file["observations/images/top"], file["observations/images/wrist"] = arrays["image"], arrays["image"] // 2
    with pytest.raises(InputError, match=r"expected one camera of top, wrist, got ''; name one in data\.camera"):
        open_episodes("hdf5", tmp_path)
    episodes = open_episodes("hdf5", tmp_path, camera="wrist,top")
    assert list(episodes.ids) == ["episode_0", "episode_1", "episode_2"]
    assert list(episodes.lengths) == list(LENGTHS)
    frames = episodes.frames(1, [3, 0, 3])
    assert frames.shape == (3, 32, 96, 3)
    assert frames[:, 0, [0, -1], 0].tolist() == [[46, 92], [40, 80], [46, 92]]
    proprio = episodes.proprio(2)
    assert proprio is not None
    np.testing.assert_allclose(proprio, data()[2]["proprio"], rtol=1e-6)


def test_hdf5_cameras_of_two_lengths_and_pictures_of_other_kinds_are_named(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "one.hdf5", "w") as file:
        file["action"], file["observations/images/top"] = np.zeros((6, 2)), np.zeros((6, 8, 8, 3), np.uint8)
        file["observations/images/depth"] = np.zeros((6, 8, 8, 1), np.uint8)
        file["observations/images/wrist"] = np.zeros((5, 8, 8, 3), np.uint8)
        file["observations/state"] = np.arange(6.0)  # one number a step
    with pytest.raises(InputError, match="expected one camera of top, wrist, got ''"):
        open_episodes("hdf5", tmp_path)
    with pytest.raises(InputError, match="as many frames of each camera, got 6 of top, 5 of wrist"):
        open_episodes("hdf5", tmp_path, camera="top,wrist")
    episodes = open_episodes("hdf5", tmp_path, camera="top")
    np.testing.assert_array_equal(episodes.proprio(0), np.arange(6.0)[:, None])
    with h5py.File(tmp_path / "one.hdf5", "a") as file:
        del file["action"]
        file["action/left"] = np.zeros((6, 2))
    with pytest.raises(InputError, match="expected the field action or actions"):
        open_episodes("hdf5", tmp_path, camera="top")


def test_hdf5_names_are_of_each_episode_for_itself(tmp_path: Path) -> None:
    """The field of the last file was looked for in all."""
    h5py = pytest.importorskip("h5py")
    for index, name in enumerate(("action", "actions")):
        with h5py.File(tmp_path / f"{index}.hdf5", "w") as file:
            file[name], file["obs/top"] = np.full((6, 2), index), np.zeros((6, 8, 8, 3), np.uint8)
    episodes = open_episodes("hdf5", tmp_path)
    assert [episodes.actions(index)[0, 0] for index in range(2)] == [0, 1]


def test_hdf5_that_does_not_read_is_named(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    file = write_hdf5(tmp_path) / "push.hdf5"
    with h5py.File(file, "a") as store:
        del store["data/demo_9/actions"]
        store["data/demo_9/acts"] = np.zeros((12, 2))
    with pytest.raises(InputError, match=r"push\.hdf5, episode push/demo_000009: expected the field action or actions"):
        open_episodes("hdf5", tmp_path)
    faults: list[InputError] = []
    assert open_episodes("hdf5", file, on_fault=faults.append).ids == ["demo_000008", "demo_000010"]
    assert len(faults) == 1
    file.write_bytes(file.read_bytes()[:900])
    with pytest.raises(InputError, match=r"push\.hdf5: it does not read as HDF5"):
        open_episodes("hdf5", tmp_path)


# LeRobot


def test_lerobot_camera_must_be_clear(tmp_path: Path) -> None:
    write_lerobot(tmp_path)
    info = json.loads((tmp_path / "meta/info.json").read_text())
    info["features"]["observation.images.wrist"] = info["features"]["observation.images.top"]
    (tmp_path / "meta/info.json").write_text(json.dumps(info))
    with pytest.raises(InputError, match=r"one camera of observation\.images\.top, observation\.images\.wrist, got ''"):
        open_episodes("lerobot", tmp_path)
    assert len(open_episodes("lerobot", tmp_path, camera="observation.images.top").ids) == 3


def test_lerobot_other_layouts_are_refused(tmp_path: Path) -> None:
    write_lerobot(tmp_path)
    info = json.loads((tmp_path / "meta/info.json").read_text())
    (tmp_path / "meta/info.json").write_text(json.dumps({**info, "codebase_version": "v1.6"}))
    with pytest.raises(InputError, match=r"expected codebase_version v3\.x or v2\.x, got v1\.6"):
        open_episodes("lerobot", tmp_path)


@pytest.mark.parametrize(
    ("field", "value"), [("data_path", "{episode_index.gone}"), ("chunks_size", 0), ("chunks_size", "x")]
)
def test_lerobot_patterns_that_are_none_are_named(tmp_path: Path, field: str, value: object) -> None:
    write_lerobot(tmp_path)
    info = json.loads((tmp_path / "meta/info.json").read_text())
    (tmp_path / "meta/info.json").write_text(json.dumps({**info, field: value}))
    with pytest.raises(InputError, match=r"info\.json, field (data|video)_path: expected a pattern"):
        open_episodes("lerobot", tmp_path).actions(0)


@pytest.mark.parametrize(("index", "length"), [(0, 0), (1, 7)])
def test_lerobot_episodes_without_frames_or_there_twice_are_named(tmp_path: Path, index: int, length: int) -> None:
    write_lerobot(tmp_path, images=True)
    file = tmp_path / "meta/episodes/chunk-000/file-000.parquet"
    edit(file, "episode_index", lambda values: values.__setitem__(2, index))
    edit(file, "length", lambda values: values.__setitem__(2, length))
    with pytest.raises(InputError, match=rf"episode {index}: expected it once, with frames"):
        open_episodes("lerobot", tmp_path)


def test_lerobot_lengths_that_disagree_are_named(tmp_path: Path) -> None:
    write_lerobot(tmp_path)
    edit(tmp_path / "meta/episodes/chunk-000/file-000.parquet", "length", lambda values: values.__setitem__(0, 6))
    with pytest.raises(InputError, match=r"episode 2: 6 rows of data but 5\.0 frames of observation\.images\.top"):
        open_episodes("lerobot", tmp_path)
    write_lerobot(tmp_path)
    write_mp4(tmp_path / "videos/observation.images.top/chunk-000/file-001.mp4", data()[2]["image"][:3])
    episodes = open_episodes("lerobot", tmp_path)
    with pytest.raises(
        InputError,
        match=r"file-001\.mp4, episode episode_000002, step 3: expected a frame at 0\.304 s, .*found one at 0\.200 s",
    ):
        episodes.frames(2, [0])
    file = tmp_path / "data/chunk-000/file-001.parquet"
    pq.write_table(pq.read_table(file).slice(0, 4), file)
    with pytest.raises(InputError, match=r"file-001\.parquet, episode episode_000002, field frame_index: .*got 4 rows"):
        open_episodes("lerobot", tmp_path).actions(2)


def test_lerobot_actions_that_do_not_fit_are_named(tmp_path: Path) -> None:
    file = write_lerobot(tmp_path) / "data/chunk-000/file-000.parquet"
    edit(file, "action", lambda values: values.__setitem__(9, [0.0, float("inf")]))
    with pytest.raises(InputError, match=r"episode_000001, field action: .*inf at step 2, dimension 1"):
        open_episodes("lerobot", tmp_path).actions(1)
    edit(file, "action", lambda values: values.__setitem__(slice(None), [[0.0, 0.0, 0.0]] * 19))
    with pytest.raises(InputError, match="episode_000001, field action: expected rows of 2 numbers"):
        open_episodes("lerobot", tmp_path).actions(1)
    edit(file, "action", lambda values: values.__setitem__(9, [0.0]))
    with pytest.raises(InputError, match="episode_000001, field action, step 2: expected 3 numbers as before, got 1"):
        open_episodes("lerobot", tmp_path).actions(1)


def test_lerobot_broken_pictures_are_named(tmp_path: Path) -> None:
    file = write_lerobot(tmp_path / "images", images=True) / "data/chunk-000/file-000.parquet"
    edit(file, "observation.images.top", lambda values: values[8].update(bytes=values[8]["bytes"][:60]))
    with pytest.raises(
        InputError, match=r"file-000\.parquet, episode episode_000001, step 1: the image does not decode"
    ):
        open_episodes("lerobot", tmp_path / "images").frames(1, [0, 1])
    write_lerobot(tmp_path / "video")
    shutil.rmtree(tmp_path / "video/videos")
    with pytest.raises(InputError, match=r"file-000\.mp4, episode episode_000001: not a readable mp4"):
        open_episodes("lerobot", tmp_path / "video").frames(1, [0])


def test_lerobot_from_the_hub_takes_one_camera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    write_lerobot(tmp_path)
    asked = []

    def snapshot_download(name: str, repo_type: str, allow_patterns: list[str]) -> str:
        asked.append((name, repo_type, *allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    episodes = open_episodes("lerobot", "someone/push")
    assert episodes.name == "push"
    assert list(episodes.lengths) == list(LENGTHS)
    videos = "videos/*observation.images.top/**"
    assert asked == [("someone/push", "dataset", "meta/**"), ("someone/push", "dataset", "data/**", videos)]


def test_lerobot_neither_folder_nor_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(InputError, match="someone/absent: no such folder, and the hub gave no data set"):
        open_episodes("lerobot", "someone/absent")


# DINO-WM


def test_dino_lengths_are_read_without_unpickling(tmp_path: Path) -> None:
    """A pickle can run anything, so only a plain list of integers is believed; else the mp4 files are counted."""

    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "ran",))

    for content in (pickle.dumps([Trap()]), pickle.dumps(np.array(LENGTHS)), b"junk"):
        (write_dino(tmp_path) / "train/seq_lengths.pkl").write_bytes(content)
        assert list(open_episodes("dino_wm", tmp_path, split="train").lengths) == list(LENGTHS)
    assert not (tmp_path / "ran").exists()
    for protocol in range(1, pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path / "train/seq_lengths.pkl").write_bytes(pickle.dumps([5, 12, 1], protocol))
        assert list(open_episodes("dino_wm", tmp_path, split="train").lengths) == [5, 12, 1]
    (tmp_path / "train/seq_lengths.pkl").write_bytes(pickle.dumps([5, 300, 1]))
    with pytest.raises(InputError, match=r"seq_lengths\.pkl: expected 3 lengths of 1 to 12"):
        open_episodes("dino_wm", tmp_path, split="train")


def test_dino_tensors_that_disagree_are_named(tmp_path: Path) -> None:
    write_dino(tmp_path)
    write_mp4(tmp_path / "train/obses/episode_002.mp4", data()[2]["image"][:4])
    with pytest.raises(InputError, match=r"episode_002\.mp4, episode 000002, step 4: expected 5 frames"):
        open_episodes("dino_wm", tmp_path, split="train").frames(2, [0])
    (tmp_path / "train/obses/episode_001.mp4").unlink()
    with pytest.raises(InputError, match=r"episode_001\.mp4, episode 000001: not a readable mp4"):
        open_episodes("dino_wm", tmp_path, split="train").frames(1, [0])
    (tmp_path / "train/seq_lengths.pkl").write_bytes(pickle.dumps([7, 12, 6]))
    with pytest.raises(InputError, match=r"rel_actions\.pth, episode 000002, field action: .*nan at step 5"):
        open_episodes("dino_wm", tmp_path, split="train").actions(2)
    torch.save(torch.full((3, 12, 2), torch.inf), tmp_path / "train/velocities.pth")
    with pytest.raises(
        InputError, match=r"velocities\.pth, episode 000001, field proprio: .*inf at step 0, dimension 2"
    ):
        open_episodes("dino_wm", tmp_path, split="train").proprio(1)
    torch.save(torch.zeros(3, 11, 2), tmp_path / "train/velocities.pth")
    with pytest.raises(InputError, match="expected rel_actions, states and velocities"):
        open_episodes("dino_wm", tmp_path, split="train")
    torch.save({"rows": [1]}, tmp_path / "train/velocities.pth")
    with pytest.raises(InputError, match=r"velocities\.pth: expected a tensor of 3 dimensions, got dict"):
        open_episodes("dino_wm", tmp_path, split="train")
    (tmp_path / "train/velocities.pth").write_bytes(pickle.dumps(Path("x"), 2))
    with pytest.raises(InputError, match=r"velocities\.pth: expected a tensor saved by torch"):
        open_episodes("dino_wm", tmp_path, split="train")
    with pytest.raises(InputError, match="expected the split 'train' or 'val' of a DINO-WM data set, got ''"):
        open_episodes("dino_wm", tmp_path)


def test_dino_rope_and_granular(tmp_path: Path) -> None:
    """A tensor of float frames an episode, float64 actions of all, and the published 90/10 split."""
    torch.save(torch.arange(20 * 4 * 4, dtype=torch.float64).reshape(20, 4, 4), tmp_path / "actions.pth")
    for index in range(20):
        (tmp_path / f"{index:06d}").mkdir()
        frames = torch.full((4, 8, 8, 3), float(index)) + torch.arange(4.0)[:, None, None, None]
        torch.save(frames, tmp_path / f"{index:06d}" / "obses.pth")
    train, val = (open_episodes("dino_wm", tmp_path, split=split) for split in ("train", "val"))
    order = torch.randperm(20, generator=torch.Generator().manual_seed(42)).tolist()
    assert [int(name) for name in train.ids] == sorted(order[:18])
    assert [int(name) for name in val.ids] == sorted(order[18:])
    first = int(val.ids[0])
    assert val.frames(0, [3, 0])[:, 0, 0, 0].tolist() == [first + 3, first]
    assert val.frames(0, [0]).dtype == np.uint8
    assert val.actions(0)[1].tolist() == [16 * first + k for k in (4, 5, 6, 7)]
    assert val.proprio(0) is None
    torch.save(torch.zeros(3, 8, 8, 3), tmp_path / val.ids[1] / "obses.pth")
    with pytest.raises(InputError, match=rf"episode {val.ids[1]}: expected 4 frames .*got \[3, 8, 8, 3\]"):
        val.frames(1, [0])
    (tmp_path / val.ids[1] / "obses.pth").unlink()
    with pytest.raises(InputError, match=rf"obses\.pth, episode {val.ids[1]}: the file is missing"):
        val.frames(1, [0])
