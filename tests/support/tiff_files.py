"""A TIFF of many pixels in a few kB."""

import struct
import zlib


def tiff(
    width: int,
    height: int,
    *,
    bits: int = 32,
    channels: int = 3,
    rows: int = 10,
    stated_rows: int | None = None,
    next_page: int = 0,
) -> bytes:
    """A TIFF in strips of `rows` rows, all of them the same packed zeros: many pixels in a few kB.

    Its header states `stated_rows` a strip, and a next page at byte `next_page` (8: the same page again and again).
    """
    start, stated = 8 + 2 + 11 * 12 + 4, rows if stated_rows is None else stated_rows
    strips, zeros = -(-height // rows), zlib.compress(bytes(width * rows * channels * bits // 8), 9)
    shorts = struct.pack(f"<{2 * channels}H", *[bits] * channels, *[3 if bits == 32 else 1] * channels)
    offsets = start + len(shorts)
    counts, data = offsets + 4 * strips, offsets + 8 * strips
    tags = [
        *((256, 4, 1, width), (257, 4, 1, height), (259, 3, 1, 8), (262, 3, 1, 2 if channels == 3 else 1)),
        *((273, 4, strips, offsets), (277, 3, 1, channels), (278, 4, 1, stated), (279, 4, strips, counts)),
        *((284, 3, 1, 1), (339, 3, channels, start + 2 * channels if channels > 1 else shorts[2])),
        (258, 3, channels, start if channels > 1 else bits),
    ]
    packed = b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
    lists = struct.pack(f"<{2 * strips}I", *[data] * strips, *[len(zeros)] * strips)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + packed + struct.pack("<I", next_page) + shorts + lists + zeros
