"""Options of commands that may be left out, as help shows them: `--out FOLDER`, without tyro's `{None}|PATH` and
`(default: None)`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

File = Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")]
Folder = Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="")]
Root = Annotated[str, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="")]
"""A data set's folder, or for tars a URL: "" where it is left out."""
Number = Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="")]
Name = Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")]
Changes = Annotated[tuple[str, ...], tyro.conf.arg(metavar="KEY=VALUE [KEY=VALUE ...]", help_behavior_hint="")]
"""Knobs that differ from a config: `--set train.lr=1e-4 model.size_px=96`."""


_VALUES = {
    "--box": re.compile(r"[-+.\d][-+.\deE]*(,[-+.\deE]+)*"),
    "--side": re.compile(r"right|left"),
    "--set": re.compile(r"[^-=][^=]*=.*", re.DOTALL),
}
"""Options that take several values, and what their values look like: any other word does not belong to them."""


def gathered(words: Sequence[str]) -> list[str]:
    """The words of a command line with the values of each option of `_VALUES` at its end, however they were given:
    `--box A --box B c.jpg` and `--box A B c.jpg` are the same, and the file is no box."""
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
            given.append(words[position])  # the first one is a value whatever it looks like
            position += 1
        while position < len(words) and _VALUES[name].fullmatch(words[position]):
            given.append(words[position])
            position += 1
    for name, given in values.items():
        rest += [name, *given] if name == "--set" or not given else [f"{name}={value}" for value in given]
    return rest
