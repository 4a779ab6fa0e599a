"""Small written trees, made once for all test files of a process, and a copy of one to damage."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path

from utnet.synth.write_dexycb import write_dexycb
from utnet.synth.write_ho3d import write_ho3d

NUM_DEXYCB = 61
"""Seven full moments of eight cameras and five cameras of an eighth: the last three do not see the hand."""

NUM_HO3D = 9


@lru_cache(maxsize=1)
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="utnet-trees-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@lru_cache(maxsize=1)
def dexycb_tree() -> Path:
    write_dexycb(_folder() / "dexycb", num=NUM_DEXYCB, seed=5, progress=False)
    return _folder() / "dexycb"


def ho3d_tree(version: str = "v3") -> Path:
    """`version` is "v2", "v3" or "h2o3d"."""
    return _ho3d_tree(version)


@lru_cache(maxsize=3)
def _ho3d_tree(version: str) -> Path:
    write_ho3d(_folder() / f"ho3d_{version}", num=NUM_HO3D, seed=5, version=version, progress=False)
    return _folder() / f"ho3d_{version}"


def copy_of(tree: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(tree, tmp_path / tree.name))
