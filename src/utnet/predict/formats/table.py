"""The parquet table of hands: one row per hand and frame, for pandas, polars or DuckDB. `utnet bulk` writes the same.

Columns are the fields of predictions.json (docs/predictions.md), arrays flattened row by row into lists of fixed
length; the metadata of a column state its unit, frame and shape. `read_table` restores the shapes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import utnet
from utnet.errors import InputError
from utnet.io.atomic import atomic_file
from utnet.predict.arrays import hand_row
from utnet.predict.formats import PredictedFrame, require

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA, SCHEMA_VERSION = "utnet-hand-table", 1
_ROWS_A_GROUP = 4096

_TEXT = ("file", "side", "method", "distance_source", "shape_source", "hand_model")
_INTEGERS = {"frame": "int32", "hand": "int16", "track": "int32", "width": "int32", "height": "int32"}
_NUMBERS = {"time_s": ("float64", "s"), "side_probability": ("float32", "1"), "score": ("float32", "1")}
_NUMBERS |= {"presence": ("float32", "1")}
_ARRAYS: dict[str, tuple[tuple[int, ...], str, str]] = {
    "K_px": ((3, 3), "px", "picture"),
    "box_px": ((4,), "px", "picture"),
    "joints_cam_m": ((21, 3), "m", "camera"),
    "joints_px": ((21, 2), "px", "picture"),
    "T_cam_wrist": ((4, 4), "m", "wrist to camera"),
    "joints_wrist_m": ((21, 3), "m", "wrist"),
    "joint_error_mm": ((21,), "mm", "relative to the wrist"),
    "global_orient_axis_angle": ((3,), "rad", "hand to camera"),
    "hand_pose_axis_angle": ((15, 3), "rad", "each joint's parent"),
    "betas": ((10,), "deviations", ""),
    "transl_m": ((3,), "m", "camera"),
}
_NULLABLE = ("track", "joint_error_mm", "shape_source")


def table_schema(extra: Iterable[pa.Field] = ()) -> pa.Schema:
    """Returns the columns, with `extra` ones (such as those of a source) after them."""
    import pyarrow as pa

    def field(name: str, kind: Any, **about: str) -> pa.Field:
        return pa.field(name, kind, nullable=name in _NULLABLE, metadata={k: v for k, v in about.items() if v})

    fields = [field(name, pa.string()) for name in _TEXT]
    fields += [field(name, getattr(pa, kind)()) for name, kind in _INTEGERS.items()]
    fields += [field(name, getattr(pa, kind)(), unit=unit) for name, (kind, unit) in _NUMBERS.items()]
    fields.append(field("valid", pa.bool_()))
    for name, (shape, unit, frame) in _ARRAYS.items():
        kind = pa.float64() if name in ("K_px", "transl_m") else pa.float32()
        array = pa.list_(kind, int(np.prod(shape)))
        fields.append(field(name, array, unit=unit, frame=frame, shape=json.dumps(shape)))
    about = {"schema": SCHEMA, "version": str(SCHEMA_VERSION), "utnet": utnet.__version__}
    return pa.schema([*fields, *extra], metadata=about)


def table_rows(frame: PredictedFrame) -> list[dict[str, Any]]:
    """Returns the rows of a frame's hands, values as `pa.Table.from_pylist` takes them with `table_schema`."""
    rows = []
    for number, hand in enumerate(frame.hands):
        row: dict[str, Any] = hand_row(hand, frame.index, frame.time_s)
        row = {name: value.ravel() if value.ndim else value.item() for name, value in row.items()}
        row["joint_error_mm"] = None if hand.joint_error_mm is None else row["joint_error_mm"]
        rows.append(
            {
                **row,
                "file": frame.file,
                "hand": number,
                "track": hand.track,
                "width": frame.size_px[0],
                "height": frame.size_px[1],
                "method": hand.method,
                "distance_source": hand.distance_source,
                "shape_source": hand.shape_source,
                "hand_model": hand.hand_model,
            }
        )
    return rows


@contextmanager
def open_writer(
    path: Path, extra: Iterable[pa.Field] = (), values: Callable[[str], dict[str, Any]] | None = None
) -> Iterator[TableWriter]:
    """Opens the table, written in groups of rows in constant memory.

    Args:
        path: the file.
        extra: further columns.
        values: maps a frame's `file` to the values of these columns, and of others to be replaced.
    """
    require("pyarrow", f"{path.name}: the table")
    import pyarrow.parquet as pq

    with atomic_file(path) as temporary, pq.ParquetWriter(temporary, table_schema(extra), compression="zstd") as file:
        writer = TableWriter(file, values)
        yield writer
        writer.flush()


class TableWriter:
    """Collects rows and writes them group by group to an open `pyarrow.parquet.ParquetWriter`; `values` as of
    `open_writer`."""

    def __init__(self, file: Any, values: Callable[[str], dict[str, Any]] | None = None):
        self._file, self._values, self._rows = file, values, list[dict]()

    def add(self, frame: PredictedFrame) -> None:
        """Appends a row for each hand."""
        extra = {} if self._values is None else self._values(frame.file)
        self._rows += [{**row, **extra} for row in table_rows(frame)]
        if len(self._rows) >= _ROWS_A_GROUP:
            self.flush()

    def flush(self) -> None:
        """Writes the collected rows."""
        import pyarrow as pa

        if self._rows:
            self._file.write_table(pa.Table.from_pylist(self._rows, schema=self._file.schema))
            self._rows = []


def read_table(path: str | Path, columns: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Returns the columns of a table as arrays in their shapes, such as `joints_cam_m` (N, 21, 3); one row per hand.

    Null becomes NaN, -1 (`track`) or "" (text).

    Args:
        path: written by `utnet predict --also table` or `utnet bulk`.
        columns: names of those to read; None: all.

    Raises:
        InputError: no such file, not such a table, of a later version, or pyarrow is not installed.
    """
    require("pyarrow", f"{path}: reading the table")
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, columns=None if columns is None else list(columns))
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: not a parquet file that can be read ({error}); write it again") from error
    about = table.schema.metadata or {}
    if about.get(b"schema") != SCHEMA.encode() or int(about[b"version"]) > SCHEMA_VERSION:
        raise InputError(f"{path}: not a table of hands of version {SCHEMA_VERSION}; write it with utnet predict")
    return {name: _array(table.schema.field(name), table[name].combine_chunks()) for name in table.column_names}


def _array(field: pa.Field, column: Any) -> np.ndarray:
    import pyarrow as pa

    if not pa.types.is_fixed_size_list(field.type):
        if pa.types.is_string(field.type):
            return np.array(column.fill_null("").to_pylist(), str)
        return column.fill_null(-1).to_numpy(zero_copy_only=False) if field.name == "track" else _numbers(column)
    shape = json.loads((field.metadata or {}).get(b"shape", b"null")) or [field.type.list_size]
    flat = np.full((len(column), field.type.list_size), np.nan, field.type.value_type.to_pandas_dtype())
    known = ~_numbers(column.is_null()).astype(bool)
    flat[known] = column.drop_null().flatten().to_numpy(zero_copy_only=False).reshape(-1, field.type.list_size)
    return flat.reshape(len(column), *shape)


def _numbers(column: Any) -> np.ndarray:
    return column.to_numpy(zero_copy_only=False)
