"""Where freed memory goes: glibc's heap keeps it, unless a block is large enough to be returned to the system."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # of malloc.h


def return_blocks() -> None:
    """From now on, freed blocks of 128 kB or more are returned: while networks and code are loaded, the buffers of one
    do not stay beside the next. Later threads share one heap: of several, each keeps free memory. Without glibc: no
    effect."""
    _set(_MMAP_THRESHOLD, 128 * 1024)
    _set(_ARENA_MAX, 1)


def keep_blocks() -> None:
    """From now on, freed blocks of up to 4 MB are kept for the next one, so frames of videos (to 1280x1024) are not
    paged in again. (With up to 32 MB a video of 620x1080 takes 90 MB more, and no less time.)"""
    _set(_MMAP_THRESHOLD, 4 * 1024 * 1024)
    _set(_TRIM_THRESHOLD, 8 * 1024 * 1024)


def return_free_pages() -> None:
    """Returns the free memory inside of the heap, once: after a step that needs more than those that follow it."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        return


def _set(parameter: int, value: int) -> None:
    try:
        ctypes.CDLL(None).mallopt(parameter, value)
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return
