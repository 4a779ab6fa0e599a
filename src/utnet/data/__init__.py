"""Readers (raw files -> Sample), transforms of samples, and the loader of batches."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from utnet.errors import InputError

_READERS = {
    "dexycb": ("utnet.data.dexycb.dexycb_reader", "DexYcb"),
    "ho3d": ("utnet.data.ho3d.ho3d_reader", "Ho3d"),
    "freihand": ("utnet.data.freihand", "FreiHand"),
    "custom": ("utnet.data.custom.custom_reader", "Custom"),
    "shards": ("utnet.data.shards.shards_reader", "Shards"),
    "tars": ("utnet.data.tars.tars_reader", "Tars"),
}
"""Imported on use, so that a reader imports its own libraries only."""

SOURCES = tuple(_READERS)


def open_source(name: str, root: str | Path, **options: Any) -> Any:
    """Opens a data set.

    Args:
        name: one of `SOURCES`. `tars` is a stream (`utnet.data.source.StreamSource`), the others are map-style
            (`utnet.data.source.Source`).
        root: its folder; for tars also a URL, a glob or a `pipe:` command.
        **options: those of the reader's class (`DexYcb`, `Ho3d`, `FreiHand`, `Custom`, `Shards`, `Tars`), such as
            `split`, `limit`, `sides`, `hand_model` and `with_depth`. None means the reader's default.

    Returns:
        The source. Its samples hold metres, an OpenCV camera, OpenPose-21 and separate 2D and 3D confidences.

    Raises:
        InputError: no such data set, folder, split, file or option, or a split without a hand.
    """
    if name not in SOURCES:
        raise InputError(unknown_source(name, SOURCES))
    if not str(root):
        raise InputError(f"no folder is given for {name}; name the one that holds it (root)")
    module, reader_name = _READERS[name]
    reader = getattr(importlib.import_module(module), reader_name)
    known = reader_options(name)
    for option in options:
        if option not in known:
            raise InputError(f"{name} has no option {option!r}; it has {', '.join(known)}")
    return reader(root, **{key: value for key, value in options.items() if value is not None})


def unknown_source(name: str, known: Sequence[str]) -> str:
    """Message for a data set without a reader."""
    if name in ("h2o3d", "ho3d_v2", "ho3d_v3"):
        return f"no dataset is called {name!r}: HO3D v2, HO3D v3 and H2O3D are all read as ho3d, which sees what it is"
    return f"no dataset is called {name!r}; expected one of {', '.join(known)}"


def reader_options(name: str) -> tuple[str, ...]:
    """The options of a reader."""
    module, reader_name = _READERS[name]
    reader = getattr(importlib.import_module(module), reader_name)
    kinds = inspect.signature(reader).parameters.values()
    return tuple(p.name for p in kinds if p.kind is inspect.Parameter.KEYWORD_ONLY)
