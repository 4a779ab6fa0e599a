"""Resolves INPUT and --depth: files, folders, globs, cameras; and the names of their outputs."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from utnet.errors import InputError
from utnet.io.depth import DEPTH_SUFFIXES
from utnet.io.kinds import VIDEO_SUFFIXES, is_video, picture_format
from utnet.io.pictures import PICTURE_SUFFIXES, is_animation, is_depth_image
from utnet.io.recordings.opening import RECORDING_SUFFIXES, is_recording

_NUMBER = re.compile(r"(\d+)\D*$")
_TIME = re.compile(r"\d{9,}[._]\d+$")
"""A Unix time in seconds, as in the file names of ROS and TUM's tools."""
_DEPTH_NAME = re.compile(r"(^|[^a-z])depth", re.IGNORECASE)
_SHOWN = 5
_LONGEST_NAME = 150
"""Bytes. Most systems allow 255, and output files add suffixes to a picture's name."""


@dataclass(frozen=True)
class Input:
    """One picture, video, camera or recording.

    Attributes:
        kind: "picture", "video", "camera" or "recording" (RGB-D, a file or a folder).
        source: the file or folder, or the camera's number.
        name: prefix of its output files, unique among the inputs.
    """

    kind: str
    source: Path | int
    name: str

    @property
    def label(self) -> str:
        """The file as named by the user, or "camera 0"."""
        return f"camera {self.source}" if isinstance(self.source, int) else str(self.source)


def find_inputs(words: Sequence[str], *, sequence: bool = False) -> list[Input]:
    """The pictures, videos and cameras of the words of a command line, without duplicates, in their order.

    A word is a file, a folder (its pictures and videos, sorted by name, without subfolders), a glob (`**` recurses) or,
    if there is no such file, the number of a camera. Files of folders and globs are included if they are pictures or
    videos by their first bytes, else by their suffixes; depth images are not (`passed_over` lists the others). The
    folder of an RGB-D recording is one input; with `sequence` every folder is.

    Raises:
        InputError: no word, or one without inputs.
    """
    if not words:
        raise InputError("no inputs; give pictures, folders, globs, videos or the number of a camera")
    found: dict[Path | int, Path | int] = {}
    for word in words:
        for source in _expand(word, sequence=sequence):
            found.setdefault(source.resolve() if isinstance(source, Path) else source, source)
    sources = list(found.values())
    return [Input(_kind(source), source, name) for source, name in zip(sources, _names(sources), strict=True)]


def passed_over(words: Sequence[str], *, with_depth: bool = False) -> list[str]:
    """Files of folders and globs that `find_inputs` skips: lines with their number and names.

    Args:
        words: as for `find_inputs`.
        with_depth: `--depth` is given, so depth images are not listed.
    """
    lines = []
    for word in words:
        path = Path(word)
        if path.is_dir() and is_recording(path):
            continue
        if path.is_dir():
            files = sorted(path.iterdir())
        elif glob.has_magic(word) and not path.exists():
            files = [Path(file) for file in sorted(glob.glob(word, recursive=True))]
        else:
            continue
        left = [file for file in files if file.is_file() and not file.name.startswith(".") and not _known(file)]
        for what, why, group in (
            ("depth image", "not read (use --depth)", [file for file in left if _is_depth(file) and not with_depth]),
            ("other file", "neither pictures nor videos", [file for file in left if not _is_depth(file)]),
        ):
            if group:
                more = ", ..." if len(group) > _SHOWN else ""
                num = f"{len(group)} {what}{'' if len(group) == 1 else 's'}"
                lines.append(f"{word}: {num}, {why}: {', '.join(file.name for file in group[:_SHOWN])}{more}")
    return lines


def check_out(out: Path, inputs: Sequence[Input]) -> None:
    """Raises InputError if the output folder contains an input, which could be overwritten."""
    folder = out.resolve()
    for item in inputs:
        if isinstance(item.source, Path) and folder in (item.source.parent.resolve(), item.source.resolve().parent):
            raise InputError(f"--out {out}: contains the input {item.source}; give a folder without inputs")


class DepthFiles:
    """Finds the depth image of a picture.

    Args:
        word: one file, a folder or a glob.
        num_pictures: number of pictures; a file is for one picture.

    Raises:
        InputError: no such files, or one file for several pictures.
    """

    def __init__(self, word: str, num_pictures: int):
        self._word, self._only = word, None
        path = Path(word)
        if path.is_dir():
            files = sorted(file for file in path.iterdir() if file.suffix.lower() in DEPTH_SUFFIXES)
        elif glob.has_magic(word) and not path.exists():
            files = sorted(Path(file) for file in glob.glob(word, recursive=True))
        elif num_pictures > 1:
            raise InputError(f"--depth {word}: one depth image for {num_pictures} pictures; give a folder or a glob")
        else:
            files, self._only = [path], path
        if not files:
            raise InputError(f"--depth {word}: contains no depth image (16-bit PNG, TIFF or .npy)")
        self._by_stem, self._by_number = _grouped(files, _stem), _grouped(files, _number)

    def of(self, picture: Path) -> Path:
        """The depth image of the same name, else of the same number, as in color_000012.jpg and
        aligned_depth_to_color_000012.png. For pictures named by time, the one of the same time.

        Raises:
            InputError: there is none, or more than one.
        """
        if self._only is not None:
            return self._only
        number, itself = _number(picture), picture.resolve()
        groups = (self._by_stem.get(_stem(picture), []), self._by_number.get(number, []) if number else [])
        named, numbered = ([file for file in group if file.resolve() != itself] for group in groups)
        files = named or numbered
        if len(files) != 1:
            what = (
                f"{files[0].name} and {files[1].name} both match" if files else "no depth image of its name or number"
            )
            if not files and _TIME.search(picture.stem):
                what = f"no depth image of its time{self._nearest(picture)}"
            raise InputError(f"{picture}: {what} in {self._word}; name depth images as their pictures, or leave it out")
        return files[0]

    def _nearest(self, picture: Path) -> str:
        """The depth image nearest in time, and the difference."""
        time = _seconds(picture)
        timed = [(abs(_seconds(file) - time), file) for group in self._by_stem.values() for file in group]
        timed = [(apart, file) for apart, file in timed if apart == apart]
        if not timed:
            return ""
        apart, file = min(timed)
        return f" (next to it {file.name}, {apart:.3f} s apart; pictures are not paired by nearest time)"


def _expand(word: str, *, sequence: bool = False) -> Iterable[Path | int]:
    path = Path(word)
    if path.is_dir() and (sequence or is_recording(path)):
        return [path]
    if path.is_dir():
        inside = [file for file in sorted(path.iterdir()) if _known(file)]
        if not inside:
            deeper = (
                f'; for those in its folders write "{path}/**/*"' if any(f.is_dir() for f in path.iterdir()) else ""
            )
            raise InputError(f"{word}: the folder has no picture or video ({' '.join(PICTURE_SUFFIXES)} ...){deeper}")
        return inside
    if path.is_file():
        return [path]
    if path.exists():
        raise InputError(f"{word}: not a file (a camera is given by its number); save it as a file first")
    if word.isdecimal():
        return [int(word)]
    if glob.has_magic(word):
        inside = [file for file in map(Path, sorted(glob.glob(word, recursive=True))) if _known(file)]
        if not inside:
            raise InputError(f"{word}: no picture or video matches")
        return inside
    slashes = "; write / instead of backslashes" if os.sep == "/" and "\\" in word else ""
    raise InputError(f"{word}: no such file{slashes}")


def _known(file: Path) -> bool:
    if file.name.startswith(".") or not file.is_file() or _is_depth(file):
        return False
    named = file.suffix.lower() in PICTURE_SUFFIXES + VIDEO_SUFFIXES + RECORDING_SUFFIXES
    return named or (picture_format(file) or is_video(file)) not in (None, False)


def _is_depth(file: Path) -> bool:
    """Whether a file is named as a depth image and has one channel of 16 bits."""
    return bool(_DEPTH_NAME.search(file.stem)) and file.suffix.lower() in DEPTH_SUFFIXES and is_depth_image(file)


def _kind(source: Path | int) -> str:
    if isinstance(source, int):
        return "camera"
    if source.is_dir() or is_recording(source):
        return "recording"
    if kind := picture_format(source):
        return "video" if kind == "GIF" and is_animation(source) else "picture"
    return "video" if is_video(source) or source.suffix.lower() in VIDEO_SUFFIXES else "picture"


def _names(sources: Sequence[Path | int]) -> list[str]:
    """The file's stem if it is unique (ignoring case), else prefixed by the folder's name and, if needed, with a number
    appended. Long names are truncated."""
    plain = [f"camera_{source}" if isinstance(source, int) else _cut(source.stem) for source in sources]
    count = Counter(name.casefold() for name in plain)
    taken = {name for name in count if count[name] == 1}
    names = []
    for source, name in zip(sources, plain, strict=True):
        if count[name.casefold()] > 1:
            folder = source.resolve().parent.name if isinstance(source, Path) else ""
            first = name = _cut(f"{folder}_{name}") if folder else name
            number = 1
            while name.casefold() in taken:
                number += 1
                name = f"{first}_{number}"
            taken.add(name.casefold())
        names.append(name)
    return names


def _cut(name: str) -> str:
    encoded = os.fsencode(name)
    return name if len(encoded) <= _LONGEST_NAME else encoded[:_LONGEST_NAME].decode(errors="ignore")


def _stem(file: Path) -> str:
    return file.stem


def _number(file: Path) -> str:
    """The last number in a file's name, "" without one."""
    if timed := _TIME.search(file.stem):  # digits after the point repeat each second
        return timed.group(0)
    match = _NUMBER.search(file.stem)
    return match.group(1).lstrip("0") or "0" if match else ""


def _seconds(file: Path) -> float:
    """The time in a file's name, NaN without one."""
    timed = _TIME.search(file.stem)
    return float(timed.group(0).replace("_", ".")) if timed else float("nan")


def _grouped(files: Sequence[Path], key) -> dict[str, list[Path]]:
    groups: dict[str, list[Path]] = {}
    for file in files:
        groups.setdefault(key(file), []).append(file)
    return groups
