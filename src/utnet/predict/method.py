"""Which way from a picture to a mesh: the one place that decides."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

Way = Literal["both", "network", "fit"]
Method = Literal["auto", "both", "network", "fit"]
METHODS: tuple[Method, ...] = ("auto", "both", "network", "fit")


def choose(method: Method, weights: str | Path | None, mano: str | Path | None) -> Way:
    """What `auto` stands for: weights of the user's are asked alone, those that ship together with the landmarks. The
    landmarks alone are asked where nothing ships, or where MANO is to be fitted."""
    from utnet.checkpoint import shipped_weights  # takes torch with it, which the command line need not wait for

    if method != "auto":
        return method
    if weights is not None:
        return "network"
    return "fit" if mano is not None or shipped_weights() is None else "both"
