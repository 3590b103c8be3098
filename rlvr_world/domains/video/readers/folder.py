"""A plain folder: an mp4 or mov an episode, and one parquet or CSV file with a row a step.

Columns: ``episode``, the stem of the video or the number at its end; ``step``, from 0 or 1 on; ``action``, a list, or
``action_<name>``, numbers in the order of the file; ``state`` or ``proprio`` likewise, if there is any; ``timestamp``
in seconds, where the video has another rate than the rows. Names that others use are taken too, other columns let be.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from rlvr_world.domains.row_files import OnFault, telling
from rlvr_world.domains.video.episodes import checked_actions, checked_rows, checked_steps
from rlvr_world.domains.video.readers.mp4 import Video, open_video, read_frames
from rlvr_world.domains.video.readers.parquet import ACTION, STATE, matrix, numbers, read_table
from rlvr_world.errors import InputError

_EPISODE = ("episode", "episode_id", "episode_index", "episode_name")
_STEP = ("step", "step_index", "frame", "frame_index")
_TIME = ("timestamp", "time")


class FolderEpisodes:
    """Reads a plain folder and the folders in it, or of several cameras the videos of the folder ``camera``.

    Raises InputError where there is no action column; where an episode has rows but no video or the other way round, or
    its steps are not those of its video, ``on_fault`` is told, if given."""

    def __init__(self, folder: Path | str, camera: str = "", on_fault: OnFault = None) -> None:
        root = Path(folder)
        seen = [file for file in sorted(root.rglob("[!.]*")) if file.is_file()]
        tables = [file for file in seen if file.suffix.lower() in (".parquet", ".csv")]
        files = [file for file in seen if file.suffix.lower() in (".mp4", ".mov")]
        files = [file for file in files if not camera or camera in file.relative_to(root).parts[:-1]]
        videos = {file.stem: file for file in files}
        if len(videos) < len(files):
            folders = ", ".join(sorted({file.parent.name for file in files}))
            mend = f"name a folder of {folders} in data.camera"
            raise InputError(f"{root}: expected one video an episode, got several; {mend}")
        if len(tables) != 1 or not videos:
            got = f"found {len(tables)} and {len(videos)}; check the path"
            raise InputError(f"{root}: expected one .parquet or .csv file and an .mp4 or .mov file an episode, {got}")
        self.name, self._file = root.resolve().name, tables[0]
        self.files = [self._file, *sorted(videos.values())]  # its rows say which frame is whose
        table = read_table(self._file)
        episode, self._step = (self._named(table, names) for names in (_EPISODE, _STEP))
        self._time = next((name for name in _TIME if name in table.column_names), "")
        self._columns = {field: _columns(table, names) for field, names in (("action", ACTION), ("proprio", STATE))}
        if not self._columns["action"]:
            raise InputError(f"{self._file}: expected a column action or columns action_<name>, found none; add them")
        named = table[episode].to_pylist()
        stems = {value: _stem(str(value), videos) for value in set(named)}
        names = np.array([stems[value] for value in named])
        steps = numbers(table[self._step], f"{self._file}, field {self._step}")
        order = np.lexsort((steps, names))  # sorted by episode as the ids are, then by step: an episode is a slice
        self._table = table.take(pa.array(order))
        ids, starts, counts = np.unique(names[order], return_index=True, return_counts=True)
        for name in sorted(set(ids.tolist()) ^ set(videos)):
            with telling(on_fault):
                got = "rows but no mp4 or mov" if name in ids else f"{videos[name].name} but no rows"
                raise InputError(f"{root}, episode {name}: it has {got}; add what is missing or remove the other")
        self.ids: list[str] = []
        self.lengths: list[int] = []
        self._episodes: list[tuple[Video, int, int, np.ndarray]] = []
        """Of each episode its video, its first row, its rows, and the number of each step's frame."""
        for name, start, count in zip(ids.tolist(), starts.tolist(), counts.tolist(), strict=True):
            with telling(on_fault):
                if name in videos:
                    video = open_video(videos[name], name)
                    places = self._frames_of(video, name, self._table.slice(start, count))
                    self._episodes.append((video, start, count, places))
                    self.ids.append(name)
                    self.lengths.append(len(places))
        if not self.ids:
            raise InputError(f"{root}: expected at least one episode that reads, got none; look at its rows and videos")

    def frames(self, episode: int, steps: Sequence[int]) -> np.ndarray:
        video, _, _, places = self._episodes[episode]
        name = self.ids[episode]
        return read_frames(video, checked_steps(steps, f"{video.file}, episode {name}", len(places)), name, places)

    def actions(self, episode: int) -> np.ndarray:
        return checked_actions(*self._rows(episode, "action"))

    def proprio(self, episode: int) -> np.ndarray | None:
        return checked_rows(*self._rows(episode, "proprio")) if self._columns["proprio"] else None

    def _named(self, table: pa.Table, names: Sequence[str]) -> str:
        if found := next((name for name in names if name in table.column_names), None):
            return found
        got = f"found only {', '.join(table.column_names)}; add it"
        raise InputError(f"{self._file}: expected a column {names[0]} (or {', '.join(names[1:])}), {got}")

    def _frames_of(self, video: Video, name: str, rows: pa.Table) -> np.ndarray:
        """The number of the frame of each step: by time where the rows have times, else counted alike."""
        steps, length = numbers(rows[self._step], "").tolist(), len(video)
        known = len(rows) if self._time else length
        if steps not in [list(range(first, first + count)) for first in (0, 1) for count in (known, known - 1)]:
            why = "" if self._time else f", as its {video.file.suffix[1:]} has {length} frames"
            got = f"{len(steps)} rows from {steps[0]:g} to {steps[-1]:g}; export the episode again, or add a timestamp"
            where = f"{self._file}, episode {name}, field {self._step}"
            raise InputError(f"{where}: expected 0 to {known - 1}{why}, got {got}")
        if not self._time:
            return np.arange(length)
        times = numbers(rows[self._time], f"{self._file}, episode {name}, field {self._time}")
        step = float(np.median(np.diff(times))) if len(times) > 1 else np.inf
        return video.at(times - times[0] + video.shown_T[0] * video.seconds_per_tick, step, name)

    def _rows(self, episode: int, field: str) -> tuple[np.ndarray, str, int, int]:
        """A field of an episode, with what it is checked by."""
        _, start, count, _ = self._episodes[episode]
        table = self._table.select(self._columns[field])
        where = f"{self._file}, episode {self.ids[episode]}, field {field}"
        rows, first = (
            np.concatenate([matrix(column, where) for column in table.slice(*part).columns], axis=1)
            for part in ((start, count), (0, 1))
        )
        return rows, where, self.lengths[episode], first.shape[1]


def _stem(value: str, videos: dict[str, Path]) -> str:
    """The stem of the video that a row's episode names: as it is, or the only one that ends in this number."""
    if value in videos or not value.isdecimal():
        return value
    found = [stem for stem in videos if (end := re.search(r"\d+$", stem)) and int(end[0]) == int(value)]
    return found[0] if len(found) == 1 else value


def _columns(table: pa.Table, names: Sequence[str]) -> list[str]:
    """The columns that hold a field: one of these names, or all that begin with one, in the order of the file."""
    for name in names:
        parts = [column for column in table.column_names if column.startswith((f"{name}_", f"{name}."))]
        if found := [name] if name in table.column_names else parts:
            return found
    return []
