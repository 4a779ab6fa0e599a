"""Readers of images and YAML files of data sets. Bad files raise an InputError that names them."""

from __future__ import annotations

import warnings
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from utnet.errors import InputError, as_input_error, first_line
from utnet.io.limits import check_megapixels
from utnet.io.safe_yaml import parse_yaml


def read_bytes(path: Path, remedy: str = "check the dataset's folder or extract it again") -> bytes:
    """Reads a file; raises InputError with the path and `remedy` if it cannot be read."""
    try:
        with open(path, "rb", buffering=0) as file:  # twice as fast as `path.read_bytes()`
            return file.readall()
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; {remedy}") from error
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise InputError(f"{path}: cannot be read ({first_line(error)}); {remedy}") from error


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
    check_pixels(data, where)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION) if data else None
    except cv2.error as error:
        raise as_input_error(error, where) from error
    if image is None:
        raise InputError(f"{where}: not an image that OpenCV can read; extract or download the file again")
    return image


def check_pixels(data: bytes, where: str) -> None:
    """InputError for more than `limits.MAX_MEGAPIXELS`, by the header: a megabyte may hold a billion pixels."""
    width = height = 0
    if data[:4] == b"\x89PNG":
        width, height = (int.from_bytes(data[at : at + 4], "big") for at in (16, 20))
    elif data[:2] == b"\xff\xd8":
        width, height = _jpeg_size(data) or _other_size(data, where)
    elif data:
        width, height = _other_size(data, where)
    check_megapixels(where, width, height)


def _other_size(data: bytes, where: str) -> tuple[int, int]:
    """(width, height) by Pillow, which is slower."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(BytesIO(data)) as image:
                return image.size
    except Exception as error:
        raise InputError(f"{where}: not an image ({first_line(error)}); extract or download the file again") from error


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) by the frame header, None if it is ambiguous which one libjpeg uses."""
    place = 2
    while place + 9 < len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(data[place + 7 : place + 9], "big"), int.from_bytes(
                data[place + 5 : place + 7], "big"
            )
        if marker == 0:  # libjpeg looks for the next marker
            return None
        if marker in (0xFF, 0x01) or 0xD0 <= marker <= 0xD7:  # padding, or without a length
            place += 1 if marker == 0xFF else 2
        else:
            place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return None


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


def read_yaml(path: Path, *names: str) -> dict:
    """Reads a YAML mapping with the required keys `names`.

    Raises:
        InputError: the file is missing or not YAML, has a tag of a Python object, or lacks a key.
    """
    tree = parse_yaml(read_bytes(path), where=str(path), what="not a safe YAML file")
    for name in names:
        if not isinstance(tree, dict) or name not in tree:
            raise InputError(f"{path}: has no key {name!r}; not a file of this dataset, or another version of it")
    return tree
