"""Compressed depth: RVL, ROS's compressedDepth, LZFSE."""

from __future__ import annotations

import struct

import cv2
import numpy as np

from utnet.compiled import njit
from utnet.errors import InputError, install_line
from utnet.io.files import check_pixels

_PNG = b"\x89PNG"
_HEADER = struct.Struct("<iff")
"""compressed_depth_image_transport's ConfigHeader: format, and two numbers of the inverse depth."""
_MOST_PX = 64_000_000


def decode_rvl(data: bytes, size_px: tuple[int, int]) -> np.ndarray:
    """(H, W) uint16 of A. D. Wilson's RVL (ISS 2017): runs of zeros and of differences in nibbles of 32-bit words.

    Raises:
        InputError: too few or too many pixels.
    """
    words = np.frombuffer(data[: len(data) // 4 * 4], "<u4")
    out = np.zeros(size_px[0] * size_px[1], np.uint16)
    if not _decode_rvl(words, out):
        raise InputError("depth compressed by RVL is damaged")
    return out.reshape(size_px[1], size_px[0])


@njit()
def _decode_rvl(words, out):
    place, nibbles, previous, done = 0, 8 * len(words), 0, 0
    count, in_zeros, left = 0, False, 0
    while done < len(out):
        value, shift = 0, 0
        while True:
            if place >= nibbles or shift > 30:
                return False
            nibble = (words[place >> 3] >> np.uint32(28 - 4 * (place & 7))) & np.uint32(15)
            place += 1
            value |= np.int64(nibble & np.uint32(7)) << shift
            shift += 3
            if nibble < 8:
                break
        if left > 0:  # a reading
            previous += (value >> 1) ^ -(value & 1)
            out[done] = previous & 0xFFFF
            done, left = done + 1, left - 1
            continue
        in_zeros = not in_zeros
        count = value
        if count > len(out) - done:
            return False
        if in_zeros:
            done += count
        else:
            left = count
    return left == 0


def decode_compressed_depth(data: bytes, encoding: str, kind: str) -> np.ndarray:
    """Depth of ROS's compressedDepth transport (compressed_depth_image_transport: compression_common.h, codec.cpp).

    Args:
        data: of the CompressedImage.
        encoding: "16UC1" or "32FC1".
        kind: "png" or "rvl".

    Returns:
        (H, W) uint16 as it was recorded, or float32 metres, 0 where there is no reading.

    Raises:
        InputError: it is damaged.
    """
    start = _HEADER.size
    if data[:4] == _PNG:  # some recorders, such as RealSense's, write the picture without a header
        start = 0
    elif len(data) <= start:
        raise InputError("compressed depth is cut short")
    if kind == "rvl":
        width, height = struct.unpack_from("<II", data, start)
        if not 0 < width * height <= _MOST_PX:
            raise InputError(f"compressed depth is damaged ({width}x{height} pixels)")
        depth = decode_rvl(data[start + 8 :], (width, height))
    else:
        check_pixels(data[start:], "compressed depth")
        image = cv2.imdecode(np.frombuffer(data, np.uint8, offset=start), cv2.IMREAD_UNCHANGED)
        if image is None or image.ndim != 2:
            raise InputError("compressed depth is damaged")
        depth = image
    if not encoding.startswith("32"):
        return depth.astype(np.uint16)
    _, a, b = _HEADER.unpack_from(data)
    with np.errstate(divide="ignore"):
        metres = np.float32(a) / (depth.astype(np.float32) - np.float32(b))
    return np.where(depth > 0, metres, np.float32(0))


def decode_lzfse(data: bytes, name: str) -> bytes:
    """Bytes compressed by Apple's LZFSE, through pyliblzfse (the reference implementation).

    Raises:
        InputError: damaged, or the library is missing.
    """
    try:
        import liblzfse
    except ImportError as error:
        raise InputError(f"{name}: compressed by LZFSE; {install_line('recordings')}") from error
    try:
        return liblzfse.decompress(data)
    except liblzfse.error as error:
        raise InputError(f"{name}: damaged LZFSE data; copy the recording again") from error
