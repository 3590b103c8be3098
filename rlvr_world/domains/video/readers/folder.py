"""A plain folder: an mp4 an episode, and one parquet file with a row a step.

Columns: ``episode`` (the stem of the mp4), ``step`` (0, 1, ...), and ``action``, a list, or ``action_<name>``, numbers
in the order of the file; ``proprio`` or ``proprio_<name>`` likewise, if there is any. Other columns are let be.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from rlvr_world.domains.video.episodes import checked_rows, checked_steps
from rlvr_world.domains.video.readers.mp4 import open_video, read_frames
from rlvr_world.domains.video.readers.parquet import matrix, read_table
from rlvr_world.errors import InputError


class FolderEpisodes:
    """Reads a plain folder. Raises InputError where an episode has rows but no mp4 or the other way round, where its
    steps are not 0, 1, ... up to the length of its mp4, and where there is no action column."""

    def __init__(self, folder: Path | str) -> None:
        root = Path(folder)
        tables, videos = sorted(root.glob("*.parquet")), sorted(root.glob("*.mp4"))
        if len(tables) != 1 or not videos:
            got = f"found {len(tables)} and {len(videos)}; check the path"
            raise InputError(f"{root}: expected one .parquet file and an .mp4 file an episode, {got}")
        self.name, self._file = root.resolve().name, tables[0]
        table = read_table(self._file)
        missing = {"episode", "step"} - set(table.column_names)
        if missing:
            raise InputError(f"{self._file}: expected the columns episode and step, found no {min(missing)}; add it")
        self._columns = {field: _columns(table, field) for field in ("action", "proprio")}
        if not self._columns["action"]:
            raise InputError(f"{self._file}: expected a column action or columns action_<name>, found none; add them")
        # Sorted by episode as the ids are, then by step: an episode is a slice.
        self._table = table.sort_by([("episode", "ascending"), ("step", "ascending")])
        names, self._starts, counts = np.unique(
            self._table["episode"].to_numpy().astype(str), return_index=True, return_counts=True
        )
        odd = sorted(set(names.tolist()) ^ {video.stem for video in videos})
        if odd:
            got = "rows but no mp4" if odd[0] in names else "an mp4 but no rows"
            raise InputError(f"{root}, episode {odd[0]}: it has {got}; add what is missing or remove the other")
        self.ids: Sequence[str] = names.tolist()
        self._videos = [open_video(root / f"{name}.mp4", name) for name in self.ids]
        self.lengths: Sequence[int] = [len(video) for video in self._videos]
        for name, start, count, length in zip(self.ids, self._starts, counts, self.lengths, strict=True):
            steps = self._table["step"].slice(start, count).to_pylist()
            if steps != list(range(length)):
                wanted = f"0 to {length - 1}, as its mp4 has {length} frames"
                got = f"{count} rows from {steps[0]} to {steps[-1]}; export the episode again"
                raise InputError(f"{self._file}, episode {name}, field step: expected {wanted}, got {got}")

    def frames(self, episode: int, steps: Sequence[int]) -> np.ndarray:
        video, name = self._videos[episode], self.ids[episode]
        return read_frames(video, checked_steps(steps, f"{video.file}, episode {name}", len(video)), name)

    def actions(self, episode: int) -> np.ndarray:
        return self._rows(episode, "action")

    def proprio(self, episode: int) -> np.ndarray | None:
        return self._rows(episode, "proprio") if self._columns["proprio"] else None

    def _rows(self, episode: int, field: str) -> np.ndarray:
        table, length = self._table.select(self._columns[field]), self.lengths[episode]
        where = f"{self._file}, episode {self.ids[episode]}, field {field}"
        rows, first = (
            np.concatenate([matrix(column, where) for column in table.slice(start, count).columns], axis=1)
            for start, count in ((self._starts[episode], length), (0, 1))
        )
        return checked_rows(rows, where, length, first.shape[1])


def _columns(table: pa.Table, field: str) -> list[str]:
    """The columns that hold a field: one of that name, or all that begin with it, in the order of the file."""
    if field in table.column_names:
        return [field]
    return [name for name in table.column_names if name.startswith(f"{field}_")]
