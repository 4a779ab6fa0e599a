"""Conversion of pictures with more than 8 bits per channel, or floats, to 8 bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from utnet.errors import InputError
from utnet.io.limits import check_megapixels

_BITS = (8, 10, 12, 14, 16)
"""Bit depths that cameras and programs store in 16 bits."""

_WIDTH, _HEIGHT, _BITS_PER_SAMPLE = 256, 257, 258  # tags of TIFF


def to_8_bits(path: Path, numbers: np.ndarray) -> np.ndarray:
    """Converts pixel values of any type to uint8.

    Integers: the bit depth is the smallest of 8, 10, 12, 14 and 16 that holds the largest value, and its upper 8 bits
    are kept. Floats are in 0 to 1, or in 0 to 255 or 0 to 65535 if they are larger.

    Raises:
        InputError: values above 65535 or below 0.
    """
    if numbers.dtype == np.uint8:
        return numbers
    values = np.nan_to_num(np.asarray(numbers, np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    largest = float(values.max(initial=0.0))
    if float(values.min(initial=0.0)) < -0.01 * max(largest, 1.0) or largest > 65535:
        raise InputError(f"{path}: values up to {largest:g} are not colours; save it with 8 or 16 bits per channel")
    if numbers.dtype.kind != "f":
        bits = next(bits for bits in _BITS if largest < 2**bits)
        return (np.maximum(numbers, 0) >> (bits - 8)).astype(np.uint8)
    white = next(white for white in (1.0, 255.0, 65535.0) if largest <= 1.001 * white)
    return np.rint(np.clip(values / white, 0, 1) * 255).astype(np.uint8)


def read_deep(path: Path) -> np.ndarray:
    """Reads a picture for which `is_deep` is True: (H, W, 3) uint8 as stored.

    Raises:
        InputError: it is damaged, or has more than `MAX_MEGAPIXELS`.
    """
    check_megapixels(path, *_size(path))
    image = cv2.imdecode(
        np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION | cv2.IMREAD_ANYDEPTH
    )
    if image is None or image.ndim == 2:
        raise InputError(f"{path}: damaged or truncated; copy it again")
    color = to_8_bits(path, image[..., :3])[..., ::-1]
    if image.shape[2] == 4:  # blend with white
        opaque = to_8_bits(path, image[..., 3:]).astype(np.float32) / 255
        color = np.rint(color * opaque + 255 * (1 - opaque)).astype(np.uint8)
    return np.ascontiguousarray(color)


def is_deep(path: Path) -> bool:
    """Whether a file is a colour PNG or TIFF of 16 bits or floats, which Pillow truncates or cannot read."""
    with open(path, "rb") as file:
        head = file.read(33)
    if head.startswith(b"\x89PNG"):
        return len(head) == 33 and head[24] == 16 and head[25] in (2, 6)
    bits = _tiff_tags(path).get(_BITS_PER_SAMPLE, (8,))
    return isinstance(bits, tuple) and len(bits) >= 3 and max(bits) > 8


def _size(path: Path) -> tuple[int, int]:
    """(width, height) by the header. Pillow's own reader has no modes for colours of floats."""
    with open(path, "rb") as file:
        head = file.read(24)
    if head.startswith(b"\x89PNG"):
        return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
    tags = _tiff_tags(path)
    return tags.get(_WIDTH, 0), tags.get(_HEIGHT, 0)


def _tiff_tags(path: Path) -> dict[int, Any]:
    """Tags of a TIFF's first picture; {} of other and damaged files."""
    try:
        with open(path, "rb") as file:
            head = file.read(8)
            if head[:4] not in (b"II*\0", b"MM\0*"):
                return {}
            tags = ImageFileDirectory_v2(head)
            file.seek(tags.next)
            tags.load(file)
            return {tag: tags[tag] for tag in (_WIDTH, _HEIGHT, _BITS_PER_SAMPLE) if tag in tags}
    except Exception:  # damaged: decoding raises the error
        return {}
