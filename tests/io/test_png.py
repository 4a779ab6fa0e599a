"""Depth PNGs read by hand: OpenCV's numbers for every filter, and nothing of what is damaged or unusual."""

import struct
import zlib

import cv2
import numpy as np
import pytest

from utnet.errors import InputError
from utnet.io.files import read_depth_png
from utnet.io.png import decode_depth_png


def depth(size_wh: tuple[int, int] = (37, 23)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 65536, size_wh[::-1]).astype(np.uint16)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">L", len(data)) + name + data + struct.pack(">L", zlib.crc32(name + data))


def png(values: np.ndarray, kinds: list[int], *, bits: int = 16, interlace: int = 0, extra: bytes = b"") -> bytes:
    """A PNG whose row y is filtered by `kinds[y % len(kinds)]`, written as the specification defines the filters."""
    height, width = values.shape
    rows = values.astype(">u2").view(np.uint8).reshape(height, 2 * width).astype(int)
    out, above = bytearray(), np.zeros(2 * width, int)
    for y, row in enumerate(rows):
        kind = kinds[y % len(kinds)]
        left, corner = (np.concatenate([[0, 0], line[:-2]]) for line in (row, above))
        guess = left + above - corner
        a, b, c = abs(guess - left), abs(guess - above), abs(guess - corner)
        paeth = np.where((a <= b) & (a <= c), left, np.where(b <= c, above, corner))
        predicted = (0, left, above, (left + above) // 2, paeth, 0)[kind]
        out += bytes([kind]) + ((row - predicted) % 256).astype(np.uint8).tobytes()
        above = row
    packed = zlib.compress(bytes(out))
    header = chunk(b"IHDR", struct.pack(">2L5B", width, height, bits, 0, 0, 0, interlace))
    parts = [chunk(b"IDAT", packed[:100]), chunk(b"IDAT", packed[100:])]
    return b"\x89PNG\r\n\x1a\n" + header + extra + b"".join(parts) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kinds", [[0], [1], [2], [3], [4], [4, 1, 3, 0, 2, 2, 1]])
def test_every_filter_gives_what_opencv_gives(kinds):
    data = png(depth(), kinds)
    np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED), depth())
    ours = decode_depth_png(data, 0.001)
    assert ours.dtype == np.float32
    np.testing.assert_array_equal(ours, depth() * np.float32(0.001))


@pytest.mark.parametrize("level", [0, 1, 9])
def test_what_opencv_writes_is_read(level):
    data = cv2.imencode(".png", depth(), [cv2.IMWRITE_PNG_COMPRESSION, level])[1].tobytes()
    np.testing.assert_array_equal(decode_depth_png(data, 0.0001), depth() * np.float32(0.0001))


def test_what_is_not_plain_is_left_to_opencv():
    colors = cv2.imencode(".png", np.zeros((4, 5, 3), np.uint16))[1].tobytes()
    bytes_ = cv2.imencode(".png", np.zeros((4, 5), np.uint8))[1].tobytes()
    transparent = png(depth(), [1], extra=chunk(b"tRNS", b"\0\7"))
    for data in (colors, bytes_, transparent, png(depth(), [1], interlace=1), b"", b"\xff\xd8 not a PNG"):
        assert decode_depth_png(data, 0.001) is None
    assert decode_depth_png(png(depth(), [1], extra=chunk(b"tEXt", b"made by")), 0.001) is not None


def test_every_cut_and_every_changed_byte_is_noticed():
    data = png(depth((5, 4)), [1, 4])
    for end in range(len(data) - 1):
        assert decode_depth_png(data[:end], 0.001) is None, end
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 0x55
        assert decode_depth_png(bytes(changed), 0.001) is None, place


def test_impossible_filters_and_sizes_are_refused():
    assert decode_depth_png(png(depth(), [1, 5]), 0.001) is None
    whole = png(depth(), [1])
    pixels = whole[8 + 25 :]
    for width, height in ((37, 22), (37, 24), (0, 23), (2**31, 2**31)):  # too many bytes, too few, none, a bomb
        header = chunk(b"IHDR", struct.pack(">2L5B", width, height, 16, 0, 0, 0, 0))
        assert decode_depth_png(whole[:8] + header + pixels, 0.001) is None


def test_a_file_is_named_when_it_is_not_depth(tmp_path):
    path = tmp_path / "depth.png"
    path.write_bytes(png(depth(), [1], interlace=1))  # damaged for OpenCV, too
    with pytest.raises(InputError, match=r"depth\.png: not an image"):
        read_depth_png(path, 0.001, "millimetres")
    cv2.imwrite(str(path), np.zeros((4, 5), np.uint8))
    with pytest.raises(InputError, match=r"depth\.png: uint8 with shape \(4, 5\); expected millimetres"):
        read_depth_png(path, 0.001, "millimetres")
    cv2.imwrite(str(path), depth())
    np.testing.assert_array_equal(read_depth_png(path, 0.001, ""), depth() * np.float32(0.001))
    with pytest.raises(InputError, match="no such file"):
        read_depth_png(tmp_path / "no.png", 0.001, "")
