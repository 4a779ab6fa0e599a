"""The choice of a reconstruction method from what a user passes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from utnet.weights import shipped_weights

ResolvedMethod = Literal["both", "network", "fit"]
Method = Literal["auto", "both", "network", "fit"]
METHODS: tuple[Method, ...] = get_args(Method)


def resolve_method(method: Method, weights: str | Path | None, mano: str | Path | None) -> ResolvedMethod:
    """Returns the method that is used. "auto" is the network alone where weights are named, so that its raw output is
    shown; the landmark fit where `mano` is given or no weights ship; else the bundled network fitted to landmarks."""
    if method != "auto":
        return method
    if weights is not None:
        return "network"
    return "fit" if mano is not None or shipped_weights() is None else "both"
