"""SOURCE of `utnet bulk`: folders, globs, lists, tars, videos and recordings, local or in object storage, as a list."""

from __future__ import annotations

import csv
import glob
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utnet.apps.bulk.storage import absolute, local_path, open_fs, read, retried
from utnet.errors import InputError, first_line
from utnet.io.kinds import VIDEO_SUFFIXES
from utnet.io.pictures import PICTURE_SUFFIXES
from utnet.io.recordings.opening import RECORDING_SUFFIXES, is_recording

_LISTS = (".txt", ".csv", ".parquet")
_LONG = (*VIDEO_SUFFIXES, *RECORDING_SUFFIXES, ".gif")


@dataclass(frozen=True, order=True)
class Item:
    """One input.

    Attributes:
        kind: "picture", "long" (a video or recording, processed from start to end) or "tar".
        url: absolute path, or URL.
    """

    kind: str
    url: str


def find_items(words: Sequence[str], *, column: str | None = None) -> list[Item]:
    """Returns the inputs of SOURCE, without duplicates, sorted by kind and URL.

    Files are recognised by their suffixes, since opening millions would take too long. A word is a file, a folder (with
    its subfolders; a local folder that is an RGB-D recording is one input), a glob, or a list: a text file with a path
    or URL per line, or a CSV or parquet file with a column of them. Relative paths in a list start at its folder.

    Args:
        words: of the command line.
        column: of the lists; None: "file" if there is one, else the first.

    Raises:
        InputError: a word that matches nothing, a list without that column, or storage that cannot be reached.
    """
    if not words:
        raise InputError("no source; give a folder, a glob, a list, tars or videos, local or URLs")
    found: dict[str, Item] = {}
    for word in words:
        urls = list(_listed(word, column) if _suffix(word) in _LISTS else _expanded(word))
        found.update((url, Item(_kind(url), url)) for url in urls)
        if not urls:
            raise InputError(f"{word}: no picture, video, recording or tar in it; check the path or pattern")
    return sorted(found.values())


def _expanded(word: str) -> Iterator[str]:
    """Returns the files of a folder, glob or file."""
    fs, path = open_fs(word)
    local = local_path(word)
    try:
        if glob.has_magic(path) and not (local is not None and local.exists()):
            names: Iterable[str] = retried(word, lambda: fs.glob(path))
        elif local is not None and local.is_dir():
            yield from _walked(str(local))
            return
        else:
            if local is not None and not local.exists():
                raise FileNotFoundError(word)
            names = retried(word, lambda: fs.find(path))
            if list(names) == [path]:  # a file given by name is used whatever its suffix
                yield absolute(word)
                return
    except FileNotFoundError as error:
        raise InputError(f"{word}: no such file or folder; check the path") from error
    for name in names:
        if _is_known(name):
            yield absolute(name) if local is not None else fs.unstrip_protocol(name)


def _walked(folder: str) -> Iterator[str]:
    """Returns the files of a local folder and its subfolders; the folder of a recording counts as one."""
    for place, folders, files in os.walk(folder, followlinks=True):
        if is_recording(Path(place)):
            folders.clear()
            yield os.path.abspath(place)
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (os.path.abspath(os.path.join(place, name)) for name in sorted(files) if _is_known(name))


def _listed(word: str, column: str | None) -> Iterator[str]:
    """Returns the paths and URLs of a list."""
    try:
        data = read(word)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise InputError(f"{word}: no such list; check the path") from error
    suffix, folder = _suffix(word), absolute(word).rsplit("/", 1)[0]
    try:
        if suffix == ".txt":
            values: Iterable[Any] = data.decode().splitlines()
        elif suffix == ".csv":
            rows = csv.DictReader(io.StringIO(data.decode(), newline=""))
            name = _column(word, rows.fieldnames or (), column)
            values = [row[name] for row in rows]
        else:
            import pyarrow.parquet as pq

            file = pq.ParquetFile(io.BytesIO(data))
            name = _column(word, file.schema_arrow.names, column)
            values = file.read([name])[name].to_pylist()
    except (ValueError, OSError, csv.Error) as error:
        if isinstance(error, InputError):
            raise
        why = first_line(error)
        raise InputError(f"{word}: not a readable {suffix[1:]} list ({why}); save it again") from error
    texts = [str(value).strip() for value in values if value is not None]
    texts = [text for text in texts if text]
    if not texts:
        raise InputError(f"{word}: the list is empty; give at least one path or URL")
    for text in texts:
        yield absolute(text if "://" in text or text.startswith("/") else f"{folder}/{text}")


def _column(word: str, names: Sequence[str], column: str | None) -> str:
    name = column or ("file" if "file" in names else next(iter(names), ""))
    if name not in names:
        raise InputError(f"{word}: has no column {name!r}, only {', '.join(names) or 'none'}; name it by --column")
    return name


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _is_known(name: str) -> bool:
    hidden = name.rsplit("/", 1)[-1].startswith(".")
    return not hidden and _suffix(name) in (*PICTURE_SUFFIXES, *_LONG, ".tar")


def _kind(url: str) -> str:
    path = local_path(url)
    if _suffix(url) == ".tar":
        return "tar"
    return "long" if _suffix(url) in _LONG or (path is not None and path.is_dir()) else "picture"
