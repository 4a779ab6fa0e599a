"""Raw files -> Sample, the transforms of samples, and the loader that makes batches of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from utnet.errors import InputError

if TYPE_CHECKING:
    from utnet.data.source import Source

SOURCES = ("dexycb", "ho3d")


def open_source(
    name: str,
    root: str | Path,
    *,
    split: str = "train",
    setup: str = "s0",
    limit: int | None = None,
    hand_model: str = "auto",
    mano: str | Path | None = None,
    with_depth: bool = True,
) -> Source:
    """Opens a dataset on disk.

    Args:
        name: "dexycb" or "ho3d".
        root: its folder.
        split: DexYCB train, val or test; HO3D train or evaluation.
        setup: DexYCB's s0, s1, s2 or s3.
        limit: at most this many samples, evenly spaced over the split.
        hand_model: "open", "mano", or "auto": as the tree's metadata says (MANO where they say nothing).
        mano: folder of the user's MANO_RIGHT.pkl and MANO_LEFT.pkl; only DexYCB's pose coefficients need them.
        with_depth: False leaves the depth files unread.

    Returns:
        A map-style source (`utnet.data.source.Source`).

    Raises:
        InputError: no such dataset, folder, split or file, or a split without a hand.
    """
    options: dict = {"split": split, "limit": limit, "hand_model": hand_model, "with_depth": with_depth}
    if name not in SOURCES:
        raise InputError(f"no dataset is called {name!r}; expected one of {', '.join(SOURCES)}")
    if not str(root):
        raise InputError(f"data.root is empty; give the folder of {name}")
    if name == "dexycb":
        from utnet.data.dexycb import DexYcb

        return DexYcb(root, setup=setup, mano=mano, **options)
    from utnet.data.ho3d import Ho3d

    return Ho3d(root, **options)
