"""Resolves the user's choice of a reconstruction method."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from utnet.weights import shipped_weights

ResolvedMethod = Literal["both", "network", "fit"]
Method = Literal["auto", "both", "network", "fit"]
METHODS: tuple[Method, ...] = get_args(Method)


def resolve_method(method: Method, weights: str | Path | None, mano: str | Path | None) -> ResolvedMethod:
    """Resolves "auto". If weights are given, only the network is used, so its raw output is shown; with `mano`, or
    without bundled weights, the landmark fit; otherwise the bundled network fitted to landmarks."""
    if method != "auto":
        return method
    if weights is not None:
        return "network"
    return "fit" if mano is not None or shipped_weights() is None else "both"
