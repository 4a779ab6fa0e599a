"""Files on this machine or in object storage, by fsspec, with retries. Written ones appear complete or not at all."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from utnet.errors import InputError, first_line, install_line
from utnet.io.atomic import atomic_file

T = TypeVar("T")
_TRIES, FIRST_WAIT_S = 7, 0.25
"""Attempts of a request, with doubling waits: 16 s in all, besides the retries of the storage client."""
_S3 = {"config_kwargs": {"retries": {"max_attempts": 1}}}
"""Settings without the client's own retries, whose waits of up to 20 s would multiply with ours."""
_REFUSED = ("NoCredentialsError", "PartialCredentialsError", "ClientError", "ProfileNotFound")
"""Errors of botocore that are not retried."""


class StorageError(InputError):
    """Storage that refuses access or keeps failing; the job ends, and can be started again."""


def local_path(url: str) -> Path | None:
    """Returns the path of a local file, or None for a URL of object storage."""
    if url.startswith(("file://", "local://")):
        return Path(url.split("://", 1)[1])
    return None if "://" in url else Path(url)


def absolute(url: str) -> str:
    """Returns a URL unchanged, and a local path as an absolute one."""
    path = local_path(url)
    return url.rstrip("/") if path is None else os.path.abspath(path)


def open_fs(url: str) -> tuple[Any, str]:
    """Returns fsspec's file system of a URL, and the path in it.

    Raises:
        InputError: fsspec, or the package of this kind of storage, is not installed, or the kind of URL is unknown.
    """
    try:
        import fsspec

        options = {} if local_path(url) else {"use_listings_cache": False}
        return fsspec.core.url_to_fs(url, **options, **(_S3 if url.startswith(("s3://", "s3a://")) else {}))
    except ImportError as error:
        raise InputError(f"{url}: needs a package ({first_line(error)}); {install_line('cluster')}") from error
    except ValueError as error:
        raise InputError(f"{url}: not a URL known to fsspec ({first_line(error)}); check the URL") from error


def retried(url: str, call: Callable[[], T]) -> T:
    """Calls `call` and returns its result; storage errors are retried with growing waits.

    Raises:
        FileNotFoundError: there is no such file.
        StorageError: access is refused, or every attempt failed.
    """
    for attempt in range(_TRIES):
        try:
            return call()
        except (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError):
            raise
        except Exception as error:  # clients raise errors of several libraries
            if isinstance(error, PermissionError) or type(error).__name__ in _REFUSED:
                raise StorageError(
                    f"{url}: access is refused ({first_line(error)}); check the credentials (of S3: "
                    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE) and permissions"
                ) from error
            if attempt == _TRIES - 1:
                raise StorageError(
                    f"{url}: the storage keeps failing ({first_line(error)}); check its address, and start it again"
                ) from error
            time.sleep(FIRST_WAIT_S * 2**attempt)
    raise AssertionError


def fetch(url: str, target: Path) -> None:
    """Copies a file from object storage; errors as of `retried`."""
    fs, path = open_fs(url)
    retried(url, lambda: fs.get_file(path, str(target)))


def read(url: str) -> bytes:
    """Returns the content of a file; errors as of `retried`."""
    fs, path = open_fs(url)
    return retried(url, lambda: fs.cat_file(path))


def write(url: str, content: bytes | Path) -> None:
    """Writes bytes, or a copy of a local file, in one request or by renaming; errors as of `retried`."""
    local = local_path(url)
    if local is not None:
        local.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(local) as temporary:
            if isinstance(content, bytes):
                temporary.write_bytes(content)
            else:
                shutil.copyfile(content, temporary)
        return
    fs, path = open_fs(url)
    try:
        if isinstance(content, bytes):
            retried(url, lambda: fs.pipe_file(path, content))
        else:
            retried(url, lambda: fs.put_file(str(content), path))
    except FileNotFoundError as error:
        raise StorageError(f"{url}: no such bucket; create it first") from error


def remove(url: str) -> None:
    """Removes a folder with its contents, if it exists; errors as of `retried`."""
    fs, path = open_fs(url)
    with suppress(FileNotFoundError):
        retried(url, lambda: fs.rm(path, recursive=True))


def names_in(url: str) -> list[str]:
    """Returns the sorted names of files and folders in a folder, without hidden ones; [] if it does not exist."""
    fs, path = open_fs(url)
    try:
        found = retried(url, lambda: fs.ls(path, detail=False))
    except (FileNotFoundError, NotADirectoryError):
        return []
    names = (entry.rstrip("/").rsplit("/", 1)[-1] for entry in found if entry.rstrip("/") != path.rstrip("/"))
    return sorted(name for name in names if not name.startswith("."))
