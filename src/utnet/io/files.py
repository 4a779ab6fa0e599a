"""Readers of images, npz and YAML files of data sets. Bad files raise an InputError that names them."""

from __future__ import annotations

import io
import math
from pathlib import Path
from zipfile import ZipFile

import cv2
import numpy as np
import yaml

from utnet.errors import InputError, shown

MAX_PIXELS = 100_000_000
"""Of a picture of a data set; phones have up to 200 megapixels, data sets of hands a tenth of one."""

_SAFE_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's is ten times faster where it is there


def read_bytes(path: Path, remedy: str = "check the dataset's folder or extract it again") -> bytes:
    """Reads a file; raises InputError with the path and `remedy` if it cannot be read."""
    try:
        with open(path, "rb", buffering=0) as file:  # twice as fast as `path.read_bytes()`
            return file.readall()
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; {remedy}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {remedy}") from error


def read_image(path: Path, *, flags: int = cv2.IMREAD_COLOR) -> np.ndarray:
    """Reads a JPEG or PNG with OpenCV (colours in the order B, G, R).

    Raises:
        InputError: the file is missing, truncated, or not an image.
    """
    return decode_image(read_bytes(path), where=str(path), flags=flags)


def decode_image(data: bytes, *, where: str, flags: int = cv2.IMREAD_COLOR) -> np.ndarray:
    """Decodes an image in memory as `read_image`; `where` names it in messages.

    Decoders fill the rest of a truncated file with grey, so its end marker is checked first.
    """
    if data[:2] == b"\xff\xd8":  # JPEG: an end-of-image marker after the last start-of-scan marker
        end = data.rfind(b"\xff\xd9")
        complete = end >= 0 and data.find(b"\xff\xda", end) < 0
    elif data[:4] == b"\x89PNG":
        complete = b"IEND" in data[-64:]
    else:
        complete = True
    if not complete:
        raise InputError(f"{where}: the image is truncated ({len(data)} bytes); extract or download the file again")
    _check_pixels(data, where)
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION) if data else None
    if image is None:
        raise InputError(f"{where}: not an image that OpenCV can read; extract or download the file again")
    return image


def _check_pixels(data: bytes, where: str) -> None:
    """InputError for a PNG or JPEG of more than `MAX_PIXELS`, by its header: a megabyte may hold a billion."""
    width = height = 0
    if data[:4] == b"\x89PNG":
        width, height = (int.from_bytes(data[at : at + 4], "big") for at in (16, 20))
    elif data[:2] == b"\xff\xd8":
        width, height = _jpeg_size(data)
    if width * height > MAX_PIXELS:
        raise InputError(f"{where}: {width}x{height} pixels, at most {MAX_PIXELS} are read; make it smaller")


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """(width, height) by the frame header, (0, 0) where there is none."""
    place = 2
    while place + 9 < len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(data[place + 7 : place + 9], "big"), int.from_bytes(
                data[place + 5 : place + 7], "big"
            )
        if marker in (0xFF, 0x01) or 0xD0 <= marker <= 0xD7:  # padding, or without a length
            place += 1 if marker == 0xFF else 2
        else:
            place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return 0, 0


def decode_rgb(data: bytes, *, where: str) -> np.ndarray:
    """Decodes an image to (H, W, 3) uint8 RGB."""
    return decode_image(data, where=where, flags=cv2.IMREAD_COLOR_RGB)  # OpenCV >= 4.11


def read_rgb(path: Path, size_wh: tuple[int, int]) -> np.ndarray:
    """Reads an image as (H, W, 3) uint8 RGB; raises InputError unless its width and height are `size_wh`."""
    image = decode_rgb(read_bytes(path), where=str(path))
    check_size(path, image, size_wh)
    return image


def read_depth_png(path: Path, unit_m: float, expected: str) -> np.ndarray:
    """Reads a 16-bit grey image as (H, W) float32 metres.

    Args:
        path: the file.
        unit_m: metres of one unit.
        expected: description of the expected pixels, for the message.

    Raises:
        InputError: the file is missing, damaged, or not of 16-bit grey pixels.
    """
    depth = read_image(path, flags=cv2.IMREAD_UNCHANGED)
    if depth.dtype != np.uint16 or depth.ndim != 2:
        raise InputError(f"{path}: {depth.dtype} with shape {depth.shape}; expected {expected}")
    return np.multiply(depth, np.float32(unit_m), dtype=np.float32)


def check_size(path: Path, image: np.ndarray, size_wh: tuple[int, int]) -> None:
    """Raises InputError unless the image has the size of its calibration."""
    height, width = image.shape[:2]
    if (width, height) != tuple(size_wh):
        raise InputError(f"{path}: {width}x{height} pixels, expected {size_wh[0]}x{size_wh[1]} as in the calibration")


MAX_ARRAY_BYTES = 2**28
"""Largest array that is read whole; the largest here are depth images and index tables of a few MB."""


def read_npz(path: Path, *names: str) -> list[np.ndarray]:
    """Reads arrays of an npz file by name, without pickles.

    Raises:
        InputError: missing or damaged file, an array that is too large, or a key that it lacks.
    """
    try:
        with ZipFile(path) as archive:
            return [_npz_member(archive, name, str(path)) for name in names]
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; check the dataset's folder or extract it again") from error
    except KeyError as error:
        raise InputError(f"{path}: {error.args[0]}; not a file of this dataset, or another version of it") from error
    except InputError:
        raise
    except Exception as error:  # zipfile and the decompressors raise all sorts
        detail = str(error)[:200]
        raise InputError(f"{path}: not a readable npz file ({detail}); extract or download the file again") from error


def _npz_member(archive: ZipFile, name: str, where: str) -> np.ndarray:
    if f"{name}.npy" not in archive.namelist():
        raise KeyError(f"{name} is not a file in the archive")
    member = archive.getinfo(f"{name}.npy")
    if member.file_size > MAX_ARRAY_BYTES:
        raise InputError(f"{where}: {name} has {member.file_size} bytes, at most {MAX_ARRAY_BYTES} are read")
    with archive.open(member) as file:
        return parse_npy(file.read(member.file_size + 1), where=f"{where}: {name}")


def parse_npy(data: bytes, *, where: str) -> np.ndarray:
    """The array of an npy file's bytes: of booleans, numbers or text; InputError, beginning with `where`, for any
    other and where the header does not fit the bytes."""
    try:
        file = io.BytesIO(data)
        major, _ = np.lib.format.read_magic(file)
        read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}[major]
        shape, fortran_order, dtype = read(file)
        begin, num = file.tell(), math.prod(shape)
        if dtype.hasobject or num < 0 or len(data) - begin != num * dtype.itemsize:
            raise ValueError(f"{len(data) - begin} bytes for {shown(shape)} of {dtype}")
        return np.frombuffer(data, dtype, num, begin).reshape(shape, order="F" if fortran_order else "C").copy()
    except Exception as error:  # numpy evaluates the header as Python: TokenError, RecursionError, ...
        detail = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise InputError(f"{where}: not a readable array ({detail}); extract or download the file again") from error


class _TupleLoader(_SAFE_LOADER):  # type: ignore[misc, valid-type]
    """Safe YAML loader that also accepts the Python tuples in DexYCB's calibration."""


_TupleLoader.add_constructor(
    "tag:yaml.org,2002:python/tuple", lambda loader, node: tuple(loader.construct_sequence(node))
)


def read_yaml(path: Path, *names: str) -> dict:
    """Reads a YAML mapping with the required keys `names`.

    Raises:
        InputError: the file is missing or not YAML, has a tag of a Python object, or lacks a key.
    """
    data = read_bytes(path)
    try:
        tree = yaml.load(data, Loader=_TupleLoader)
    except Exception as error:  # a tag on the wrong value, a date that is none, deep nesting: all sorts
        detail = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise InputError(f"{path}: not a safe YAML file: {detail}") from error
    for name in names:
        if not isinstance(tree, dict) or name not in tree:
            raise InputError(f"{path}: has no key {name!r}; not a file of this dataset, or another version of it")
    return tree
