"""Small members of npz files, read by hand: an index of a data set opens half a million of them.

`numpy.load` takes 0.11 ms for one small array, nearly all of it bookkeeping; this takes 0.016 ms. The zip's own table
of contents (the central directory, at the end) is read directly, and only the members asked for are touched.
Whatever is not plain (encryption, zip64, another compression, a checksum that is off, ...) goes to numpy, which reads
it or says what is wrong.
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
"""Bytes read at once from the end; a file of labels is smaller."""

_END = struct.Struct("<4s4H2LH")  # the end record, when the zip has no comment
_ENTRY = struct.Struct("<4s6H3L5H2L")  # an entry of the central directory
_LOCAL = struct.Struct("<4s5H3L2H")  # what stands before a member's bytes
_STORED, _DEFLATED = 0, 8
_ZIP64 = 0xFFFFFFFF
_NPY = b"\x93NUMPY\x01\x00"


class _UnusualError(Exception):
    """The file is not as numpy writes it: numpy itself must look."""


def read_members(path: str | Path, *names: str) -> list[np.ndarray]:
    """Arrays of an npz file by name, read-only; nothing pickled is read and nothing else of the file is unpacked.

    Raises:
        InputError: missing or damaged file, or a key that it lacks.
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
    """The array of an entry; `tail` holds the file from byte `start` on."""
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
    """dtype and shape that the header of an npy file tells (its length and its text)."""
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(io.BytesIO(header))
    if fortran_order or dtype.hasobject or min(shape, default=0) < 0:
        raise _UnusualError
    return dtype, shape
