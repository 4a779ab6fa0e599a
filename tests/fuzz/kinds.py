"""Kinds of inputs: how one is made from drawn files, and what reads it. Nothing is taken from elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fuzz import bombs, data_sets, media, networks, recordings


@dataclass(frozen=True)
class Kind:
    """A kind of input.

    Attributes:
        make: (generator, empty folder) -> what `read` takes; its files lie in the folder.
        read: reads it as the package does; raises InputError where it refuses.
        once: the input is the same each time (a bomb).
    """

    make: Callable[[np.random.Generator, Any], Any]
    read: Callable[[Any], Any]
    once: bool = False


def _kinds() -> dict[str, Kind]:
    kinds = {}
    for module in (media, data_sets, recordings, networks, bombs):
        for name, (make, read) in module.KINDS.items():
            kinds[name] = Kind(make, read, module is bombs)
    return kinds


KINDS = _kinds()
