"""Pictures of more than 8 bits a channel, and of floats, as 8 bits."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from utnet.errors import InputError

_BITS = (8, 10, 12, 14, 16)
"""Bits that cameras and programs put into 16."""


def to_8_bits(path: Path, numbers: np.ndarray) -> np.ndarray:
    """uint8 of numbers of any type.

    Whole numbers of 16 bits may use fewer: of the fewest of 8, 10, 12, 14 and 16 that hold the largest one, the upper 8
    are taken. Floats are in 0..1, or in 0..255 or 0..65535 where they are larger.

    Raises:
        InputError: larger numbers, or below 0.
    """
    if numbers.dtype == np.uint8:
        return numbers
    values = np.nan_to_num(np.asarray(numbers, np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    largest = float(values.max(initial=0.0))
    if float(values.min(initial=0.0)) < -0.01 * max(largest, 1.0) or largest > 65535:
        raise InputError(f"{path}: numbers up to {largest:g} are no colours; save it with 8 or 16 bits a channel")
    if numbers.dtype.kind != "f":
        bits = next(bits for bits in _BITS if largest < 2**bits)
        return (np.maximum(numbers, 0) >> (bits - 8)).astype(np.uint8)
    white = next(white for white in (1.0, 255.0, 65535.0) if largest <= 1.001 * white)
    return np.rint(np.clip(values / white, 0, 1) * 255).astype(np.uint8)


def read_deep(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 as stored, of a picture that `is_deep`; InputError for a damaged one."""
    image = cv2.imdecode(
        np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION | cv2.IMREAD_ANYDEPTH
    )
    if image is None or image.ndim == 2:
        raise InputError(f"{path}: damaged or cut short; copy it again")
    color = to_8_bits(path, image[..., :3])[..., ::-1]
    if image.shape[2] == 4:  # what is transparent stands on white
        opaque = to_8_bits(path, image[..., 3:]).astype(np.float32) / 255
        color = np.rint(color * opaque + 255 * (1 - opaque)).astype(np.uint8)
    return np.ascontiguousarray(color)


def is_deep(path: Path) -> bool:
    """Whether it is a PNG or TIFF of 16 bits or floats for each of several colours: Pillow cuts these down to their
    upper 8 bits, or cannot read them."""
    with open(path, "rb") as file:
        head = file.read(33)
    if head.startswith(b"\x89PNG"):
        return len(head) == 33 and head[24] == 16 and head[25] in (2, 6)
    if head[:4] not in (b"II*\0", b"MM\0*"):
        return False
    try:
        with Image.open(path, formats=("TIFF",)) as image:
            bits = getattr(image, "tag_v2", {}).get(258, (8,))  # BitsPerSample
            return len(bits) >= 3 and max(bits) > 8
    except UnidentifiedImageError:  # modes that Pillow does not know: floats a channel
        return True
    except (OSError, SyntaxError, ValueError, TypeError):  # damaged: who decodes it says so
        return False
