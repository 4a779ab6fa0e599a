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
    """What `build` returns, from the cache where that holds it.

    Args:
        name: which arrays, such as "dexycb-20200709-subject-01"; part of a file name.
        root: the data set's folder; two folders never share a cache.
        stamp: anything JSON that changes when the files do (sizes, times of change, the layout's version); the
            arrays are built anew where the cached stamp is another.
        build: makes the arrays by reading the files.
        refresh: build them anew whatever the cache holds.

    Returns:
        Read-only arrays, memory-mapped. Where the cache cannot be written, a warning, and the arrays from memory.
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
    """The mapped arrays, or None where there are none of this stamp, or damaged ones."""
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
    """All files or none: they are written beside the folder, which is then put in its place."""
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
