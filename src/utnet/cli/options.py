"""Types of options with a short help (`--out FOLDER`, not tyro's `{None}|PATH`), and their checks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from utnet.errors import InputError


def optional(metavar: str) -> Any:
    """Returns the annotation of an optional argument with a name for its value."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint="")


Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help_behavior_hint="")]
"""A switch."""
File = Annotated[Path | None, optional("FILE")]
Folder = Annotated[Path | None, optional("FOLDER")]
Root = Annotated[str, optional("FOLDER")]
"""A data set's folder, or for tars a URL; "" if not given."""
Number = Annotated[int | None, optional("N")]
Name = Annotated[str | None, optional("NAME")]
Changes = Annotated[tuple[str, ...], optional("KEY=VALUE [KEY=VALUE ...]")]
"""Changed config values: `--set train.lr=1e-4 model.size_px=96`."""


_VALUES = {
    "--box": re.compile(r"[-+.\d][-+.\deE]*(,[-+.\deE]+)*"),
    "--side": re.compile(r"right|left"),
    "--set": re.compile(r"[^-=][^=]*=.*", re.DOTALL),
}
"""Options with several values, and patterns of these; other words are not consumed."""


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


def counted(number: int, what: str) -> str:
    """For example "1 frame" or "1,200 frames"."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def check_writable(path: Path | None) -> None:
    """InputError if a file cannot be written there."""
    if path and (path.is_dir() or not path.parent.is_dir()):
        raise InputError(f"{path}: cannot be written; give a file in a folder that exists")
