"""Processing of a unit by a worker: fetches inputs, runs the task, stores the results."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from utnet.apps.bulk import storage
from utnet.apps.bulk.units import Unit
from utnet.errors import InputError, first_line
from utnet.io.pictures import PICTURE_SUFFIXES
from utnet.predict.inputs import Input, find_inputs

RECORDS = "units"
"""Folder of the records of finished units, each written after the unit's other files."""
_STEM = 60
"""Bytes of an input's name within the names of its overlay and arrays; a tar allows 100 in all."""
_TEMPORARY = re.compile(r"utnet-bulk-(\d+)-.*")


@dataclass(frozen=True)
class Source:
    """Origin of a local file.

    Attributes:
        file: its name in the results: a path or URL; in a tar, TAR::MEMBER.
        source: the path or URL; of a member, the tar's.
        member: name in the tar, or None.
    """

    file: str
    source: str
    member: str | None = None


@dataclass
class Result:
    """Result of a unit.

    Attributes:
        counts: numbers to be summed over the units.
        problems: file and reason of inputs that failed or are incomplete.
        files: local result files by their names in the place.
        index: further contents of the unit's record.
    """

    counts: dict[str, int] = field(default_factory=dict)
    problems: list[dict[str, str]] = field(default_factory=list)
    files: dict[str, Path] = field(default_factory=dict)
    index: dict[str, Any] = field(default_factory=dict)

    def note(self, source: Source, why: str, *local: object) -> None:
        """Adds a problem; local names in its text are replaced by those of the source."""
        for path in local:
            why = why.replace(str(path), source.file)
        self.problems.append({"file": source.file, "why": why.removeprefix(f"{source.file}: ")})


def do_unit(do: Callable[[Unit, Path], Result], place: str, unit: Unit) -> dict[str, Any]:
    """Processes a unit, writes its results and finally its record, which is returned.

    Equal arguments give equal bytes.

    Args:
        do: `Task.do`, or another function of the unit and a temporary folder.
        place: folder or URL of the results.
        unit: the unit.

    Raises:
        InputError: the results cannot be written, or storage keeps failing.
    """
    with _temporary_folder() as folder, redirect_stderr(io.StringIO()):
        result = do(unit, folder)
        record = {"unit": unit.name, "counts": result.counts, "problems": result.problems}
        record |= {"files": sorted(result.files), **result.index}
        for name, file in result.files.items():
            storage.write(f"{place}/{name}", file)
        storage.write(f"{place}/{RECORDS}/{unit.name}.json", json.dumps(record, indent=1).encode() + b"\n")
    return record


# --------------------------------------------------------------------------------------------------------------- inputs


def local_inputs(unit: Unit, folder: Path, result: Result) -> Iterator[tuple[Input, Source]]:
    """Yields the inputs as local files. Missing ones and damaged tars are recorded as problems."""
    number = 0
    for url in unit.urls:
        path = storage.local_path(url)
        if path is None:
            path = folder / "in" / f"{number:08d}{Path(url).suffix}"
            path.parent.mkdir(exist_ok=True)
            try:
                storage.fetch(url, path)
            except FileNotFoundError:
                result.note(Source(url, url), "no such file; check the list")
                continue
        files = [(path, Source(url, url))]
        if path.suffix.lower() == ".tar" and path.is_file():
            files = [(file, Source(f"{url}::{name}", url, name)) for file, name in _unpacked(path, folder, url, result)]
        for file, source in files:
            try:
                item = find_inputs([str(file)])[0]
            except InputError as error:
                result.note(source, str(error), file)
            else:
                stem = os.fsencode(Path(source.member or url).stem)[:_STEM].decode(errors="ignore")
                yield replace(item, name=f"{number:08d}_{stem}"), source
            number += 1


def _unpacked(tar: Path, folder: Path, url: str, result: Result) -> list[tuple[Path, str]]:
    """Unpacks the pictures of a tar under new names; returns them with their names in the tar, sorted."""
    found = list[tuple[Path, str]]()
    into = folder / "members"
    into.mkdir()
    try:
        with tarfile.open(tar, "r:") as file:
            for member in file:
                suffix = Path(member.name).suffix.lower()
                content = file.extractfile(member) if member.isfile() and suffix in PICTURE_SUFFIXES else None
                if content is not None:
                    path = into / f"{len(found):08d}{suffix}"
                    with path.open("wb") as target:
                        shutil.copyfileobj(content, target)
                    found.append((path, member.name))
        with tar.open("rb") as file:  # a tar cut after a member has no end marker
            file.seek(max(0, tar.stat().st_size - 2 * tarfile.BLOCKSIZE))
            if any(file.read()):
                raise tarfile.ReadError("its end is missing")
    except (tarfile.TarError, EOFError) as error:
        result.note(Source(url, url), f"a damaged tar ({first_line(error)}); pictures before the damage are read")
    if not found:
        result.note(Source(url, url), "no picture in the tar")
    return sorted(found, key=lambda item: item[1])


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    """Context with a temporary folder; those of killed workers on this machine are removed."""
    root = Path(tempfile.gettempdir())
    for entry in root.glob("utnet-bulk-*"):
        match = _TEMPORARY.fullmatch(entry.name)
        if match and not _is_alive(int(match[1])):
            shutil.rmtree(entry, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"utnet-bulk-{os.getpid()}-", dir=root) as name:
        yield Path(name)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


def packed(path: Path, files: Iterable[tuple[str, bytes]]) -> Path:
    """Writes a tar whose bytes depend only on the names and contents of its files; returns its path."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o644
            tar.addfile(info, io.BytesIO(data))
    return path
