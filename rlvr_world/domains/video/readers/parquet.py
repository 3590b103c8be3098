"""Tables of steps, parquet or CSV: what the readers of LeRobot data sets and of plain folders share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from rlvr_world.errors import InputError

ACTION = ("action", "actions")
STATE = ("observation.state", "state", "observation.qpos", "qpos", "proprio")
"""Names in use, the first that a data set has is taken."""


def read_table(file: Path, columns: Sequence[str] | None = None, filters: Any = None) -> pa.Table:
    """The table, or some columns and rows of a parquet file. Raises InputError for a broken file, and for a column that
    is missing or there twice."""
    try:
        if file.suffix.lower() == ".csv":
            table = pyarrow.csv.read_csv(file)
        else:
            known = pq.read_schema(file).names
            if missing := [column for column in columns or () if column not in known]:
                got = f"found {', '.join(known)}; add them"
                raise InputError(f"{file}: expected the columns {', '.join(missing)}, {got}")
            table = pq.read_table(file, columns=columns and list(columns), filters=filters)
        if len({*table.column_names}) < table.num_columns:
            raise InputError(f"{file}: expected each column once, found {', '.join(table.column_names)}; rename them")
        plain = [f.with_type(f.type.value_type) if pa.types.is_dictionary(f.type) else f for f in table.schema]
        return table.cast(pa.schema(plain))  # a data frame's categories are what they stand for
    except (OSError, pa.ArrowException) as error:
        kind = file.suffix[1:]
        raise InputError(f"{file}: not a readable {kind} file ({error}); download or export it again") from None


def numbers(column: pa.ChunkedArray, where: str) -> np.ndarray:
    """A column of one number a row, float64; null is NaN. InputError that names ``where`` for anything else."""
    try:
        return column.cast(pa.float64()).to_numpy()
    except pa.ArrowException as error:
        raise InputError(f"{where}: expected a number a row ({error}); mend the column") from None


def matrix(column: pa.ChunkedArray, where: str) -> np.ndarray:
    """A column of numbers, or of lists (of lists) of them, as [rows, width]. A null at the end is left out. Raises
    InputError for rows of different width."""
    if not (pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type)):
        return column.to_numpy()[:, None]
    widths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    if len(widths) > 1 and not widths[-1]:
        column, widths = column[:-1], widths[:-1]
    odd = np.flatnonzero(widths != widths[:1])
    if len(odd):
        step = odd[0]
        raise InputError(f"{where}, step {step}: expected {widths[0]} numbers as before, got {widths[step]}; repair it")
    return matrix(pc.list_flatten(column), where).reshape(len(widths), -1)
