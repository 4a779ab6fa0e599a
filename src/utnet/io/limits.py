"""Size limits of pictures and arrays, checked by their headers before memory is allocated."""

from __future__ import annotations

from pathlib import Path

from utnet.errors import InputError

MAX_MEGAPIXELS = 120
"""Of a picture. Phones take 108; decoding 120 needs up to a gigabyte."""

MAX_ARRAY_BYTES = 2**28
"""Largest array that is read into memory; the largest here are depth images and index tables of a few MB."""


def check_megapixels(path: str | Path, width: int, height: int, *, most: float = MAX_MEGAPIXELS) -> None:
    """InputError for a picture, or frames of a video, too large to decode."""
    if width * height > most * 1e6:
        raise InputError(
            f"{path}: {width} x {height} px are {width * height / 1e6:.0f} megapixels; at most {most} are read; "
            "make it smaller first"
        )
