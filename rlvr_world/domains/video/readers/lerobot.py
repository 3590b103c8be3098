"""LeRobotDataset, v3 and v2: parquet files of steps, mp4 files or images, and in ``meta/`` where each episode lies.

Source of the layouts: huggingface/lerobot, codebase versions v3.0 (many episodes in each file,
``meta/episodes/**.parquet``) and v2.0, v2.1 (a file an episode, ``meta/episodes.jsonl``); ``meta/info.json`` has the
patterns of the files' names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rlvr_world.domains.row_files import OnFault, download, parse_json, read_records, take, telling
from rlvr_world.domains.video.episodes import (
    checked_actions,
    checked_rows,
    checked_steps,
    chosen_cameras,
    decoded_image,
    side_by_side,
    stacked,
)
from rlvr_world.domains.video.readers.parquet import ACTION, STATE, matrix, numbers, read_table
from rlvr_world.errors import InputError

_VIDEO = {"chunk_index": int, "file_index": int, "from_timestamp": float, "to_timestamp": float}
"""Of an episode and a camera, where its frames lie."""
_AGAIN = "download or export it again"


class LeRobotEpisodes:
    """Reads a local data set, or one of the hub (``owner/name``) where there is no such folder.

    ``camera`` names picture features, see ``chosen_cameras``. Lengths come from ``meta/``; whether parquet and mp4
    agree with it is checked as each episode is read. The frame of a step is the one that was shown at its time.
    Raises InputError for another version, a missing or ambiguous camera, and metadata that contradicts itself; what is
    wrong with one episode there goes to ``on_fault``, if given.
    """

    def __init__(self, folder: Path | str, camera: str = "", on_fault: OnFault = None) -> None:
        self.name = Path(folder).resolve().name
        local = Path(folder).is_dir()
        self._root = Path(folder) if local else download(str(folder), ["meta/**"])
        where = self._root / "meta" / "info.json"
        self._info, self._features = _read_info(where)
        pictures = [key for key, feature in self._features.items() if feature["dtype"] in ("video", "image")]
        self._cameras = chosen_cameras(pictures, camera, str(where))
        self._action, self._state = (next((n for n in names if n in self._features), "") for names in (ACTION, STATE))
        if not self._action:
            got = f"got only {', '.join(self._features)}; rename the one that holds the actions"
            raise InputError(f"{where}: expected a feature {' or '.join(ACTION)}, {got}")
        if not local:
            download(str(folder), ["data/**", *(f"videos/*{key}/**" for key in self._cameras)])
        self._filled: Counter[Path] = Counter()
        """Frames that the episodes of a video file have together."""
        self._rows = self._episode_rows(where, on_fault)
        self.ids: Sequence[str] = [f"episode_{row['episode_index']:06d}" for row in self._rows]
        self.lengths: Sequence[int] = [row["length"] for row in self._rows]
        self._videos: dict[Path, Any] = {}
        self.files = [self._root]
        self._table = lru_cache(maxsize=4)(self._read_table)
        self._images = lru_cache(maxsize=4)(self._read_images)
        self._places = lru_cache(maxsize=4096)(self._find_frames)

    def frames(self, episode: int, steps: Sequence[int]) -> np.ndarray:
        where = self._where(episode)
        steps = checked_steps(steps, where, self.lengths[episode])
        return side_by_side({camera: self._view(episode, steps, camera) for camera in self._cameras}, where)

    def _view(self, episode: int, steps: Sequence[int], camera: str) -> np.ndarray:
        """uint8 [len(steps), H, W, 3] of one camera."""
        if self._features[camera]["dtype"] == "image":
            images, where = self._images(episode, camera), self._where(episode)
            return stacked([decoded_image(images[step], f"{where}, step {step}") for step in steps], where)
        from rlvr_world.domains.video.readers.mp4 import read_frames

        return read_frames(self._open(episode, camera), steps, self.ids[episode], self._places(episode, camera))

    def actions(self, episode: int) -> np.ndarray:
        return checked_actions(*self._matrix(episode, self._action))

    def proprio(self, episode: int) -> np.ndarray | None:
        return checked_rows(*self._matrix(episode, self._state)) if self._state else None

    def _episode_rows(self, info: Path, on_fault: OnFault) -> list[dict[str, Any]]:
        """One row an episode, sorted: its length, and where its steps and its pictures lie."""
        folder, videos = info.parent / "episodes", [c for c in self._cameras if self._features[c]["dtype"] == "video"]
        rows, columns = list[dict[str, Any]](), dict[str, type](episode_index=int, length=int)
        if self._info["codebase_version"].startswith("v3"):
            columns |= {"data/chunk_index": int, "data/file_index": int}
            columns |= {f"videos/{camera}/{part}": kind for camera in videos for part, kind in _VIDEO.items()}
            for file in sorted(folder.glob("**/*.parquet")):
                rows += read_table(file, list(columns)).to_pylist()
        elif (file := folder.with_suffix(".jsonl")).is_file():
            rows = [record for *_, record in read_records([file])]
        if not rows:
            raise InputError(f"{folder}: expected the episodes' lengths and places, found none; {_AGAIN}")
        kept: dict[int, dict[str, Any]] = {}
        for row in rows:
            with telling(on_fault):
                where = f"{folder}, episode {row.get('episode_index')}"
                if any(row.get(f"videos/{camera}/from_timestamp", 0.0) is None for camera in videos):
                    mend = "name another camera, or leave the episode out with data.skip_faulty=true"
                    raise InputError(f"{where}: it has no video of {' or '.join(videos)}; {mend}")
                number, length, *_ = (take(row, key, kind, where) for key, kind in columns.items())
                if length < 1 or number in kept:
                    raise InputError(f"{where}: expected it once, with frames, got {length} of them; {_AGAIN}")
                self._check_times(row, videos, where)
                kept[number] = row
        for camera in videos:
            for row in sorted(kept.values(), key=lambda row: row.get(f"videos/{camera}/from_timestamp", 0.0)):
                file = self._place("video_path", row, camera)
                row[f"before/{camera}"] = self._filled[file]
                self._filled[file] += row["length"]
        return [kept[number] for number in sorted(kept)]

    def _check_times(self, row: dict[str, Any], videos: Sequence[str], where: str) -> None:
        for camera in videos if self._info["codebase_version"].startswith("v3") else ():
            start, end = (row[f"videos/{camera}/{part}_timestamp"] for part in ("from", "to"))
            if abs((shown := (end - start) * self._info["fps"]) - row["length"]) > 0.5:
                got = f"{row['length']} rows of data but {shown:.1f} frames of {camera}"
                raise InputError(f"{where}: {got}; export the episode again")

    def _place(self, pattern: str, row: dict[str, Any], camera: str = "") -> Path:
        """The file that ``data_path`` or ``video_path`` names for an episode."""
        prefix, number = f"videos/{camera}/" if camera else "data/", row["episode_index"]
        names = {name: row.get(prefix + name, 0) for name in ("chunk_index", "file_index")} | {"video_key": camera}
        try:
            names |= {"episode_index": number, "episode_chunk": number // self._info.get("chunks_size", 1000)}
            return self._root / self._info[pattern].format(**names)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            got = f"expected a pattern of a file's name, got {self._info[pattern]!r} ({error!r}); {_AGAIN}"
            raise InputError(f"{self._root / 'meta/info.json'}, field {pattern}: {got}") from None

    def _where(self, episode: int) -> str:
        return f"{self._place('data_path', self._rows[episode])}, episode {self.ids[episode]}"

    def _matrix(self, episode: int, field: str) -> tuple[np.ndarray, str, int, int]:
        """A column [T, width], by step, with what it is checked by."""
        width, where = int(np.prod(self._features[field]["shape"])), f"{self._where(episode)}, field {field}"
        return matrix(self._steps(episode)[field], where), where, self.lengths[episode], width

    def _steps(self, episode: int) -> pa.Table:
        """The rows of an episode, by step; raises InputError where they are not as many as its frames."""
        where, last = self._where(episode), self.lengths[episode] - 1
        table = self._table(self._place("data_path", self._rows[episode]))
        numbers_of, steps_of = (numbers(table[key], where) for key in ("episode_index", "frame_index"))
        rows = np.flatnonzero(numbers_of == self._rows[episode]["episode_index"])
        steps = steps_of[rows]
        if sorted(steps) != list(range(last + 1)):
            got = f"expected the steps 0 to {last} that meta/episodes states, got {len(steps)} rows"
            raise InputError(f"{where}, field frame_index: {got}; {_AGAIN}")
        return table.take(pa.array(rows[steps.argsort()]))

    def _read_table(self, file: Path) -> pa.Table:
        fields = [self._action, self._state, "timestamp" if "timestamp" in self._features else ""]
        return read_table(file, ["episode_index", "frame_index", *filter(None, fields)])

    def _read_images(self, episode: int, camera: str) -> list[bytes]:
        """The encoded images of an episode, by step: as such, or beside their paths."""
        self._steps(episode)  # for its check: as many rows as frames
        only = [("episode_index", "==", self._rows[episode]["episode_index"])]
        table = read_table(self._place("data_path", self._rows[episode]), ["frame_index", camera], only)
        images = table.sort_by("frame_index")[camera].to_pylist()
        return [image if isinstance(image, bytes) else (image or {}).get("bytes") or b"" for image in images]

    def _open(self, episode: int, camera: str) -> Any:
        from rlvr_world.domains.video.readers.mp4 import open_video

        file = self._place("video_path", self._rows[episode], camera)
        if file not in self._videos:
            self._videos[file] = open_video(file, self.ids[episode])
        return self._videos[file]

    def _find_frames(self, episode: int, camera: str) -> np.ndarray:
        """The number in its file of the frame of each step, int64 [T].

        Where a file has as many frames as its episodes have steps, the frames are theirs one after the other, and times
        that say otherwise have drifted: recorders add up durations (lerobot issue 3177).
        """
        row, fps, video = self._rows[episode], self._info["fps"], self._open(episode, camera)
        times = np.arange(self.lengths[episode]) / fps
        if "timestamp" in self._features:
            times = numbers(self._steps(episode)["timestamp"], f"{self._where(episode)}, timestamp")
        counted = self._filled[self._place("video_path", row, camera)] == len(video)
        first = row[f"before/{camera}"] if counted else None
        return video.at(row.get(f"videos/{camera}/from_timestamp", 0.0) + times, 1 / fps, self.ids[episode], first)


def _read_info(file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """``meta/info.json`` and its features."""
    try:
        info: dict[str, Any] = parse_json(file.read_bytes(), str(file), "it")
    except OSError as error:
        raise InputError(f"{file}: expected metadata of a LeRobotDataset ({error!r}); check the path") from None
    version = take(info, "codebase_version", str, str(file))
    if not version.startswith(("v3", "v2")):
        mend = "convert it with lerobot's script"
        raise InputError(f"{file}: expected codebase_version v3.x or v2.x, got {version}; {mend}")
    if not take(info, "fps", float, str(file)) > 0:
        raise InputError(f"{file}, field fps: expected frames a second above 0, got {info['fps']}; {_AGAIN}")
    take(info, "data_path", str, str(file))
    features = take(info, "features", dict, str(file))
    for name in features:
        dtype = take(take(features, name, dict, str(file), "features."), "dtype", str, str(file), f"features.{name}.")
        shape = take(features[name], "shape", list, str(file), f"features.{name}.")
        if not all(isinstance(side, int) for side in shape):
            raise InputError(f"{file}, field features.{name}.shape: expected whole numbers, got {shape}; {_AGAIN}")
        if dtype == "video":
            take(info, "video_path", str, str(file))
    return info, features
