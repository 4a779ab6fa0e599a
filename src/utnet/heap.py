"""Freed memory and garbage collection, while networks and code are loaded and after.

glibc's heap keeps freed memory, unless a block is large enough to be returned to the system. Python's garbage collector
examines all objects again and again while modules are loaded, which create them by the thousand.
"""

from __future__ import annotations

import ctypes
import gc

_collection: tuple[int, int, int] | None = None  # thresholds before `begin_loading`, until `end_loading`
_own_process = False
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # of malloc.h


def begin_loading() -> None:
    """From now on, freed blocks of 128 kB or more are returned, so that the buffers of one network do not stay beside
    the next, and threads started later share one heap, since each of several keeps free memory (without glibc: no
    effect). Garbage is collected seldom. For commands, whose process is our own."""
    global _collection, _own_process
    _own_process = True
    _collection = _collection or gc.get_threshold()
    gc.set_threshold(50_000)
    _set(_MMAP_THRESHOLD, 128 * 1024)
    _set(_ARENA_MAX, 1)


def end_loading() -> None:
    """From now on, freed blocks of up to 4 MB are kept for the next one, so frames of videos (to 1280x1024) are not
    paged in again (with up to 32 MB a video of 620x1080 takes 90 MB more, and no less time). After `begin_loading`
    garbage is collected as before it, but no longer among what is loaded, not even at the end of the process."""
    global _collection
    if _collection is not None:  # once: what a video leaves is garbage
        gc.freeze()
        gc.set_threshold(*_collection)
        _collection = None
    keep_blocks(4, spare_mb=8)


def keep_blocks(largest_mb: int, *, spare_mb: int) -> None:
    """From now on, freed blocks of up to `largest_mb` (32 at the most) are kept for the next one, so that its memory is
    not paged in again, and up to `spare_mb` of free memory at the heap's end."""
    _set(_MMAP_THRESHOLD, largest_mb * 2**20)
    _set(_TRIM_THRESHOLD, spare_mb * 2**20)


def return_free_pages() -> None:
    """Returns the free memory inside of the heap, once: after a step that needs more than those that follow it. Only
    after `begin_loading`, since the heap of another program can be large."""
    if not _own_process:
        return
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        return


def _set(parameter: int, value: int) -> None:
    try:
        ctypes.CDLL(None).mallopt(parameter, value)
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return
