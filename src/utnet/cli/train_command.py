"""`utnet train`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import tyro

from utnet.cli.options import Changes, Folder, optional
from utnet.errors import InputError


def train(
    config: Annotated[Path | None, optional("[CONFIG]"), tyro.conf.Positional] = None,
    out: Folder = None,
    from_: Annotated[str, tyro.conf.arg(name="from", metavar="NETWORK", help_behavior_hint="")] = "",
    set: Changes = (),
    resume: Annotated[Path | None, optional("RUN")] = None,
) -> None:
    """Trains a network by a config; several processes: torchrun --nproc-per-node=N -m utnet train ...

    Args:
        config: a YAML file, or the name of a bundled config such as dexycb_s0_rgbd (default: config).
        out: a new folder (default: runs/ and the config's name).
        from_: the initial network: a bundled one such as ti, or a checkpoint folder. Settings that the config leaves
            open are the network's (as with train.init_from in a config or --set).
        set: changed values, such as train.lr=1e-4.
        resume: folder of a run to resume, with its own config.
    """
    from utnet.config import Config, override
    from utnet.signals import TrainingInterrupted
    from utnet.training.loop import train as run
    from utnet.training.starting_config import load_config

    if resume and (config or out or from_):
        given = config or ("--out" if out else "--from")
        raise InputError(f"--resume {resume} uses the config and folder of that run; leave out {given}")
    config = config or (resume / "config.yaml" if resume else Path("config"))
    folder = resume or out or Path("runs") / config.stem
    if resume and not config.is_file():
        raise InputError(f"{config}: no such file; give --resume the folder of a run")
    lines: list[str] = []
    if resume:
        settings = override(Config.load(config), set)
    else:
        settings, lines = load_config(config, set, init_from=from_)
    is_main = os.environ.get("RANK", "0") == "0"
    for line in lines if is_main else ():
        print(line)
    try:
        result = run(settings, folder, resume=resume is not None)
    except TrainingInterrupted as stop:
        print(f"utnet: {stop}", file=sys.stderr)
        sys.exit(stop.exit_code)
    if is_main:
        print(f"{folder / 'best'} of {result['step']} steps, on validation:")
        _print_scores(result["best"])
        if "before_after" in result:
            _print_before_after(result["before_after"])


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


def _print_before_after(rows: list[dict]) -> None:
    """MPJPE and PA-MPJPE of the network that training started from, and of best/."""
    print(f"{'before -> after':40s}{'MPJPE [mm]':>18s}{'PA-MPJPE [mm]':>18s}")
    for row in rows:
        for key, name in (("rgb", "RGB"), ("rgbd", "RGB-D")):
            if key in row["after"]:
                before, after = row["before"].get(key), row["after"][key]
                cells = [
                    (f"{before[metric]:.1f} -> " if before else "") + f"{after[metric]:.1f}"
                    for metric in ("mpjpe_mm", "pa_mpjpe_mm")
                ]
                print(f"{row['data'] + ', ' + name:40s}{cells[0]:>18s}{cells[1]:>18s}")
