"""LeRobotDataset v3: many episodes in each parquet and mp4 file, and in ``meta/`` where each of them lies.

Source of the layout: huggingface/lerobot, codebase version v3.0 (``meta/info.json``, ``meta/episodes/**.parquet``,
``data/chunk-*/file-*.parquet``, ``videos/{key}/chunk-*/file-*.mp4``).
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rlvr_world.domains.video.episodes import checked_rows, checked_steps
from rlvr_world.domains.video.readers.parquet import matrix, read_table
from rlvr_world.errors import InputError

_VIDEO_PARTS = ("chunk_index", "file_index", "from_timestamp", "to_timestamp")
_AGAIN = "download or export it again"


class LeRobotEpisodes:
    """Reads a local data set, or one of the hub (``owner/name``) where there is no such folder.

    ``camera`` names one of the picture features, stored as mp4 or as images in the parquet files; it may be left out
    where there is only one. Proprioception is ``observation.state``. Lengths come from ``meta/``; whether parquet and
    mp4 agree with it is checked as each episode is read.
    Raises InputError for another version, a missing or ambiguous camera, and metadata that contradicts itself.
    """

    def __init__(self, folder: Path | str, camera: str = "") -> None:
        self.name = Path(folder).resolve().name
        self._root = Path(folder) if Path(folder).is_dir() else _download(str(folder), "meta/**")
        info = self._root / "meta" / "info.json"
        try:
            self._info = json.loads(info.read_text("utf-8"))
            version, features = self._info["codebase_version"], self._info["features"]
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{info}: expected metadata of a LeRobotDataset v3 ({error!r}); check the path") from None
        if not version.startswith("v3"):
            raise InputError(f"{info}: expected codebase_version v3.x, got {version}; convert it with lerobot's script")
        self._camera = _camera(info, features, camera)
        self._video = features[self._camera]["dtype"] == "video"
        self._state = "observation.state" in features
        if not Path(folder).is_dir():
            _download(str(folder), "data/**", f"videos/{self._camera}/**")
        self._rows = self._episode_rows()
        self._numbers = [row["episode_index"] for row in self._rows]
        self.ids: Sequence[str] = [f"episode_{number:06d}" for number in self._numbers]
        self.lengths: Sequence[int] = [row["length"] for row in self._rows]
        self._videos: dict[Path, Any] = {}
        self._table = lru_cache(maxsize=4)(self._read_table)
        self._images = lru_cache(maxsize=4)(self._read_images)

    def frames(self, episode: int, steps: Sequence[int]) -> np.ndarray:
        where = self._where(episode)
        steps = checked_steps(steps, where, self.lengths[episode])
        if self._video:
            return self._from_video(episode, steps)
        images = self._images(episode)
        return np.stack([_decode(images[step], f"{where}, step {step}") for step in steps])

    def actions(self, episode: int) -> np.ndarray:
        return self._matrix(episode, "action")

    def proprio(self, episode: int) -> np.ndarray | None:
        return self._matrix(episode, "observation.state") if self._state else None

    def _episode_rows(self) -> list[dict[str, Any]]:
        """One row an episode, sorted: its length, and where its steps and its pictures lie."""
        files = sorted((self._root / "meta" / "episodes").glob("**/*.parquet"))
        columns = ["episode_index", "length", "data/chunk_index", "data/file_index"]
        prefix = f"videos/{self._camera}/"
        columns += [prefix + part for part in _VIDEO_PARTS if self._video]
        rows = [row for file in files for row in read_table(file, columns).to_pylist()]
        where = self._root / "meta/episodes"
        if not rows:
            raise InputError(f"{where}: expected parquet files with episodes, found none; {_AGAIN}")
        for row in rows if self._video else ():
            seconds = row[prefix + "to_timestamp"] - row[prefix + "from_timestamp"]
            length, shown = row["length"], seconds * self._info["fps"]
            if abs(shown - length) > 0.5:
                got = f"{length} rows of data but {shown:.1f} frames of {self._camera}"
                raise InputError(f"{where}, episode {row['episode_index']}: {got}; export the episode again")
        return sorted(rows, key=lambda row: row["episode_index"])

    def _data_file(self, episode: int) -> Path:
        row = self._rows[episode]
        place = {"chunk_index": row["data/chunk_index"], "file_index": row["data/file_index"]}
        return self._root / self._info["data_path"].format(**place)

    def _where(self, episode: int) -> str:
        return f"{self._data_file(episode)}, episode {self.ids[episode]}"

    def _matrix(self, episode: int, field: str) -> np.ndarray:
        where = f"{self._where(episode)}, field {field}"
        rows = matrix(self._table(self._data_file(episode))[field].take(self._order(episode)), where)
        width = int(np.prod(self._info["features"][field]["shape"]))
        return checked_rows(rows, where, self.lengths[episode], width)

    def _order(self, episode: int) -> pa.Array:
        """The rows of an episode in its file, by step; raises InputError where they are not as many as its frames."""
        table, last = self._table(self._data_file(episode)), self.lengths[episode] - 1
        rows = np.flatnonzero(table["episode_index"].to_numpy() == self._numbers[episode])
        steps = table["frame_index"].to_numpy()[rows]
        if sorted(steps) != list(range(last + 1)):
            got = f"expected the steps 0 to {last} that meta/episodes states, got {len(steps)} rows"
            raise InputError(f"{self._where(episode)}, field frame_index: {got}; {_AGAIN}")
        return pa.array(rows[steps.argsort()])

    def _read_table(self, file: Path) -> pa.Table:
        fields = ["action", *(["observation.state"] if self._state else [])]
        return read_table(file, ["episode_index", "frame_index", *fields])

    def _read_images(self, episode: int) -> list[dict[str, Any] | None]:
        """The encoded images of an episode, by step."""
        self._order(episode)  # for its check: as many rows as frames
        only = [("episode_index", "==", self._numbers[episode])]
        table = read_table(self._data_file(episode), ["frame_index", self._camera], only).sort_by("frame_index")
        return table[self._camera].to_pylist()

    def _from_video(self, episode: int, steps: Sequence[int]) -> np.ndarray:
        from rlvr_world.domains.video.readers.mp4 import open_video, read_frames

        row, name, length = self._rows[episode], self.ids[episode], self.lengths[episode]
        chunk, number, start = (row[f"videos/{self._camera}/{part}"] for part in _VIDEO_PARTS[:3])
        place = self._info["video_path"].format(video_key=self._camera, chunk_index=chunk, file_index=number)
        file = self._root / place
        if file not in self._videos:
            self._videos[file] = open_video(file, name)
        video = self._videos[file]
        # The nearest frame, not the exact time: recorders add up durations as floats, and drift (lerobot issue 3177).
        first = video.frame_at(start)
        if first + length > len(video):
            wanted = f"{length} frames from {start} s on, as in meta/episodes"
            raise InputError(f"{file}, episode {name}: expected {wanted}, found {len(video) - first}; {_AGAIN}")
        return read_frames(video, steps, name, first)


def _camera(info: Path, features: dict[str, Any], camera: str) -> str:
    """The picture feature to read: the one named, or the only one."""
    known = [key for key, feature in features.items() if feature["dtype"] in ("video", "image")]
    if camera in known or (len(known) == 1 and not camera):
        return camera or known[0]
    raise InputError(f"{info}: expected one camera of {', '.join(known) or 'none at all'}, got {camera!r}; name one")


def _decode(image: dict[str, Any] | None, where: str) -> np.ndarray:
    """An image of a parquet file (png or jpeg bytes), uint8 [H, W, 3]."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO((image or {}).get("bytes") or b"")) as picture:
            return np.asarray(picture.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{where}: the image does not decode ({error}); {_AGAIN}") from None


def _download(name: str, *patterns: str) -> Path:
    """The parts of a data set of the hub that match; a local copy of them is taken where it is whole."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, repo_type="dataset", allow_patterns=list(patterns)))
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        got = f"neither a folder here nor a data set that the hub gave ({reason})"
        raise InputError(f"{name}: {got}; check the name, or connect") from None
