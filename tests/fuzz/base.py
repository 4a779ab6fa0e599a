"""Undamaged files, drawn once a campaign and shared by its processes."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

_VARIABLE = "UTNET_FUZZ_BASE"


def base(name: str, write: Callable[[Path], object]) -> Path:
    """The file or folder that `write(path)` makes, made once."""
    if _VARIABLE not in os.environ:  # a single batch by itself
        os.environ[_VARIABLE] = tempfile.mkdtemp(prefix="utnet-fuzz-base-")
        atexit.register(shutil.rmtree, os.environ[_VARIABLE], ignore_errors=True)
    path = Path(os.environ[_VARIABLE]) / name
    if not path.exists():
        fresh = path.with_name(f"fresh-{name}")
        shutil.rmtree(fresh, ignore_errors=True)
        write(fresh)
        fresh.rename(path)
    return path


def copy(tree: Path, folder: Path) -> Path:
    return Path(shutil.copytree(tree, folder / tree.name))
