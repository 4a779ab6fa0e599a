"""Arrays of npy files, without pickles. numpy evaluates headers as Python, so damaged ones raise various errors
(TokenError, RecursionError, MemoryError, ...); here all are InputErrors, and sizes are checked before use."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import BinaryIO

import numpy as np

from utnet.errors import InputError, first_line, shown

_VERSIONS = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}


def read_header(file: BinaryIO, *, where: str) -> tuple[np.dtype, tuple[int, ...], bool]:
    """Reads dtype, shape and Fortran order from the header of an npy file; the file position is then at the data.

    Raises:
        InputError: not a header of an array of booleans, numbers or text; the message begins with `where`.
    """
    try:
        major, _ = np.lib.format.read_magic(file)
        shape, fortran_order, dtype = _VERSIONS[major](file)
        if dtype.hasobject or min(shape, default=0) < 0:
            raise ValueError(f"{shown(shape)} of {dtype}")
    except Exception as error:
        raise InputError(f"{where}: not a readable array ({first_line(error)}); get the file again") from error
    return dtype, shape, fortran_order


def parse_npy(data: bytes, *, where: str) -> np.ndarray:
    """The array of an npy file's bytes; InputError as of `read_header`, also for too many or too few numbers."""
    file = io.BytesIO(data)
    dtype, shape, fortran_order = read_header(file, where=where)
    begin, num = file.tell(), math.prod(shape)
    _check_length(len(data) - begin, shape, dtype, where)
    return np.frombuffer(data, dtype, num, begin).reshape(shape, order="F" if fortran_order else "C").copy()


def map_npy(path: Path) -> np.ndarray:
    """Memory-maps the array of a file, reading only the header. InputError as `parse_npy`."""
    try:
        with path.open("rb") as file:
            dtype, shape, fortran_order = read_header(file, where=str(path))
            begin = file.tell()
        _check_length(path.stat().st_size - begin, shape, dtype, str(path))
        if not math.prod(shape):
            return np.empty(shape, dtype)
        return np.memmap(path, dtype, "r", begin, shape, "F" if fortran_order else "C")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error


def _check_length(num_bytes: int, shape: tuple[int, ...], dtype: np.dtype, where: str) -> None:
    if num_bytes != math.prod(shape) * dtype.itemsize:
        raise InputError(
            f"{where}: not a readable array ({num_bytes} bytes for {shown(shape)} of {dtype}); get the file again"
        )
