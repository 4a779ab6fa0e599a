"""The page's own folder: everything that it keeps, for as long as it runs."""

from __future__ import annotations

import secrets
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

MAX_FOLDER_BYTES = 2 * 10**9
"""Of uploads and answers together; the oldest go first."""
MAX_AGE_S = 6 * 3600.0


class OwnFolder:
    """A temporary folder; use it in `with`, at whose end it is gone.

    Attributes:
        path: the folder, links resolved.
    """

    def __enter__(self) -> OwnFolder:
        self.path = Path(tempfile.mkdtemp(prefix="utnet-serve-")).resolve()
        return self

    def __exit__(self, *_) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    def new(self) -> Path:
        """A new folder in it, whose name cannot be guessed."""
        folder = self.path / secrets.token_hex(16)
        folder.mkdir()
        return folder

    def holds(self, path: str) -> bool:
        """Whether a path is of a file in it, after links and dots."""
        try:
            file = Path(path).resolve()
        except (OSError, ValueError):  # a name that cannot be: a null byte, a loop of links
            return False
        return file.is_relative_to(self.path) and file.is_file()

    def tidy(self, *, max_bytes: int = MAX_FOLDER_BYTES, max_age_s: float = MAX_AGE_S) -> None:
        """Removes files that are too old, and the oldest where there are too many."""
        files = []
        for path in self.path.rglob("*"):
            with suppress(OSError):  # gone meanwhile
                if path.is_file():
                    files.append((path.stat().st_mtime, path.stat().st_size, path))
        total, now = 0, time.time()
        for changed, size, path in sorted(files, reverse=True):
            total += size
            if total > max_bytes or now - changed > max_age_s:
                with suppress(OSError):
                    path.unlink()
