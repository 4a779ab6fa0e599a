"""`utnet train`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import tyro

from utnet.cli.options import Changes, Folder
from utnet.errors import InputError


def train(
    config: Annotated[
        Path | None, tyro.conf.arg(metavar="[CONFIG]", help_behavior_hint=""), tyro.conf.Positional
    ] = None,
    out: Folder = None,
    set: Changes = (),
    resume: Annotated[Path | None, tyro.conf.arg(metavar="RUN", help_behavior_hint="")] = None,
) -> None:
    """Trains a network by a config; several processes: torchrun --nproc-per-node=N -m utnet train ...

    Args:
        config: a YAML file, or the name of a bundled config such as dexycb_s0_rgbd (default: config).
        out: a new folder (default: runs/ and the config's name).
        set: changed values, such as train.lr=1e-4.
        resume: folder of a run to resume, with its own config.
    """
    from utnet.config import Config, override
    from utnet.signals import TrainingInterrupted
    from utnet.training.loop import train as run

    if resume and (config or out):
        raise InputError(f"--resume {resume} uses the config and folder of that run; leave out {config or '--out'}")
    config = config or (resume / "config.yaml" if resume else Path("config"))
    folder = resume or out or Path("runs") / config.stem
    if resume and not config.is_file():
        raise InputError(f"{config}: no such file; give --resume the folder of a run")
    try:
        result = run(override(Config.load(config), set), folder, resume=resume is not None)
    except TrainingInterrupted as stop:
        print(f"utnet: {stop}", file=sys.stderr)
        sys.exit(stop.exit_code)
    if os.environ.get("RANK", "0") == "0":
        print(f"{folder / 'best'} of {result['step']} steps, on validation:")
        _print_scores(result["best"])


def _print_scores(scores: dict) -> None:
    from utnet.data.sources import counted

    num, expected = scores["num"], scores["num_expected"]
    if num < expected:
        print(f"evaluated on the {num} of {expected} hands whose joints are all labelled in 3D")
    print(f"{counted(num, 'hand'):22s}  MPJPE [mm]  PA-MPJPE [mm]    AUC")
    for key, name in (("constant", "best constant hand"), ("rgb", "RGB"), ("rgbd", "RGB-D")):
        if key in scores:
            row = scores[key]
            name += "" if row.get("num", num) == num else f" ({row['num']} with depth)"
            print(f"{name:22s}{row['mpjpe_mm']:12.1f}{row['pa_mpjpe_mm']:15.1f}{row['auc']:7.3f}")
