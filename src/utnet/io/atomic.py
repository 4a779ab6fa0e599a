"""Atomic writes of files and folders: a reader sees the complete old or new content.

Files are also safe against a crash of the machine: they are synced to disk before they are renamed. Folders of
`atomic_dir` are safe against a crash of the process only, because syncing many thousand files takes minutes.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from utnet.errors import InputError


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Context with a temporary file beside `path`, which replaces `path` on success and is removed on failure."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        fsync_path(temporary)
        temporary.replace(path)
        fsync_path(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def fsync_path(path: Path) -> None:
    """Syncs the content of a file, or the entries of a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def require_new(out: Path) -> None:
    """Raises InputError if `out` exists and is not an empty folder. Call it before long work, too."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: not empty; give a new folder (nothing is overwritten)")


@contextmanager
def atomic_dir(out: str | Path) -> Iterator[Path]:
    """Context with a temporary folder, which becomes `out` on success and is removed on failure.

    Raises:
        InputError: `out` exists and is not an empty folder, or it cannot be created.
    """
    out = Path(out)
    require_new(out)
    partial = out.parent / f".{out.name}.partial-{os.getpid()}"
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"{out}: cannot be created ({error.strerror}); give a writable folder") from error
    try:
        yield partial
        os.replace(partial, out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def atomic_write(path: str | Path, data: bytes | str) -> None:
    """Writes a file atomically, replacing an existing one. Its folder must exist."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def write_json(path: str | Path, tree: dict) -> None:
    """Writes a JSON file atomically."""
    atomic_write(path, json.dumps(tree, indent=1) + "\n")


def check_stand_in(path: Path) -> None:
    """Raises InputError if a downloaded file is a Git LFS pointer or a web page instead."""
    try:
        with open(path, "rb") as file:
            head = file.read(512).lstrip().lower()
    except OSError:
        return  # reading the file raises the error
    if head.startswith(b"version https://git-lfs"):
        raise InputError(f"{path}: a Git LFS pointer instead of the file; run `git lfs pull` in its repository")
    if head.startswith((b"<!doctype html", b"<html")):
        raise InputError(f"{path}: a web page instead of the file; download it in a browser (a login may be required)")
