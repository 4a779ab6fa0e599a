"""`utnet demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from utnet.cli.options import Flag, optional


def demo(
    config: Annotated[Path, tyro.conf.Positional] = Path("demo"),
    out: Path = Path("runs/demo"),
    minutes: Annotated[float | None, optional("MINUTES")] = None,
    frames: int = 400,
    from_nothing: Flag = False,
) -> None:
    """Fine-tunes the bundled network in minutes, evaluates it before and after, and writes report.html.

    Args:
        config: a YAML file, or the name of a bundled config; a network that differs from the bundled one is trained
            from scratch.
        out: output folder; an earlier demo in it is replaced.
        minutes: training time (default: the config's).
        frames: frames of each held-out tree.
        from_nothing: train from scratch.
    """
    from utnet.apps.demo import demo as run
    from utnet.training.starting_config import load_config

    settings, lines = load_config(config)
    for line in lines:
        print(line)
    run(settings, out, minutes=minutes, frames=frames, from_nothing=from_nothing)
    print(f"open {out / 'report.html'}")
