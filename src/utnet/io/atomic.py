"""Files and folders that appear complete or not at all, and locks on folders.

A file is synced to disk before it is renamed, so it also survives a power failure. Folders of `atomic_dir` are not
synced, which would take minutes for thousands of files; they survive a crash of the process.

Temporary files and folders of a killed process, which no living process has locked, are removed by the next one that
writes in the same folder.
"""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path

from utnet.errors import InputError

try:
    import fcntl
except ImportError:  # not on Windows: nothing is locked there
    fcntl = None  # type: ignore[assignment]

_LOCK = ".utnet.lock"
_TEMPORARY = re.compile(r"\..+\.\d+\.tmp")


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Context with a temporary file, which replaces `path` on success and is removed on failure.

    An OSError without a file name gets that of `path`.
    """
    path = Path(path)
    _remove_leftovers(path.parent.absolute())
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with naming(path):
        held = os.open(temporary, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if fcntl:
                with suppress(OSError):  # a file system without locks
                    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield temporary
            fsync_path(temporary)
            temporary.replace(path)
            fsync_path(path.parent)
        finally:
            os.close(held)
            temporary.unlink(missing_ok=True)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Adds the name of the file or folder to an OSError that has none (a full disk)."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


@cache
def _remove_leftovers(folder: Path) -> None:
    """Removes temporary files of `atomic_file` whose writers have ended; once per process and folder."""
    if not (fcntl and folder.is_dir()):
        return
    for entry in os.scandir(folder):
        if _TEMPORARY.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
            with suppress(OSError):
                file = os.open(entry.path, os.O_RDWR)
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # OSError where its writer lives
                    os.unlink(entry.path)
                finally:
                    os.close(file)


@contextmanager
def output_folder(folder: str | Path) -> Iterator[None]:
    """Context that creates a folder if needed and locks it against other processes. A folder that was created and is
    still empty at the end is removed.

    The operating system holds the lock, so a killed process leaves none behind.

    Raises:
        InputError: another process has the lock.
    """
    folder = Path(folder)
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    taken = f"{folder}: another utnet is writing into it; wait for its end or give another folder"
    try:
        with _lock(folder / _LOCK, taken):
            yield
    finally:
        if is_new:
            with suppress(OSError):  # not empty
                folder.rmdir()


@contextmanager
def atomic_files(folder: str | Path) -> Iterator[Path]:
    """Context with a temporary folder, whose files are moved into `folder` on success, replacing those of equal names.

    Raises:
        InputError: another process is writing into `folder`.
    """
    folder = Path(folder)
    with output_folder(folder), naming(folder):
        for leftover in folder.glob(".partial-*"):  # of a process that was killed
            shutil.rmtree(leftover, ignore_errors=True)
        partial = folder / f".partial-{os.getpid()}"
        partial.mkdir()
        try:
            yield partial
            for file in sorted(partial.iterdir()):
                os.replace(file, folder / file.name)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _lock(path: Path, taken: str) -> Iterator[None]:
    if not fcntl:
        yield
        return
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            # fcntl locks are not inherited, so workers that outlive this process do not keep the lock.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(file)
            raise InputError(taken) from error
        except OSError:  # a file system without locks
            break
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), os.stat(path)):
                break
        os.close(file)  # its owner has removed the file meanwhile
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(file)


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
        InputError: `out` is there and not an empty folder, it cannot be made, or another process is making it.
    """
    out = Path(out)
    require_new(out)
    with ExitStack() as stack:
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            lock = out.parent / f".{out.name}.lock"
            stack.enter_context(_lock(lock, f"{out}: another utnet is writing it; give another folder"))
            require_new(out)  # again: it may have been made meanwhile
            for leftover in out.parent.glob(f".{glob.escape(out.name)}.partial-*"):  # of a process that was killed
                shutil.rmtree(leftover, ignore_errors=True)
            partial = out.parent / f".{out.name}.partial-{os.getpid()}"
            partial.mkdir()
        except OSError as error:
            raise InputError(f"{out}: cannot be created ({error.strerror}); give a writable folder") from error
        try:
            with naming(out):
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
