"""`utnet synth`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from utnet.cli.options import Changes, File, Name
from utnet.errors import InputError


def synth(
    layout: Literal["dexycb", "ho3d", "ho3d_v2", "h2o3d", "freihand", "tars"],
    num: int,
    out: Path,
    seed: int = 0,
    split: Name = None,
    config: File = None,
    set: Changes = (),
) -> None:
    """Writes labelled synthetic hands of plain appearance as a complete data set in an official layout.

    Args:
        layout: data set layout (ho3d: version 3; tars: the training tars of HaMeR and WiLoR).
        num: number of frames (freihand: of hands, four pictures each).
        out: a new folder.
        seed: random seed; the same seed gives identical files.
        split: use this split for all frames (default: all splits).
        config: a config, whose synth section sets distances and views of the hands.
        set: changed values, such as synth.max_tilt_deg=40.
    """
    from functools import partial

    from utnet.config import Config, override
    from utnet.synth.write_dexycb import write_dexycb
    from utnet.synth.write_freihand import write_freihand
    from utnet.synth.write_ho3d import write_ho3d
    from utnet.synth.write_tars import write_tars

    writers: dict[str, Callable[..., None]] = {
        "dexycb": write_dexycb,
        "ho3d": write_ho3d,
        "ho3d_v2": partial(write_ho3d, version="v2"),
        "h2o3d": partial(write_ho3d, version="h2o3d"),
        "freihand": write_freihand,
        "tars": write_tars,
    }
    if layout == "tars" and split is not None:
        raise InputError(f"--split {split}: tars have no splits; leave it out")
    drawn = override(Config.load(config) if config else Config(), set).synth
    if drawn.appearance != "plain":
        raise InputError(
            f"synth.appearance is {drawn.appearance!r}, but trees have plain appearance; add --set "
            "synth.appearance=plain, or pack full hands by utnet data shard synth"
        )
    options: dict = {"synth_config": drawn} if split is None else {"synth_config": drawn, "split": split}
    writers[layout](out, num=num, seed=seed, **options)
    what = "hands" if layout == "freihand" else "pictures"
    print(f"{out}: {num} {what} in the layout of {layout}{_splits_of(layout, out)}")


def _splits_of(layout: str, root: Path) -> str:
    """The number of samples of each official split, ", train 42 samples, evaluation 22 samples"."""
    from utnet.data import open_source
    from utnet.data.sources import counted

    name = "ho3d" if layout in ("ho3d", "ho3d_v2", "h2o3d") else layout
    splits = {"dexycb": ("train", "val", "test"), "ho3d": ("train", "evaluation"), "freihand": ("train", "evaluation")}
    parts = []
    for split in splits.get(name, ()):
        try:
            parts.append(f", {split} {counted(len(open_source(name, root, split=split)), 'sample')}")
        except InputError:  # a split without a hand
            continue
    return "".join(parts)
