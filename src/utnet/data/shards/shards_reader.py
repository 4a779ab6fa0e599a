"""Shard sets of `utnet data shard` (`write_shards`) -> Sample, by random access on local disk.

The shards are plain tars: `utnet.data.tars` streams the same samples from a URL.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from utnet.data.shards.shard_format import MEMBERS, decode_sample
from utnet.data.shards.write_shards import DESCRIPTION, INDEX, KEYS, SEQUENCES, SHARDS_FORMAT
from utnet.data.source import evenly_spaced
from utnet.errors import InputError, shown
from utnet.io.files import read_bytes
from utnet.io.npy import map_npy
from utnet.types import Sample

_MAX_OPEN = 128
"""Number of shards that a process keeps open."""
_CHUNK = 2**22
_REMEDY = "copy the set again, or write it again"
_SHARD = {"file": str, "num": int, "bytes": int, "sha256": str}
"""Fields of a shard in the description."""


class Shards:
    """Picture windows around one right or left hand each, large enough for every jittered crop.

    The index is memory-mapped and shared by all workers. A sample is read by one `os.pread`, which does not move the
    file position, so forked workers can use inherited files.

    Attributes:
        description: contents of `shards.json`: the original source and the options.
        tips: fingertip vertices of the original source.
    """

    name = "shards"

    def __init__(self, root: str | Path, *, limit: int | None = None, with_depth: bool = True):
        self.root, self._with_depth = Path(root), with_depth
        self.description = about = _read_description(self.root)
        self.tips: str = about["tips"]
        self._index, self._keys, self._sequences = (_table(self.root, name) for name in (INDEX, KEYS, SEQUENCES))
        num, columns = about["num"], 1 + 2 * len(MEMBERS)
        tables = (self._index, self._keys, self._sequences)
        shapes = [table.shape for table in tables]
        if shapes != [(num, columns), (num,), (num,)]:
            raise InputError(f"{self.root}: tables of {shapes}, but {num} samples in {DESCRIPTION}; {_REMEDY}")
        if "".join(table.dtype.kind for table in tables) not in ("iSS", "uSS"):
            raise InputError(f"{self.root}: tables of {[str(t.dtype) for t in tables]}, not those of a set; {_REMEDY}")
        for shard in about["shards"]:
            path = self.root / shard["file"]
            size = path.stat().st_size if path.is_file() else None
            if size != shard["bytes"]:
                fault = "no such file" if size is None else f"{size} bytes, expected {shard['bytes']}"
                raise InputError(f"{path}: {fault}; {_REMEDY}")
        self._ids = evenly_spaced(num, limit)
        self.counts = {"samples": num, "skipped when written": about["num_skipped"], "shards": len(about["shards"])}
        self._open: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._ids)

    def key(self, index: int) -> str:
        return self._keys[self._ids[index]].decode(errors="backslashreplace")

    def sequence(self, index: int) -> str:
        return self._sequences[self._ids[index]].decode(errors="backslashreplace")

    def __getitem__(self, index: int) -> Sample:
        number = int(self._ids[index])
        shard, *places = self._index[number].tolist()
        starts, sizes = places[::2], places[1::2]
        shards, first, end = (
            self.description["shards"],
            starts[0],
            max(a + n for a, n in zip(starts, sizes, strict=True)),
        )
        if not (0 <= shard < len(shards) and min(places) >= 0 and first <= end <= shards[shard]["bytes"]):
            raise InputError(f"{self.root / INDEX}: row {number} points beyond the shards; {_REMEDY}")
        path = self.root / shards[shard]["file"]
        where = f"{path}: {number:08d} ({self.key(index)})"
        try:
            data = os.pread(self._file(shard, path), end - first, first)
        except OSError as error:
            raise InputError(f"{where}: cannot be read ({error.strerror}); {_REMEDY}") from error
        if len(data) != end - first:
            raise InputError(f"{where}: the shard is cut off; {_REMEDY}")
        members = {
            ending: data[a - first : a - first + n] for ending, a, n in zip(MEMBERS, starts, sizes, strict=True) if n
        }
        return decode_sample(members, where=where, with_depth=self._with_depth)

    def _file(self, shard: int, path: Path) -> int:
        """The open file of a shard."""
        if shard not in self._open:
            if len(self._open) >= _MAX_OPEN:
                os.close(self._open.pop(next(iter(self._open))))
            self._open[shard] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        return self._open[shard]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}  # a pickled copy (a spawned worker) opens its own

    def __del__(self):
        for descriptor in getattr(self, "_open", {}).values():
            if os is not None:  # None when the interpreter is ending
                os.close(descriptor)

    def verify(self) -> list[str]:
        """Compares checksums and counts with the description; returns one message per fault, or an empty list."""
        faults = []
        for name, expected in self.description["tables_sha256"].items():
            if _sha256(self.root / name) != expected:
                faults.append(f"{self.root / name}: is not the file that was written; {_REMEDY}")
        column, num_shards = np.asarray(self._index[:, 0]), len(self.description["shards"])
        inside = column[(column >= 0) & (column < num_shards)]
        if len(inside) < len(column):
            faults.append(f"{self.root / INDEX}: {len(column) - len(inside)} rows name no shard; {_REMEDY}")
        counted = np.bincount(inside.astype(np.int64), minlength=num_shards).tolist()
        for shard, num in zip(self.description["shards"], counted, strict=True):
            path = self.root / shard["file"]
            if num != shard["num"]:
                faults.append(f"{path}: {num} samples in the index, {shard['num']} in {DESCRIPTION}; {_REMEDY}")
            if not path.is_file():
                faults.append(f"{path}: no such file; {_REMEDY}")
            elif _sha256(path) != shard["sha256"]:
                faults.append(f"{path}: is not the file that was written; {_REMEDY}")
        return faults


def _read_description(root: Path) -> dict:
    path = root / DESCRIPTION
    data = read_bytes(path, "give the folder that `utnet data shard` wrote")
    try:
        about = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error}); {_REMEDY}") from error
    if not isinstance(about, dict) or about.get("format") != SHARDS_FORMAT:
        raise InputError(f"{path}: not the description of a shard set that this version reads ({SHARDS_FORMAT})")
    missing = {"num", "tips", "shards", "tables_sha256", "num_skipped"} - about.keys()
    if missing:
        raise InputError(f"{path}: has no {', '.join(sorted(missing))}; {_REMEDY}")
    fault = _fault_of(about)
    if fault:
        raise InputError(f"{path}: {fault}; {_REMEDY}")
    return about


def _fault_of(about: dict) -> str:
    """The first field with an invalid type, or ""."""
    for name in ("num", "num_skipped"):
        if type(about[name]) is not int or about[name] < 0:
            return f"{name} is {shown(about[name])}, expected a number of samples"
    if not isinstance(about["tips"], str):
        return f"tips is {shown(about['tips'])}, expected a name"
    shards, tables = about["shards"], about["tables_sha256"]
    if not isinstance(shards, list) or not shards:
        return "shards is not a list of shards"
    for i, shard in enumerate(shards):
        if not isinstance(shard, dict) or any(type(shard.get(name)) is not kind for name, kind in _SHARD.items()):
            return f"shard {i} is not described by {', '.join(_SHARD)}"
        if not _is_name(shard["file"]):
            return f"shard {i} is the file {shown(shard['file'])}, expected a name within the folder"
    if not isinstance(tables, dict) or not all(_is_name(name) for name in tables):
        return "tables_sha256 is not a table of names within the folder"
    return ""


def _is_name(file: str) -> bool:
    """Whether it names something directly within a folder."""
    return file not in ("", ".", "..") and not set("/\\\0") & set(file)


def _table(root: Path, name: str) -> np.ndarray:
    try:
        return map_npy(root / name)
    except InputError as error:
        raise InputError(f"{error}; {_REMEDY}") from error


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while data := file.read(_CHUNK):
                digest.update(data)
    except OSError:
        return ""
    return digest.hexdigest()
