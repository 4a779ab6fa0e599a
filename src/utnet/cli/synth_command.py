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
    """Writes labelled synthetic hands, drawn plain, as a complete tree in an official layout.

    Args:
        layout: whose layout (ho3d: version 3; tars: the training tars of HaMeR and WiLoR).
        num: frames in all (freihand: hands, four pictures each).
        out: a new folder.
        seed: the same seed gives the same bytes.
        split: put all frames into this split (default: spread over all).
        config: a run, whose synth section says how far away and from where the hands are seen.
        set: changed knobs, such as synth.max_tilt_deg=40.
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
            f"synth.appearance is {drawn.appearance!r}: trees are drawn plain; add --set synth.appearance=plain, or "
            "pack full hands by utnet data shard synth"
        )
    options: dict = {"synth_config": drawn} if split is None else {"synth_config": drawn, "split": split}
    writers[layout](out, num=num, seed=seed, **options)
    what = "hands" if layout == "freihand" else "pictures"
    print(f"{out}: {num} {what} in the layout of {layout}{_splits_of(layout, out)}")


def _splits_of(layout: str, root: Path) -> str:
    """The samples of each official split that has some, ", train 42 samples, evaluation 22 samples"."""
    from utnet.data import open_source
    from utnet.data.sources import counted

    name = "ho3d" if layout in ("ho3d", "ho3d_v2", "h2o3d") else layout
    splits = {"dexycb": ("train", "val", "test"), "ho3d": ("train", "evaluation"), "freihand": ("train", "evaluation")}
    said = []
    for split in splits.get(name, ()):
        try:
            said.append(f", {split} {counted(len(open_source(name, root, split=split)), 'sample')}")
        except InputError:  # a split without a hand
            continue
    return "".join(said)
