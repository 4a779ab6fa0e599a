"""`pred.json` of HO3D and FreiHAND: [list of (21, 3) joints, list of (778, 3) vertices] in metres, zipped.

Follows `pred.py` and `eval.py` of both. HO3D: MANO's joint order with HO3D's fingertips, OpenGL axes; its `pred.py`
rejects samples with all z above 0. FreiHAND: OpenPose-21, OpenCV axes. Files are written and read hand by hand, since
v3 has 48 million numbers.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TextIO

import numpy as np

from utnet.conventions import NUM_JOINTS, OPENPOSE_TO_MANO21
from utnet.errors import InputError
from utnet.evaluation.submission.hands import Convert, HandCheck
from utnet.io.atomic import atomic_file
from utnet.io.layouts import OPENGL_TO_OPENCV
from utnet.types import Array

HO3D_NUM = {"v2": 11524, "v3": 20137}
"""Number of samples of HO3D's evaluation split, asserted by its scripts."""

FREIHAND_NUM = 3960

NUM_VERTICES = 778
DECIMALS = 7  # 0.1 um, the resolution of float32 at half a metre

_MEMBER = "pred.json"
_CHUNK = 2**20  # characters read at a time
_MAX_HAND = 2**22  # characters; 778 vertices with 17 digits are 50 thousand
_OPENGL, _OPENCV = -1, 1  # sign of z in front of the camera
_REMEDY = "write the file again"


@dataclass(frozen=True)
class Submission:
    """Contents of a `pred.json`, in the benchmark's order and axes, metres, float64.

    Attributes:
        joints_m: (N, 21, 3).
        vertices_m: (N, 778, 3).
        has_mesh: False if all vertices are zeros (joints only).
    """

    joints_m: np.ndarray
    vertices_m: np.ndarray
    has_mesh: bool


def write_ho3d_submission(
    path: str | Path,
    joints_cam_m: Iterable[Array],
    vertices_cam_m: Iterable[Array] | None,
    *,
    num: int | None = None,
) -> None:
    """Writes the zip for HO3D's server, atomically.

    Args:
        path: the zip; its folder must exist.
        joints_cam_m: (N, 21, 3) OpenPose-21 with HO3D's fingertips, OpenCV camera, metres, in the order of
            `evaluation.txt`: an array, a tensor, or an iterable of hands.
        vertices_cam_m: (N, 778, 3) of MANO likewise, or None to submit only joints (vertices are zeros and mesh scores
            meaningless).
        num: expected N (`HO3D_NUM[version]`), or None for any.

    Raises:
        InputError: a wrong number or shape, NaN, hands behind the camera, or values that are not metres.
    """

    def turn(points: np.ndarray) -> np.ndarray:
        return points @ OPENGL_TO_OPENCV

    def order(joints: np.ndarray) -> np.ndarray:
        return turn(joints[list(OPENPOSE_TO_MANO21)])

    _write(Path(path), joints_cam_m, vertices_cam_m, to_joints=order, to_vertices=turn, num=num, away=_OPENGL)


def write_freihand_submission(
    path: str | Path,
    joints_cam_m: Iterable[Array],
    vertices_cam_m: Iterable[Array] | None,
    *,
    num: int | None = None,
) -> None:
    """Writes the zip for FreiHAND's evaluation, with FreiHAND's fingertips; otherwise as `write_ho3d_submission`."""

    def same(points: np.ndarray) -> np.ndarray:
        return points

    _write(Path(path), joints_cam_m, vertices_cam_m, to_joints=same, to_vertices=same, num=num, away=_OPENCV)


def check_ho3d_submission(path: str | Path, *, version: str = "v3", num: int | None = None) -> Submission:
    """Reads a `pred.json` or its zip as HO3D's server does.

    Args:
        path: the file.
        version: "v2" or "v3", for the number of samples.
        num: number of samples of unofficial data sets.

    Raises:
        InputError: the server would reject the file, or its values are not metres in OpenGL axes.
    """
    if version not in HO3D_NUM:
        raise InputError(f"HO3D has no version {version!r}; versions are {', '.join(HO3D_NUM)}")
    return _read(Path(path), HO3D_NUM[version] if num is None else num, _OPENGL)


def check_freihand_submission(path: str | Path, *, num: int = FREIHAND_NUM) -> Submission:
    """Reads a `pred.json` or its zip as FreiHAND's server does; arguments and errors as `check_ho3d_submission`."""
    return _read(Path(path), num, _OPENCV)


# ------------------------------------------------------------------------------------------------------------- writing


def _write(
    path: Path,
    joints: Iterable[Array],
    vertices: Iterable[Array] | None,
    *,
    to_joints: Convert,
    to_vertices: Convert,
    num: int | None,
    away: int,
) -> None:
    with (
        atomic_file(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open(_MEMBER, "w") as raw,
    ):
        raw.write(b"[")
        seen = _write_list(raw, joints, to_joints, _joint_check(path, away))
        seen.finish(num)
        raw.write(b",")
        if vertices is None:
            vertices = (np.zeros((NUM_VERTICES, 3)) for _ in range(len(seen)))
        _write_list(raw, vertices, to_vertices, _vertex_check(path, away)).finish(len(seen))
        raw.write(b"]")


def _write_list(raw: IO[bytes], hands: Iterable[Array], convert: Convert, check: HandCheck) -> HandCheck:
    point = f"[%.{DECIMALS}f,%.{DECIMALS}f,%.{DECIMALS}f]"
    text = "[" + ",".join([point] * check.num_points) + "]"
    raw.write(b"[")
    for hand in hands:
        separator = "," if len(check) else ""
        checked = check.see(hand, convert=convert)
        raw.write((separator + text % tuple(checked.ravel().tolist())).encode())
    raw.write(b"]")
    return check


def _joint_check(path: Path, away: int) -> HandCheck:
    return HandCheck(path, "joints", num_points=NUM_JOINTS, per_metre=1.0, away=away)


def _vertex_check(path: Path, away: int) -> HandCheck:
    return HandCheck(path, "vertices", num_points=NUM_VERTICES, per_metre=1.0, away=away, zeros_ok=True)


# ------------------------------------------------------------------------------------------------------------- reading


def _read(path: Path, num: int, away: int) -> Submission:
    checks = (_joint_check(path, away), _vertex_check(path, away))
    joints, vertices = (np.empty((num, check.num_points, 3)) for check in checks)
    with _open(path) as file:
        text = _Text(path, file)
        text.expect("[", "a list of two lists")
        for which, (check, array) in enumerate(zip(checks, (joints, vertices), strict=True)):
            if which:
                text.expect(",", "a second list, of vertices")
            for hand in text.items(check.what):
                if len(check) == num:
                    raise InputError(f"{path}: {check.what} of more than {num} samples; {_REMEDY} for this split")
                points = check.see(hand)
                array[len(check) - 1] = points
            check.finish(num)
        text.expect("]", "two lists and no more")
        text.end()
    return Submission(joints, vertices, has_mesh=checks[1].num_zero < num)


@contextmanager
def _open(path: Path) -> Iterator[TextIO]:
    """Opens `pred.json`, or the one in a zip, as text."""
    try:
        if not zipfile.is_zipfile(path):
            with open(path, encoding="utf-8") as file:
                yield file
            return
        with zipfile.ZipFile(path) as archive:
            if _MEMBER not in archive.namelist():
                names = ", ".join(archive.namelist()[:3]) or "nothing"
                raise InputError(f"{path}: no {_MEMBER} at the top of the zip ({names}); zip the file without folders")
            with archive.open(_MEMBER) as raw, io.TextIOWrapper(raw, encoding="utf-8") as file:
                yield file
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError, zipfile.BadZipFile, EOFError) as error:
        raise InputError(f"{path}: cannot be read ({error}); {_REMEDY}") from error


class _Text:
    """Streaming JSON reader: single marks, and the items of a list one by one."""

    def __init__(self, path: Path, file: TextIO):
        self.path, self._file, self._text, self._place = path, file, "", 0

    def expect(self, mark: str, what: str) -> None:
        found = self._next()
        if found != mark:
            raise InputError(
                f"{self.path}: {found or 'the end'!r} where {mark!r} should be, expected {what}; {_REMEDY}"
            )

    def end(self) -> None:
        found = self._next()
        if found:
            raise InputError(f"{self.path}: {found!r} after the end of the lists; {_REMEDY}")

    def items(self, what: str) -> Iterator[object]:
        self.expect("[", f"a list of {what}")
        if self._peek() == "]":
            self._next()
            return
        num = 0
        while True:
            yield self._item(f"{what} of sample {num}")
            num += 1
            mark = self._next()
            if mark == "]":
                return
            if mark != ",":
                raise InputError(f"{self.path}: {mark or 'the end'!r} after {what} of sample {num - 1}; {_REMEDY}")

    def _item(self, what: str) -> object:
        self._peek()
        decode = json.JSONDecoder().raw_decode
        while True:
            try:
                item, self._place = decode(self._text, self._place)
                return item
            except (json.JSONDecodeError, RecursionError) as error:
                if len(self._text) - self._place > _MAX_HAND or not self._more():
                    raise InputError(f"{self.path}: {what} are cut off or no JSON ({error}); {_REMEDY}") from error

    def _next(self) -> str:
        mark = self._peek()
        self._place += len(mark)
        return mark

    def _peek(self) -> str:
        """Returns the next non-space character, "" at the end, without consuming it."""
        while True:
            while self._place < len(self._text) and self._text[self._place].isspace():
                self._place += 1
            if self._place < len(self._text):
                return self._text[self._place]
            if not self._more():
                return ""

    def _more(self) -> bool:
        fresh = self._file.read(_CHUNK)
        self._text, self._place = self._text[self._place :] + fresh, 0
        return bool(fresh)
