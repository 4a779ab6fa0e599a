"""Storage of uploads and results in a temporary folder, limited in bytes, number and age."""

from __future__ import annotations

import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_BYTES = 2 * 10**9
"""Largest size of uploads and results together, including incomplete ones."""
MAX_ENTRIES = 1000
MAX_AGE_S = 6 * 3600.0


class StoreFull(Exception):
    """All entries are in use, so there is no space for more."""


@dataclass(eq=False)
class Entry:
    """One upload or one result.

    Attributes:
        key: its unguessable name in URLs.
        owner: session of the visitor with access.
        kind: "file" or "picture".
        folder: of its files.
        num_bytes: size of its files, or what is reserved for them while they are written.
        used_s: time of the last use.
        users: number of requests and jobs that use it; it is not removed meanwhile.
        content: the server's data for it.
    """

    key: str
    owner: str
    kind: str
    folder: Path
    num_bytes: int
    used_s: float
    users: int = 0
    content: Any = None


class Store:
    """Entries of all visitors; the least recently used are removed first. A context manager.

    Calls from several threads at once are safe.

    Args:
        max_bytes: limit of all entries together.
        max_entries: limit of their number.
        max_age_s: time without use after which an entry expires.
        clock: monotonic seconds.

    Attributes:
        path: the temporary folder, removed at the end.
        num_bytes: of all entries.
    """

    def __init__(
        self,
        *,
        max_bytes: int = MAX_BYTES,
        max_entries: int = MAX_ENTRIES,
        max_age_s: float = MAX_AGE_S,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._max_bytes, self._max_entries, self._max_age_s = max_bytes, max_entries, max_age_s
        self._clock, self._lock = clock, threading.RLock()
        self._entries: dict[str, Entry] = {}

    def __enter__(self) -> Store:
        self.path = Path(tempfile.mkdtemp(prefix="utnet-serve-")).resolve()
        return self

    def __exit__(self, *_) -> None:
        folder = self.path
        with suppress(OSError):  # on Windows, while a file in it is open
            folder = folder.rename(f"{folder}.removed")  # so that a job that goes on cannot write into it
        shutil.rmtree(folder, ignore_errors=True)

    @property
    def num_bytes(self) -> int:
        with self._lock:
            return sum(entry.num_bytes for entry in self._entries.values())

    @contextmanager
    def new(self, owner: str, kind: str, num_bytes: int) -> Iterator[Entry]:
        """Context with a new entry with space for files of that size; it is removed if the block fails.

        Raises:
            StoreFull: no space even after removing all unused entries.
        """
        with self._lock:
            self._make_room(num_bytes)
            key = secrets.token_urlsafe(16)
            folder = self.path / secrets.token_hex(16)
            folder.mkdir(mode=0o700)
            entry = Entry(key, owner, kind, folder, num_bytes, self._clock(), users=1)
            self._entries[key] = entry
        try:
            yield entry
        except BaseException:
            self._remove(entry)
            raise
        finally:
            self.release(entry)

    def find(self, key: str, owner: str, kind: str) -> Entry | None:
        """Returns the visitor's entry of that kind, or None if there is none (any more)."""
        with self._lock:
            self.tidy()
            entry = self._entries.get(key)
            if entry is None or entry.kind != kind or not secrets.compare_digest(entry.owner.encode(), owner.encode()):
                return None
            entry.used_s = self._clock()
            return entry

    def hold(self, entry: Entry) -> None:
        """Keeps an entry until `release`."""
        with self._lock:
            entry.users += 1

    def release(self, entry: Entry) -> None:
        """Ends `hold` and updates the size of the entry."""
        with self._lock:
            entry.users -= 1
            entry.used_s = self._clock()
            if entry.users == 0 and entry.folder.is_dir():
                entry.num_bytes = sum(path.stat().st_size for path in entry.folder.iterdir())

    def tidy(self) -> None:
        """Removes expired entries."""
        with self._lock:
            oldest = self._clock() - self._max_age_s
            for entry in [e for e in self._entries.values() if e.used_s < oldest and not e.users]:
                self._remove(entry)

    def _make_room(self, num_bytes: int) -> None:
        self.tidy()
        idle = sorted((e for e in self._entries.values() if not e.users), key=lambda e: -e.used_s)
        while self.num_bytes + num_bytes > self._max_bytes or len(self._entries) >= self._max_entries:
            if not idle:
                raise StoreFull
            self._remove(idle.pop())

    def _remove(self, entry: Entry) -> None:
        with self._lock:
            self._entries.pop(entry.key, None)
            shutil.rmtree(entry.folder, ignore_errors=True)
