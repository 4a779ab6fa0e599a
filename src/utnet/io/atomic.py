"""Files and folders that appear whole or not at all.

A file also survives the machine's end (power, a kernel's panic): it is on the disk before it gets its name. A folder of
`new_folder` survives that of the process; many thousand files would take minutes to wait for.
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
def whole_file(path: str | Path) -> Iterator[Path]:
    """A temporary sibling to write into; it replaces `path` at once where nothing was raised, and is gone otherwise."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        put_on_disk(temporary)
        temporary.replace(path)
        put_on_disk(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def put_on_disk(path: Path) -> None:
    """Waits until a file's content, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def require_new(out: Path) -> None:
    """InputError where `new_folder` would raise it: to be asked before a long part, too."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: is not empty; give a new folder, nothing is overwritten")


@contextmanager
def new_folder(out: str | Path) -> Iterator[Path]:
    """A folder to write into, which becomes `out` when the block ends and vanishes if it fails.

    Raises:
        InputError: `out` is there and not an empty folder, or it cannot be made.
    """
    out = Path(out)
    require_new(out)
    partial = out.parent / f".{out.name}.partial-{os.getpid()}"
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"{out}: cannot be made ({error.strerror}); give a folder that can be written") from error
    try:
        yield partial
        os.replace(partial, out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def write_whole(path: str | Path, data: bytes | str) -> None:
    """Writes a file through a temporary sibling; an older file there is replaced at once, its folder must exist."""
    with whole_file(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def write_json(path: str | Path, tree: dict) -> None:
    """`write_whole` of a JSON file."""
    write_whole(path, json.dumps(tree, indent=1) + "\n")


def check_stand_in(path: Path) -> None:
    """InputError where a file is what people get in place of a download: a Git LFS pointer or a web page."""
    try:
        with open(path, "rb") as file:
            head = file.read(512).lstrip().lower()
    except OSError:
        return  # who reads the file says so
    if head.startswith(b"version https://git-lfs"):
        raise InputError(f"{path}: a Git LFS pointer, not the file itself; run `git lfs pull` where it comes from")
    if head.startswith((b"<!doctype html", b"<html")):
        raise InputError(
            f"{path}: a web page, not the file itself; download it in a browser (one may have to log in first)"
        )
