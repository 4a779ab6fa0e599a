"""File formats by the first bytes; file names are not trusted."""

from __future__ import annotations

from pathlib import Path

VIDEO_SUFFIXES = (
    ".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".3gp", ".3g2", ".ts", ".mts", ".m2ts", ".flv",
    ".wmv", ".asf", ".ogv",
)  # fmt: skip
"""Names by which videos are known."""

_RAW_SUFFIXES = (".dng", ".nef", ".cr2", ".arw", ".orf", ".rw2", ".pef", ".srw")
"""Suffixes of camera raw files, which look like TIFF but contain only a small readable preview."""

_PICTURE_BRANDS = {b"avif": "AVIF", b"avis": "AVIF"} | dict.fromkeys(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "HEIF"
)
"""Major brands of ISO media files (ISO/IEC 23008-12, AV1 Image File Format) of pictures."""

_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
_PICTURES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
}
_VIDEOS = (
    b"\x1aE\xdf\xa3",  # Matroska, WebM
    b"FLV\x01",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",  # ASF: WMV
    b"\x00\x00\x01\xba",  # MPEG programme stream
    b"\x00\x00\x01\xb3",  # MPEG video
    b"OggS",
)
_TS_PACKETS = ((0, 188), (4, 192))
"""Offset of the sync byte and length of a packet: MPEG transport streams, and those of camcorders (.mts, .m2ts)."""
_HEAD = 4 + 3 * 192


def picture_format(path: Path) -> str | None:
    """Pillow's name of a picture's format, or None if the file is not a picture or cannot be read."""
    head = _head(path)
    if head[4:8] == b"ftyp":
        return _PICTURE_BRANDS.get(head[8:12])
    if head[:4] == b"RIFF":
        return "WEBP" if head[8:12] == b"WEBP" else None
    found = next((name for start, name in _PICTURES.items() if head.startswith(start)), None)
    return None if found == "TIFF" and path.suffix.lower() in _RAW_SUFFIXES else found


def is_video(path: Path) -> bool:
    """Whether a file starts like a video container."""
    head = _head(path)
    if head[4:8] in _BOXES:
        return head[8:12] not in _PICTURE_BRANDS and head[8:12] != b"M4A "
    if head[:4] == b"RIFF":
        return head[8:12] == b"AVI "
    return head.startswith(_VIDEOS) or any(_is_ts(head, *packet) for packet in _TS_PACKETS)


def is_camera_raw(path: Path) -> bool:
    """Whether a file has the suffix of a camera raw file."""
    return path.suffix.lower() in _RAW_SUFFIXES


def _is_ts(head: bytes, offset: int, length: int) -> bool:
    sync = head[offset : offset + 2 * length + 1 : length]
    return len(sync) == 3 and set(sync) == {0x47}


def _head(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_HEAD)
    except OSError:
        return b""
