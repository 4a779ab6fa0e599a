"""Sequences of pictures (a video, a person), each of which is completely in one split."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from utnet.data.source import hold_out
from utnet.errors import InputError
from utnet.predict.inputs import Input

SequenceOf = Callable[[Path], str]
"""Returns the sequence of a picture."""


def name_sequences(inputs: Sequence[Input], sequence_of: SequenceOf | None = None) -> list[str]:
    """The sequence of each input: `sequence_of` of a picture's path, by default its folder; each video is a
    sequence. Their names are paths relative to the common parent, which are unique and contain no path of this machine.

    Raises:
        InputError: a camera, or raised by `sequence_of`.
    """
    places: list[Path | str] = []
    for item in inputs:
        if not isinstance(item.source, Path):
            raise InputError(f"{item.label}: a camera cannot be labelled; save a video first")
        file = item.source.resolve()
        if item.kind == "video":
            places.append(file)
        else:
            places.append(file.parent if sequence_of is None else sequence_of(item.source))
    paths = [place for place in places if isinstance(place, Path)]
    root = os.path.commonpath([path.parent for path in paths]) if paths else ""
    return [place if isinstance(place, str) else place.relative_to(root).as_posix() for place in places]


def by_pattern(pattern: str) -> SequenceOf:
    """Groups pictures by the groups of a regular expression, searched in the path; without groups, by its match.

    Raises:
        InputError: not a regular expression; the returned function: a path without a match.
    """
    try:
        regex = re.compile(pattern)
    except re.error as error:
        raise InputError(f"--sequence-by {pattern!r}: not a regular expression ({error})") from error

    def sequence(path: Path) -> str:
        match = regex.search(path.as_posix())
        if match is None:
            raise InputError(f"{path}: --sequence-by {pattern!r} does not match; every picture needs a sequence")
        return "_".join(group or "" for group in match.groups()) if match.groups() else match.group()

    return sequence


def splits(sequences: Sequence[str], val_share: float) -> list[str]:
    """Returns "train" or "val" for each hand: complete sequences are held out until they contain `val_share` of the
    hands.

    Raises:
        InputError: a fraction above 0, but only one sequence.
    """
    sizes = Counter(sequences)
    if val_share > 0 and len(sizes) < 2:
        raise InputError(
            f"all hands are of one sequence, {next(iter(sizes))!r}, so none can be held out; distinguish people by "
            "--sequence-by, or use --val-share 0"
        )
    held_out = hold_out(dict(sizes), val_share) if val_share > 0 else set()
    return ["val" if sequence in held_out else "train" for sequence in sequences]
