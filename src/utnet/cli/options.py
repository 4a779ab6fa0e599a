"""Types of optional arguments whose help is `--out FOLDER`, without tyro's `{None}|PATH` and `(default: None)`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

File = Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")]
Folder = Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="")]
Root = Annotated[str, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="")]
"""A data set's folder, or for tars a URL; "" if not given."""
Number = Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="")]
Name = Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")]
Changes = Annotated[tuple[str, ...], tyro.conf.arg(metavar="KEY=VALUE [KEY=VALUE ...]", help_behavior_hint="")]
"""Changed config values: `--set train.lr=1e-4 model.size_px=96`."""


_VALUES = {
    "--box": re.compile(r"[-+.\d][-+.\deE]*(,[-+.\deE]+)*"),
    "--side": re.compile(r"right|left"),
    "--set": re.compile(r"[^-=][^=]*=.*", re.DOTALL),
}
"""Options with several values, and patterns of their values; other words are not consumed."""


def gathered(words: Sequence[str]) -> list[str]:
    """Moves the values of each option of `_VALUES` to the end of a command line, so that `--box A --box B c.jpg` and
    `--box A B c.jpg` are the same, and the file is not a box."""
    rest: list[str] = []
    values: dict[str, list[str]] = {}
    position = 0
    while position < len(words):
        name, equals, value = words[position].partition("=")
        position += 1
        if name not in _VALUES:
            rest.append(words[position - 1])
            continue
        given = values.setdefault(name, [])
        if equals:
            given.append(value)
            continue
        if position < len(words) and not words[position].startswith("--"):
            given.append(words[position])  # the first one is always a value
            position += 1
        while position < len(words) and _VALUES[name].fullmatch(words[position]):
            given.append(words[position])
            position += 1
    for name, given in values.items():
        rest += [name, *given] if name == "--set" or not given else [f"{name}={value}" for value in given]
    return rest
