"""Streaming reader of long JSON lists: as Python lists, FreiHAND's and HO3D's meshes would take gigabytes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from tqdm import tqdm

from utnet.errors import InputError

CHUNK_SIZE = 2**22
"""Characters per read; one chunk and one row are held in memory."""
_MAX_ROW = 2**26
_BAR_BYTES = 2**26  # larger files show a progress bar
_NEAR_END = 16  # longest part of a number at the end of a chunk ("-Infinity")
_REMEDY = "extract or download the file again"


def read_rows(
    path: Path,
    shape: tuple[int | None, ...],
    *,
    dtype: type = np.float64,
    num: int | None = None,
    chunk_size: int = CHUNK_SIZE,
) -> np.ndarray:
    """Reads a file `[row, row, ...]` as an array. null and NaN become NaN and are not checked.

    Args:
        path: the file.
        shape: shape of a row, () for a list of numbers; None is any length, equal in all rows.
        dtype: dtype of the array.
        num: expected number of rows, or None.
        chunk_size: characters per read.

    Returns:
        (N, *shape). Memory beyond the array is about 10 MB for any file size.

    Raises:
        InputError: the file is missing or truncated, not a list of numbers, or has a wrong shape or number of rows.
    """
    out: np.ndarray | None = None
    count = 0
    for row in iterate_rows(path, chunk_size):
        try:
            with np.errstate(over="ignore"):
                array: np.ndarray = np.array(row, dtype)
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError(f"{path}: row {count} is not an array of numbers ({error}); {_REMEDY}") from error
        wanted = shape if out is None else out.shape[1:]
        if len(array.shape) != len(wanted) or any(w not in (None, n) for w, n in zip(wanted, array.shape, strict=True)):
            text = "(" + ", ".join("any" if n is None else str(n) for n in wanted) + ")"
            raise InputError(f"{path}: row {count} has shape {array.shape}, expected {text}; {_REMEDY}")
        if out is None:
            out = np.empty((num or 1024, *array.shape), dtype)
        if count == len(out):
            if num is not None:
                raise InputError(f"{path}: more than {num} rows, but the other files have {num}; {_REMEDY}")
            out = np.concatenate([out, np.empty_like(out)])
        out[count] = array
        count += 1
    if out is None:
        raise InputError(f"{path}: an empty list; {_REMEDY}")
    if num is not None and count != num:
        raise InputError(f"{path}: {count} rows, but the other files have {num}; {_REMEDY}")
    return out[:count]


def iterate_rows(path: Path, chunk_size: int = CHUNK_SIZE) -> Iterator[Any]:
    """Yields the items of a JSON list without loading the file. Raises InputError if it is not a list."""
    try:
        size = path.stat().st_size
        with (
            open(path, encoding="utf-8") as file,
            tqdm(total=size, unit="B", unit_scale=True, desc=path.name, disable=size < _BAR_BYTES) as bar,
        ):
            yield from _scan(path, file, bar, chunk_size)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; {_REMEDY}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {_REMEDY}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text file; {_REMEDY}") from error


def _scan(path: Path, file: TextIO, bar: tqdm, chunk_size: int) -> Iterator[Any]:
    text, place, count = "", 0, 0
    decode = json.JSONDecoder().raw_decode

    def more() -> bool:
        """Drops parsed text and reads the next chunk; returns False at the end of the file."""
        nonlocal text, place
        fresh = file.read(chunk_size)
        bar.update(len(fresh))
        text, place = text[place:] + fresh, 0
        return bool(fresh)

    def mark() -> str:
        """Consumes and returns the next non-space character."""
        nonlocal place
        while True:
            while place < len(text) and text[place] in " \t\r\n":
                place += 1
            if place < len(text):
                place += 1
                return text[place - 1]
            if not more():
                raise InputError(f"{path}: truncated after {count} rows; {_REMEDY}")

    if mark() != "[":
        raise InputError(f"{path}: not a JSON list; {_REMEDY}")
    if mark() == "]":
        return
    place -= 1
    while True:
        mark()  # skips spaces, and reads on at the end of the chunk
        place -= 1
        try:
            row, end = decode(text, place)
            complete = end < len(text) and text[end] not in ".eE"  # else a number may continue in the next chunk
            bad = ""
        except json.JSONDecodeError as error:
            complete, bad = False, "" if error.pos > len(text) - _NEAR_END else error.msg
        except (ValueError, RecursionError) as error:
            complete, bad = False, type(error).__name__
        if bad or len(text) - place > _MAX_ROW:
            raise InputError(f"{path}: row {count} is not JSON ({bad or 'too long'}); {_REMEDY}")
        if not complete:
            if not more():
                raise InputError(f"{path}: truncated after {count} rows; {_REMEDY}")
            continue
        yield row
        place, count = end, count + 1
        separator = mark()
        if separator == "]":
            return
        if separator != ",":
            raise InputError(f"{path}: {separator!r} after row {count - 1}, expected a comma; {_REMEDY}")
