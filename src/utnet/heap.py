"""Where freed memory goes: glibc's heap keeps it, unless a block is large enough to be returned to the system."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h


def return_blocks() -> None:
    """From now on, freed blocks of 128 kB or more are returned: while networks and code are loaded, the buffers of one
    do not stay beside the next. Without glibc: no effect."""
    _set(_MMAP_THRESHOLD, 128 * 1024)


def keep_blocks(largest_mb: int = 4) -> None:
    """From now on, freed blocks of up to `largest_mb` (32 at the most) are kept for the next one, so that its memory is
    not paged in again. The default fits frames of videos to 1280x1024 (with 32 MB a video of 620x1080 takes 90 MB more,
    and no less time)."""
    _set(_MMAP_THRESHOLD, largest_mb * 2**20)
    _set(_TRIM_THRESHOLD, 2 * largest_mb * 2**20)


def _set(parameter: int, value: int) -> None:
    try:
        ctypes.CDLL(None).mallopt(parameter, value)
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return
