"""Which way from a picture to a mesh: the one place that decides."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

Way = Literal["both", "network", "fit"]
Method = Literal["auto", "both", "network", "fit"]
METHODS: tuple[Method, ...] = get_args(Method)


def choose(method: Method, weights: str | Path | None, mano: str | Path | None) -> Way:
    """What `auto` stands for: weights that are named are asked alone, so that one sees what they say; those that ship
    together with the landmarks; and the landmarks alone where none ship, or where MANO is to be fitted."""
    from utnet.checkpoint import shipped_weights  # takes torch with it, which the command line need not wait for

    if method != "auto":
        return method
    if weights is not None:
        return "network"
    return "fit" if mano is not None or shipped_weights() is None else "both"
