"""Kinds of damaged data, each told in one sentence that names the file, the row and what was expected: by ``check``."""

from __future__ import annotations

import contextlib
import copy
import gzip
import io
import json
import random
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from rlvr_world import cli
from rlvr_world.domains.video.readers import open_episodes
from rlvr_world.errors import InputError
from tests.test_corrupted_folders import COUNT

Rows = list[dict[str, Any]]
Harm = Callable[[Any], Any]
AT = 4
"""The row that is harmed, counted from 1."""


def at(*path: Any) -> Callable[[Any], Harm]:
    """A value in the harmed row is replaced; by ``...`` it is removed."""

    def by(value: Any) -> Harm:
        def harm(rows: Rows) -> None:
            inner = rows[AT - 1]
            for key in path[:-1]:
                inner = inner[key]
            if value is ...:
                del inner[path[-1]]
            else:
                inner[path[-1]] = value

        return harm

    return by


DOOR = ("tick_state", "objects", 1)
TEXT_ROWS: dict[str, tuple[Harm, str]] = {
    "a column is missing": (at("tick_state")(...), "expected the key tick_state"),
    "the state is a list": (at("current_state")([]), "current_state: expected an object, got []"),
    "the objects are missing": (at("tick_state", "objects")(...), "tick_state.objects: expected a list, got no such"),
    "the objects are text": (at("tick_state", "objects")("door"), "tick_state.objects: expected a list, got 'door'"),
    "an object is a number": (at(*DOOR)(7), "tick_state.objects[1]: expected an object, got 7"),
    "an object has no uuid": (at(*DOOR, "uuid")(...), "tick_state.objects[1].uuid: expected an integer"),
    "a uuid is text": (at(*DOOR, "uuid")("1"), "objects[1].uuid: expected an integer, got '1'"),
    "a uuid is true": (at(*DOOR, "uuid")(True), "objects[1].uuid: expected an integer, got True"),
    "a uuid stands twice": (at(*DOOR, "uuid")(0), "expected each uuid once, got 0 again"),
    "a name is null": (at(*DOOR, "name")(None), "objects[1].name: expected a string, got None"),
    "properties are a list": (at(*DOOR, "properties")([]), "objects[1].properties: expected an object"),
    "contents are objects": (at(*DOOR, "contains")([{}]), "objects[1].contains: expected a list of names"),
    "the score is text": (at("next_score_state", "score")("1"), "next_score_state.score: expected a number, got '1'"),
    "the end of the game is a number": (at("next_score_state", "gameOver")(1), "gameOver: expected true or false"),
    "the action is missing": (at("action_state", "lastAction")(...), "action_state.lastAction: expected a string"),
    "the next uuid is a decimal": (at("current_state", "max_UUID")(2.5), "max_UUID: expected an integer, got 2.5"),
    "the game has no name": (at("game")(None), "game: expected a string, got None"),
    "a property is NaN": (at(*DOOR, "properties", "knocks")(float("nan")), "NaN is not JSON"),
    "half an emoji in a name": (
        at(*DOOR, "name")("door \ud83d"),
        "objects[1].name: expected text, got U+D83D at character 5",
    ),
    "half an emoji in a key": (at(*DOOR, "properties", "\udc00")(1), "properties: expected text, got U+DC00"),
    "a NUL in the contents": (at(*DOOR, "contains")(["a\0"]), "objects[1].contains[0]: expected text, got U+0000"),
    "an escape code in the action": (
        at("action_state", "lastAction")("\x1b[31mlook"),
        "lastAction: expected text, got U+001B",
    ),
    "a carriage return": (at("game")("house\r"), "field game: expected text, got U+000D at character 5"),
    "a line separator": (at(*DOOR, "properties", "note")("a\u2028b"), "properties.note: expected text, got U+2028"),
    "a next line": (at(*DOOR, "type")("Door\x85"), "objects[1].type: expected text, got U+0085"),
    "a number of 5,000 digits": (at("current_state", "max_UUID")("DIGITS"), "expected the line to be JSON"),
    "brackets without end": (at("tick_state", "deep")("BRACKETS"), "expected the line to be JSON"),
    "a property is infinite": (at(*DOOR, "properties", "knocks")(float("-inf")), "-Infinity is not JSON"),
}
PAGE = "[1] RootWebArea 'Shop'\n\t[2] link 'Cart'"
WEB_ROWS: dict[str, tuple[Harm, str]] = {
    "a page is missing": (at("next_observation")(...), "expected the column next_observation"),
    "a page is a number": (at("observation")(3), "observation: expected a string, got 3"),
    "a page is empty": (at("observation")(""), "observation: expected an accessibility tree, got ''"),
    "a line is no node": (at("next_observation")(PAGE + "\n\t[5]"), "field next_observation: line 3"),
    "half an emoji on a page": (
        at("observation")(PAGE + "\n\t[9] link '\ud83d'"),
        "observation: expected text, got U+D83D",
    ),
    "a form feed on a page": (at("next_observation")(PAGE + "\f"), "next_observation: expected text, got U+000C"),
    "lines that end as on Windows": (at("observation")(PAGE.replace("\n", "\r\n")), "expected text, got U+000D"),
    "a bell in the goal": (at("goal")("buy\a"), "field goal: expected text, got U+0007 at character 3"),
    "an action that nobody can take": (at("action")("fly [2]"), "action"),
}
TEXT_FILES: dict[str, tuple[Harm, str]] = {
    "gzip cut off": (lambda data: data[:-20], "expected a whole gzip file"),
    "gzip with a flipped byte": (lambda data: data[:-6] + bytes([data[-6] ^ 255]) + data[-5:], "gzip file"),
    "no gzip at all": (lambda data: gzip.decompress(data), "expected a whole gzip file"),
    "empty": (lambda data: gzip.compress(b""), "expected at least one text-game row that reads, got none"),
    "a line cut off": (lambda data: gzip.compress(gzip.decompress(data)[:-30]), "row 12: expected the line to be JSON"),
    "another encoding": (
        lambda data: gzip.compress(gzip.decompress(data).replace(b"door", b"t\xfcr")),
        "row 1: expected",
    ),
    "lines that end as once on a Mac": (
        lambda data: gzip.compress(gzip.decompress(data).replace(b"\n", b"\r")),
        "row 1: expected the line to be JSON",
    ),
    "UTF-16": (
        lambda data: gzip.compress(gzip.decompress(data).decode().encode("utf-16")),
        "row 1: expected the line to be JSON",
    ),
    "a list on a line": (lambda data: gzip.compress(b"[1]\n" + gzip.decompress(data)), "row 1: expected the line"),
}


def check(recipe: str, settings: list[str], file: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The verb refuses, in a sentence that names the file and says what is wrong and what to do or was expected."""
    code = cli.main(["check", recipe, *settings])
    captured = capsys.readouterr()
    said = captured.err if code == 2 else captured.out
    assert code in (1, 2), said
    assert code == 1 or len(said.strip().splitlines()) == 1, said
    assert words in said
    assert file in said
    assert "expected" in said or "does not read" in said or "not a readable" in said or "unpack" in said.lower()
    assert "Traceback" not in said


@pytest.fixture(scope="module")
def good(house: Any) -> Path:
    return house(12)


def read(file: Path) -> Rows:
    return [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]


@pytest.mark.parametrize("kind", TEXT_ROWS)
def test_text_rows(kind: str, good: Path, house: Any, capsys: pytest.CaptureFixture[str]) -> None:
    harm, words = TEXT_ROWS[kind]
    rows = copy.deepcopy(read(good))
    harm(rows)
    bad = house(rows, "bad.jsonl.gz")
    text = gzip.decompress(bad.read_bytes())
    text = text.replace(b'"DIGITS"', b"9" * 5000).replace(b'"BRACKETS"', b"[" * 100_000)
    bad.write_bytes(gzip.compress(text))
    check("bytesized32", [f"data.train={good}", f"data.test={bad}"], f"bad.jsonl.gz, row {AT}", words, capsys)


@pytest.mark.parametrize("kind", TEXT_FILES)
def test_text_files(kind: str, good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    harm, words = TEXT_FILES[kind]
    bad = tmp_path / "bad.jsonl.gz"
    bad.write_bytes(harm(good.read_bytes()))
    check("bytesized32", [f"data.train={good}", f"data.test={bad}"], "bad.jsonl.gz", words, capsys)


def web_rows(count: int = 8) -> Rows:
    return [
        {"observation": PAGE, "action": "click [2]", "next_observation": PAGE + f"\n\t[{i}] link 'x'"}
        for i in range(3, 3 + count)
    ]


@pytest.mark.parametrize("kind", WEB_ROWS)
def test_web_rows(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    harm, words = WEB_ROWS[kind]
    rows = web_rows()
    harm(rows)
    bad = tmp_path / "bad.jsonl"
    bad.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = [f"data.train={bad}", f"data.test={bad}", "data.reasoning_column=", "data.style=published"]
    given += ["data.skip_faulty=false", "sft.reasoning=false"]
    check("webarena-published", given, f"bad.jsonl, row {AT}", words, capsys)


def parquet(path: Path, rows: Rows) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def parquet_rows() -> Rows:
    thing = {"name": "a", "uuid": 1, "type": "T", "properties": {"on": True}, "contains": []}
    state = json.dumps({"game_state": [thing, {"score": 0, "gameOver": False, "gameWon": False}]})
    row = {
        "prompt": [{"role": "user", "content": "UUID base is 2\nTask Description: x"}],
        "reward_model": {"ground_truth": state},
        "extra_info": {"data_state": state, "data_action": "look"},
    }
    return [copy.deepcopy(row) for _ in range(6)]


PARQUET: dict[str, tuple[Harm, str]] = {
    "a truth that is no JSON": (at("reward_model", "ground_truth")("{"), "reward_model.ground_truth"),
    "a state without its score": (at("extra_info", "data_state")('{"game_state": []}'), "expected the score as last"),
    "a prompt without messages": (at("prompt")([]), "prompt: expected a list of messages"),
    "half an emoji in the truth": (
        at("reward_model", "ground_truth")('{"game_state": ["\\ud83d"]}'),
        "reward_model.ground_truth.game_state[0]: expected text, got U+D83D",
    ),
    "no action": (at("extra_info", "data_action")(None), "extra_info.data_action: expected a string, got None"),
}


@pytest.mark.parametrize("kind", PARQUET)
def test_parquet_rows(kind: str, good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    harm, words = PARQUET[kind]
    rows = parquet_rows()
    harm(rows)
    bad = parquet(tmp_path / "bad.parquet", rows)
    check("bytesized32", [f"data.train={good}", f"data.test={bad}"], f"bad.parquet, row {AT}", words, capsys)


def test_a_parquet_file_cut_off(good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = parquet(tmp_path / "bad.parquet", parquet_rows())
    bad.write_bytes(bad.read_bytes()[:-9])
    check("bytesized32", [f"data.train={good}", f"data.test={bad}"], "bad.parquet", "expected a whole parquet", capsys)


def test_a_parquet_text_of_another_encoding(good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad, table = tmp_path / "bad.parquet", pa.Table.from_pylist(parquet_rows())
    raw = pa.array([b"t\xfcr"] * len(table), pa.binary()).view(pa.string())
    pq.write_table(table.append_column("note", raw), bad)
    check("bytesized32", [f"data.train={good}", f"data.test={bad}"], "bad.parquet", "expected a whole parquet", capsys)


def test_parquet_shards_of_two_splits(good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("train-0.parquet", "test-0.parquet"):
        parquet(tmp_path / name, parquet_rows())
    given = [f"data.train={good}", f"data.test={tmp_path}"]
    check("bytesized32", given, str(tmp_path), "expected the shards of one split, got test, train", capsys)


# Video


def npz(change: Callable[[dict[str, np.ndarray]], Any]) -> Callable[[Path], None]:
    def harm(file: Path) -> None:
        with np.load(file) as stored:
            arrays = dict(stored)
        change(arrays)
        np.savez_compressed(file, **arrays)

    return harm


def bad_number(value: float) -> Callable[[dict[str, np.ndarray]], None]:
    def change(arrays: dict[str, np.ndarray]) -> None:
        arrays["action"][3, 1] = value

    return change


def spoil_frames(file: Path) -> None:
    """A byte in the middle of the packed frames: the archive's index stays whole."""
    data = bytearray(file.read_bytes())
    data[data.index(b"image.npy") + 400] ^= 255
    file.write_bytes(data)


VIDEO: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a file cut off": (lambda file: file.write_bytes(file.read_bytes()[:-200]), "not a readable .npz"),
    "no archive": (lambda file: file.write_text("frames"), "not a readable .npz"),
    "no actions": (npz(lambda a: a.pop("action")), "expected the arrays image and action, got no action"),
    "frames as decimals": (npz(lambda a: a.update(image=a["image"] / 255)), "field image: expected uint8 [T, H, W, 3]"),
    "frames without colours": (npz(lambda a: a.update(image=a["image"][..., 0])), "field image: expected uint8"),
    "two actions too few": (npz(lambda a: a.update(action=a["action"][:-2])), "expected as many rows as frames"),
    "actions of another width": (npz(lambda a: a.update(action=a["action"][:, :1])), "expected as many rows as frames"),
    "an action that is NaN": (npz(bad_number(np.nan)), "expected finite numbers, got nan at step 3, dimension 1"),
    "an action that is infinite": (npz(bad_number(np.inf)), "expected finite numbers, got inf at step 3"),
    "frames that do not unpack": (spoil_frames, "field image: does not read"),
}


@pytest.fixture(scope="module")
def episodes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("square")
    for episode in range(12):
        draw = np.random.default_rng(episode)
        image = draw.integers(0, 255, (9, 16, 16, 3)).astype(np.uint8)
        action = draw.normal(size=(9, 2)).astype(np.float32)
        np.savez_compressed(folder / f"square_eps_{episode:08d}.npz", image=image, action=action)
    return folder


def video_settings(folder: Path) -> list[str]:
    shape = [
        "data.height=16",
        "data.width=16",
        "data.frame_skip=1",
        "data.action_pool=1",
        "data.train_every=1",
        "data.test_every=1",
        "data.lpips=none",
        "data.reward.lpips=0",
    ]
    return ["data.source=npz", f"data.path={folder}", *shape, "data.split.test=0.3", "data.split.valid=0.3"]


@pytest.mark.parametrize("kind", VIDEO)
def test_episodes(kind: str, episodes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    harm, words = VIDEO[kind]
    folder = Path(shutil.copytree(episodes, tmp_path / "square"))
    harm(folder / "square_eps_00000007.npz")
    check("pusht", video_settings(folder), "square_eps_00000007", words, capsys)


# Recorded video


def picture(step: int) -> np.ndarray:
    """Grey that tells the step of its episode."""
    return np.full((32, 32, 3), 8 * step, np.uint8)


def mp4(file: Path, pictures: list[np.ndarray], fps: int = 10, **options: str) -> None:
    av = pytest.importorskip("av")
    file.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "1", "g": "4", **options})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for shown in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
        container.mux(stream.encode())


def write_set(root: Path) -> dict[str, Any]:
    """A LeRobotDataset v3 of eight episodes at 10 frames a second in one file each; returns its three tables."""
    top, steps, episodes = "observation.images.top", [], []
    for episode in range(8):
        for step in range(9):
            row = {"action": [float(step % 3), float(step)], "observation.state": [float(step), 0.0]}
            steps.append(row | {"timestamp": step / 10, "frame_index": step, "episode_index": episode})
        row = {"episode_index": episode, "length": 9, "data/chunk_index": 0, "data/file_index": 0}
        row |= {f"videos/{top}/chunk_index": 0, f"videos/{top}/file_index": 0}
        row |= {f"videos/{top}/from_timestamp": episode * 0.9, f"videos/{top}/to_timestamp": episode * 0.9 + 0.9}
        episodes.append(row)
    features = {name: {"dtype": "float32", "shape": [2]} for name in ("action", "observation.state")}
    features |= {"timestamp": {"dtype": "float32", "shape": [1]}, top: {"dtype": "video", "shape": [32, 32, 3]}}
    info = {"codebase_version": "v3.0", "fps": 10, "features": features}
    info["data_path"] = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
    info["video_path"] = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
    mp4(root / VIDEO_FILE, [picture(step) for _ in range(8) for step in range(9)])
    return {"info": info, "episodes": episodes, "steps": steps}


VIDEO_FILE = "videos/observation.images.top/chunk-000/file-000.mp4"


def save(root: Path, tables: dict[str, Any]) -> None:
    for name, file in (("episodes", "meta/episodes/chunk-000"), ("steps", "data/chunk-000")):
        (root / file).mkdir(parents=True, exist_ok=True)
        table = pa.Table.from_pylist(tables[name]) if isinstance(tables[name], list) else tables[name]
        pq.write_table(table, root / file / "file-000.parquet")
    (root / "meta/info.json").write_text(json.dumps(tables["info"]))


Set = dict[str, Any]
SetHarm = Callable[[Path, Set], Any]


def second_camera(height: int) -> SetHarm:
    """A wrist camera of this height, which shows what the other one does."""

    def harm(root: Path, tables: Set) -> None:
        tables["info"]["features"]["observation.images.wrist"] = {"dtype": "video", "shape": [height, 32, 3]}
        for row in tables["episodes"]:
            row |= {key.replace("top", "wrist"): value for key, value in row.items() if "top" in key}
        shown = [picture(step)[:height] for _ in range(8) for step in range(9)]
        mp4(root / VIDEO_FILE.replace("top", "wrist"), shown)

    return harm


def lacking(root: Path, tables: Set) -> None:
    second_camera(32)(root, tables)
    tables["episodes"][3] |= {key: None for key in tables["episodes"][3] if "wrist" in key}


def drifting(root: Path, tables: Set) -> None:
    """Each episode is said to begin 0.02 s later than the one before ends."""
    for number, row in enumerate(tables["episodes"]):
        for end in ("from", "to"):
            row[f"videos/observation.images.top/{end}_timestamp"] += 0.02 * number


def as_images(content: Callable[[bytes, int], Any]) -> SetHarm:
    def harm(root: Path, tables: Set) -> None:
        tables["info"]["features"]["observation.images.top"]["dtype"] = "image"
        for number, row in enumerate(tables["steps"]):
            stream = io.BytesIO()
            Image.fromarray(picture(row["frame_index"])).save(stream, "png")
            row["observation.images.top"] = content(stream.getvalue(), number)

    return harm


def wide_state(root: Path, tables: Set) -> None:
    tables["info"]["features"]["observation.state"]["shape"] = [2, 3]
    for row in tables["steps"]:
        row["observation.state"] = [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]


def categorical(root: Path, tables: Set) -> None:
    table = pa.Table.from_pylist(tables["steps"])
    column = table["episode_index"].combine_chunks().dictionary_encode()
    tables["steps"] = table.set_column(table.column_names.index("episode_index"), "episode_index", column)


def at_row(number: int, field: str, value: Any) -> SetHarm:
    return lambda root, tables: tables["steps"][number].update({field: value})


def without(*path: str) -> SetHarm:
    def harm(root: Path, tables: Set) -> None:
        inner = tables["info"]
        for key in path[:-1]:
            inner = inner[key]
        del inner[path[-1]]

    return harm


def renamed(root: Path, tables: Set) -> None:
    for part in (tables["info"]["features"], *tables["steps"]):
        part["actions"], part["state"] = part.pop("action"), part.pop("observation.state")


def three_times(root: Path, tables: Set) -> None:
    mp4(root / VIDEO_FILE, [picture(step // 3 % 9) for step in range(3 * 72)], fps=30)


def refreshing(root: Path, tables: Set) -> None:
    shown = [picture(step) for _ in range(8) for step in range(9)]
    mp4(root / VIDEO_FILE, shown, **{"x264-params": "intra-refresh=1:keyint=10:bframes=0"})


def shorter(root: Path, tables: Set) -> None:
    mp4(root / VIDEO_FILE, [picture(step) for _ in range(8) for step in range(9)][:-2])


def cut_off(root: Path, tables: Set) -> None:
    (root / VIDEO_FILE).write_bytes((root / VIDEO_FILE).read_bytes()[:-500])


SETS: dict[str, tuple[SetHarm, str, str]] = {
    "an episode lacks the camera": (lacking, "wrist", "episode 3: it has no video of observation.images.wrist"),
    "the times of episodes drift": (drifting, "", "episode_000003, step 0: expected a frame at 2.760 s, give or take"),
    "no frame rate": (without("fps"), "", "info.json, field fps: expected a number, got no such key"),
    "a frame rate of nothing": (lambda root, tables: tables["info"].update(fps=0), "", "field fps: expected frames"),
    "a feature without a type": (
        without("features", "action", "dtype"),
        "",
        "features.action.dtype: expected a string",
    ),
    "no pattern of video files": (without("video_path"), "", "field video_path: expected a string, got no such key"),
    "a pattern of an unknown name": (
        lambda root, tables: tables["info"].update(video_path="videos/{camera}.mp4"),
        "",
        "field video_path: expected a pattern of a file's name",
    ),
    "an older version": (lambda root, tables: tables["info"].update(codebase_version="v1.6"), "", "v3.x or v2.x, got"),
    "no actions": (without("features", "action"), "", "expected a feature action or actions, got only"),
    "two cameras and none is named": (second_camera(32), "", "expected one camera of observation.images.top, observ"),
    "cameras of two heights": (second_camera(16), "top,wrist", "cameras of one height to put side by side, got"),
    "a video that is short": (shorter, "", "episode_000007, step 7: expected a frame at 7.000 s, give or take 0.050"),
    "a video cut off": (cut_off, "", "file-000.mp4, episode episode_00000"),
    "a step is missing": (lambda root, tables: tables["steps"].pop(22), "", "field frame_index: expected the steps 0"),
    "an action that is NaN": (at_row(22, "action", [0.0, float("nan")]), "", "got nan at step 4, dimension 1"),
    "an action too short": (at_row(22, "action", [0.0]), "", "field action, step 4: expected 2 numbers as before"),
    "a time that is none": (at_row(22, "timestamp", float("nan")), "", "step 4: expected a frame at nan s"),
    "a picture that does not decode": (
        as_images(lambda content, number: {"bytes": content[: 40 if number == 22 else None], "path": None}),
        "",
        "episode_000002, step 4: the image does not decode",
    ),
}
READ: dict[str, tuple[SetHarm, str]] = {
    "a video of another rate": (three_times, ""),
    "images as bytes": (as_images(lambda content, number: content), ""),
    "images beside their paths": (as_images(lambda content, number: {"bytes": content, "path": "a.png"}), ""),
    "states of shape (2, 3)": (wide_state, ""),
    "a categorical episode column": (categorical, ""),
    "a stream that refreshes by stripes": (refreshing, ""),
    "no last action": (at_row(8, "action", None), ""),
    "a last action of NaN": (at_row(8, "action", [float("nan")] * 2), ""),
    "other names": (renamed, ""),
    "a camera by the end of its name": (second_camera(32), "wrist"),
    "two cameras side by side": (second_camera(32), "wrist,top"),
}


def robot(root: Path, camera: str, tmp_path: Path) -> list[str]:
    size = ["data.height=32", f"data.width={64 if ',' in camera else 32}", "data.frame_skip=1", "data.action_pool=1"]
    where = [f"data.path={root}", f"data.camera={camera}", f"data.cache={tmp_path / 'cache'}"]
    return [
        *where,
        *size,
        "data.lpips=none",
        "data.reward.lpips=0",
        "data.split.test=0.3",
        "data.split.valid=0.3",
        "data.test_every=1",
        "data.train_every=1",
    ]


@pytest.mark.parametrize("kind", SETS)
def test_recorded_video(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    harm, camera, words = SETS[kind]
    root = tmp_path / "push"
    tables = write_set(root)
    harm(root, tables)
    save(root, tables)
    settings = robot(root, camera, tmp_path)
    code = cli.main(["check", "robot", *settings])
    captured = capsys.readouterr()
    said = captured.err if code == 2 else captured.out
    assert code in (1, 2), said
    assert words in said
    assert str(root) in said
    assert "Traceback" not in said
    assert code == 1 or len(said.strip().splitlines()) == 1, said
    if "episode_" in words or "step " in words or "no video of" in words:
        code = cli.main(["check", "robot", *settings, "data.skip_faulty=true"])
        assert code == (2 if kind in ("the times of episodes drift", "a video cut off") else 0), kind
        said = capsys.readouterr()
        assert "episodes that do not read" in said.out or "reads; the last: " in said.err


@pytest.mark.parametrize("kind", READ)
def test_recorded_video_that_reads(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    harm, camera = READ[kind]
    root = tmp_path / "push"
    tables = write_set(root)
    harm(root, tables)
    save(root, tables)
    assert cli.main(["check", "robot", *robot(root, camera, tmp_path)]) == 0, capsys.readouterr().out
    episodes = open_episodes("lerobot", root, camera=camera)
    for episode in range(8):
        frames = episodes.frames(episode, range(9))
        assert frames.shape == (9, 32, 64 if "," in camera else 32, 3)
        assert np.round(frames.mean((1, 2, 3)) / 8).tolist() == list(range(9))
        np.testing.assert_array_equal(episodes.actions(episode)[:8], [[step % 3, step] for step in range(8)])
    felt = episodes.proprio(0)
    assert felt is not None
    assert felt.shape == (9, 6 if harm is wide_state else 2)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path to each value in some JSON."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield (*path, key)
        yield from places(one, (*path, key))


def test_any_wrong_value_is_read_or_told(tmp_path: Path) -> None:
    """One value of the metadata, or of one or all rows, is anything: no exception but an InputError comes of it."""
    root, draw, told = tmp_path / "push", random.Random(0), list[str]()
    good = write_set(root)
    wrong = [None, True, 0, -1, 2.5, float("nan"), 1e12, "", "x", [], [1], {}, [None], "v3.0"]
    for _ in range(120):
        tables = copy.deepcopy(good)
        name = draw.choice(("info", "episodes", "steps"))
        path = draw.choice(list(places(tables[name] if name == "info" else tables[name][0])))
        for row in [tables["info"]] if name == "info" else draw.choice((tables[name], tables[name][20:21])):
            *outer, last = path
            for key in outer:
                row = row[key]
            row[last] = draw.choice(wrong)
        with contextlib.suppress(pa.ArrowException, TypeError):  # of a column that cannot be written
            save(root, tables)
        try:
            episodes = open_episodes("lerobot", root)
            for number, length in enumerate(episodes.lengths):
                _ = episodes.actions(number), episodes.proprio(number), episodes.frames(number, [0, length - 1])
        except InputError as error:
            told.append(str(error))
    assert len(told) > 40
    assert all(re.search("expected|it has no video of|rows of data but|does not decode", text) for text in told)


def test_what_is_whole_passes(good: Path, episodes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "pusht", *video_settings(episodes)]) == 0
    assert "faults: none, every row and frame reads" in capsys.readouterr().out


RULES: dict[str, tuple[str, str]] = {
    "cut off": ('{"object_rules"', "expected the rules file to be JSON"),
    "a kind is missing": (
        '{"object_rules": {}, "action_rules": {}}',
        "field score_rules: expected an object, got no such",
    ),
    "a rule is a number": (
        '{"object_rules": {"house-0": 1}, "action_rules": {}, "score_rules": {}}',
        "expected an object of",
    ),
    "half an emoji": (
        '{"object_rules": {"house-0": "\\ud83d"}, "action_rules": {}, "score_rules": {}}',
        "field object_rules.house-0: expected text, got U+D83D",
    ),
    "a game is missing": (
        '{"object_rules": {"barn": ""}, "action_rules": {"barn": ""}, "score_rules": {"barn": ""}}',
        "field object_rules: expected rules for the game 'house-0', got rules only for barn",
    ),
}


@pytest.mark.parametrize("kind", RULES)
def test_rules(kind: str, good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, words = RULES[kind]
    (tmp_path / "rules.json").write_text(content)
    given = [
        f"data.train={good}",
        f"data.test={good}",
        "data.style.rules=true",
        f"data.rules={tmp_path / 'rules.json'}",
    ]
    check("bytesized32", given, "rules.json", words, capsys)


def test_how_many_kinds_there_are() -> None:
    rows = sum(map(len, (TEXT_ROWS, TEXT_FILES, WEB_ROWS, PARQUET, VIDEO, RULES, SETS, READ))) + 3
    assert rows + COUNT >= 170
