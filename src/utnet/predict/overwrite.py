"""Files of an earlier call in the output folder: kept until the new predictions.json is in place, then removed."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from utnet.errors import BAD_TREE, InputError
from utnet.predict.files import PREDICTIONS, SCHEMA
from utnet.predict.formats import FORMATS

_OURS = re.compile(r".*(_overlay\.(jpg|png|mp4)|_\d+_(right|left)\.(glb|obj|ply)|_hands\.glb|\.npz)")
"""Names of output files of `utnet predict`; other files listed in a JSON are not removed."""

_Stamp = tuple[int, int]


def previous_files(folder: Path, *, allowed: bool) -> dict[Path, _Stamp]:
    """Returns the files of an earlier call in a folder, as listed in its predictions.json, and that file itself, each
    with an identity that changes when the file is rewritten.

    Raises:
        InputError: there is such a file and overwriting is not `allowed`, or it was not written by `utnet predict`.
    """
    path = folder / PREDICTIONS
    if not path.exists():
        return {}
    if not allowed:
        raise InputError(f"{path}: exists already; give another folder with --out, or use --overwrite")
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        names = [name for name in _named_files(tree) if _OURS.fullmatch(name)]
        names += [kind.file for name, kind in FORMATS.items() if name in tree.get("also", ())]
        ours = [folder / name for name in names]
    except BAD_TREE as error:
        raise InputError(f"{path}: not written by utnet predict, so it is not replaced; give another --out") from error
    inside = folder.resolve()  # nothing outside is removed, whatever the JSON lists
    files = [file for file in ours if os.path.isfile(file) and file.resolve().is_relative_to(inside)]
    return {file: _stamp(file) for file in [path, *files]}


def remove_stale(earlier: dict[Path, _Stamp]) -> None:
    """Removes those of `previous_files` that were not rewritten; none if their predictions.json was not."""
    stale = [file for file, stamp in earlier.items() if file.exists() and _stamp(file) == stamp]
    if any(file.name == PREDICTIONS for file in stale):
        return
    for file in stale:
        file.unlink(missing_ok=True)
        if file.parent.name.endswith("_meshes"):
            with suppress(OSError):  # not empty
                file.parent.rmdir()


def _stamp(file: Path) -> _Stamp:
    """Identity of a file, which changes when it is rewritten."""
    stat = file.lstat()
    return stat.st_ino, stat.st_mtime_ns


def _named_files(tree: dict) -> Iterator[str]:
    if tree["schema"] != SCHEMA:
        raise ValueError(tree["schema"])
    for record in [*tree["images"], *tree["videos"]]:
        yield from (record[kind] for kind in ("overlay", "arrays", "mesh") if record.get(kind))
        for frame in record.get("frames", [record]):
            yield from (hand["mesh"] for hand in frame["hands"] if hand["mesh"])
