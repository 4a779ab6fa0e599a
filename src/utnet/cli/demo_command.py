"""`utnet demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro


def demo(
    config: Annotated[Path, tyro.conf.Positional] = Path("demo"),
    out: Path = Path("runs/demo"),
    minutes: Annotated[float | None, tyro.conf.arg(metavar="MINUTES", help_behavior_hint="")] = None,
    frames: int = 400,
    from_nothing: Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help_behavior_hint="")] = False,
) -> None:
    """A hand trained, scored and drawn in minutes: fine-tunes the shipped network, where one ships; writes report.html.

    Args:
        config: a YAML file, or the name of a bundled config; one that says another network than the shipped one trains
            that from nothing.
        out: folder for everything it makes; an earlier demo there is replaced.
        minutes: training time (default: the config's).
        frames: frames of each held-out tree.
        from_nothing: train from nothing, whatever ships.
    """
    from utnet.apps.demo import demo as run
    from utnet.config import Config

    run(Config.load(config), out, minutes=minutes, frames=frames, from_nothing=from_nothing)
    print(f"open {out / 'report.html'}")
