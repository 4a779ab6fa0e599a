"""Arrays derived from a data set's files (indices, parsed JSON), made once and memory-mapped afterwards.

A mapped array is shared by all workers and processes of a machine, and opening one reads nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from utnet.errors import BAD_TREE
from utnet.io.npy import map_npy

_STAMP = "stamp.json"


def cache_folder() -> Path:
    """`$UTNET_CACHE`, else `utnet` in the user's cache folder."""
    if "UTNET_CACHE" in os.environ:
        return Path(os.environ["UTNET_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "utnet"


def cached_arrays(
    name: str, root: Path, stamp: object, build: Callable[[], dict[str, np.ndarray]], *, refresh: bool = False
) -> dict[str, np.ndarray]:
    """Returns the arrays of `build`, from the cache if they are there.

    Args:
        name: name of the arrays, such as "dexycb-20200709-subject-01"; part of a file name.
        root: the data set's folder; each folder has its own cache.
        stamp: a JSON value that changes with the files (sizes, times of change, version of the layout); the arrays are
            rebuilt if the cached stamp differs.
        build: makes the arrays by reading the files.
        refresh: always rebuild them.

    Returns:
        Read-only memory-mapped arrays; if the cache cannot be written, the arrays in memory, with a warning.
    """
    place = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]
    folder = cache_folder() / f"{name}-{place}"
    stamp = json.loads(json.dumps(stamp))
    found = None if refresh else _open(folder, stamp)
    if found is not None:
        return found
    arrays = build()
    try:
        _write(folder, stamp, arrays)
    except OSError as error:
        warnings.warn(
            f"{folder}: the index cannot be kept ({error.strerror}), so it is made again at every start; "
            "name a writable folder in UTNET_CACHE",
            stacklevel=2,
        )
        return arrays
    return _open(folder, stamp) or arrays


def _open(folder: Path, stamp: object) -> dict[str, np.ndarray] | None:
    """The mapped arrays, or None if they are missing, damaged, or of another stamp."""
    try:
        about = json.loads((folder / _STAMP).read_text(encoding="utf-8"))
        if about["stamp"] != stamp:
            return None
        arrays = {name: map_npy(folder / f"{name}.npy") for name in about["shapes"]}
    except (OSError, *BAD_TREE):
        return None
    whole = all(list(arrays[name].shape) == shape for name, shape in about["shapes"].items())
    return arrays if whole else None


def _write(folder: Path, stamp: object, arrays: dict[str, np.ndarray]) -> None:
    """Writes all files or none: to a temporary folder, which then replaces the old one."""
    fresh = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        fresh.mkdir(parents=True)
        for name, array in arrays.items():
            np.save(fresh / f"{name}.npy", array, allow_pickle=False)
        about = {"stamp": stamp, "shapes": {name: list(array.shape) for name, array in arrays.items()}}
        (fresh / _STAMP).write_text(json.dumps(about), encoding="utf-8")
        old = folder.with_name(f"{folder.name}.{os.getpid()}.old")
        if folder.exists():
            folder.rename(old)  # processes that have mapped the old arrays keep them
        try:
            fresh.rename(folder)
        except OSError:
            if not folder.exists():
                raise  # else another process has just written the same arrays
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
