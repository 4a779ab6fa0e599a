"""Fast reader of small arrays in npz files; building an index of a data set reads half a million of them.

It takes 0.016 ms for one small array, `numpy.load` 0.11 ms. The central directory of the zip is parsed directly, and
only the requested members are read. Unusual files (encryption, zip64, other compression, bad checksums, ...) are passed
to numpy, which reads them or raises the error.
"""

from __future__ import annotations

import io
import struct
import zlib
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np

from utnet.io.files import MAX_ARRAY_BYTES, read_npz

_TAIL = 1 << 16
"""Number of bytes read from the end; label files are smaller."""

_END = struct.Struct("<4s4H2LH")  # the end record, when the zip has no comment
_ENTRY = struct.Struct("<4s6H3L5H2L")  # an entry of the central directory
_LOCAL = struct.Struct("<4s5H3L2H")  # the header of a member
_STORED, _DEFLATED = 0, 8
_ZIP64 = 0xFFFFFFFF
_NPY = b"\x93NUMPY\x01\x00"


class _UnusualError(Exception):
    """The file differs from what numpy writes; fall back to numpy."""


def read_members(path: str | Path, *names: str) -> list[np.ndarray]:
    """Reads arrays of an npz file by name (read-only arrays), without pickles and without unpacking other members.

    Raises:
        InputError: the file is missing or damaged, or has no such key.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            return _members(file, names)
    except Exception:  # numpy evaluates a header as Python, so a damaged one raises anything; `read_npz` names it
        return read_npz(Path(path), *names)


def _members(file: BinaryIO, names: tuple[str, ...]) -> list[np.ndarray]:
    size = file.seek(0, io.SEEK_END)
    start = max(0, size - _TAIL)
    file.seek(start)
    tail = file.read(_TAIL)
    magic, disk, first_disk, here, num, _, offset, comment = _END.unpack_from(tail, len(tail) - _END.size)
    place = offset - start
    if magic != b"PK\5\6" or disk or first_disk or here != num or comment or place < 0:
        raise _UnusualError
    found: dict[str, np.ndarray] = {}
    for _ in range(num):
        entry = _ENTRY.unpack_from(tail, place)
        name_length, extra, note = entry[10:13]
        place += _ENTRY.size
        name = tail[place : place + name_length].decode("ascii").removesuffix(".npy")
        place += name_length + extra + note
        if name in names:
            found[name] = _array(file, tail, start, entry)
    if len(found) != len(set(names)):
        raise _UnusualError
    return [found[name] for name in names]


def _array(file: BinaryIO, tail: bytes, start: int, entry: tuple) -> np.ndarray:
    """Reads the array of an entry; `tail` contains the file from byte `start` on."""
    flags, method, crc, packed, unpacked, local = entry[3], entry[4], entry[7], entry[8], entry[9], entry[16]
    if entry[0] != b"PK\1\2" or flags & 1 or _ZIP64 in (packed, unpacked, local):
        raise _UnusualError
    header = _bytes(file, tail, start, local, _LOCAL.size)
    magic, *_, name_length, extra = _LOCAL.unpack(header)
    data = _bytes(file, tail, start, local + _LOCAL.size + name_length + extra, packed)
    if method == _DEFLATED:
        data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(
            data, max(1, min(unpacked, MAX_ARRAY_BYTES))
        )  # never more than it says
    elif method != _STORED:
        raise _UnusualError
    if magic != b"PK\3\4" or len(data) != unpacked or zlib.crc32(data) != crc or data[:8] != _NPY:
        raise _UnusualError
    begin = 10 + int.from_bytes(data[8:10], "little")
    dtype, shape = _describe(data[8:begin])
    return np.frombuffer(data, dtype, offset=begin).reshape(shape)


def _bytes(file: BinaryIO, tail: bytes, start: int, offset: int, length: int) -> bytes:
    if offset >= start:
        return tail[offset - start : offset - start + length]
    file.seek(offset)
    return file.read(length)


@lru_cache(maxsize=64)
def _describe(header: bytes) -> tuple[np.dtype, tuple[int, ...]]:
    """dtype and shape from the header of an npy file (its length and text)."""
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(io.BytesIO(header))
    if fortran_order or dtype.hasobject or min(shape, default=0) < 0:
        raise _UnusualError
    return dtype, shape
