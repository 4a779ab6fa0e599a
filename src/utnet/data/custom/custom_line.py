"""Parsing and validation of a line of `hands.jsonl` (docs/custom_data.md)."""

from __future__ import annotations

import difflib
import json
from pathlib import Path, PureWindowsPath
from typing import Any, NoReturn

import numpy as np

from utnet.conventions import NUM_BETAS, NUM_JOINTS, SIDES
from utnet.errors import InputError, shown
from utnet.geometry import intrinsics
from utnet.rotations import axis_angle_to_matrix
from utnet.types import HandParams

KEYS = (
    "image", "side", "K", "joints_3d", "joints_3d_conf", "joints_2d", "joints_2d_conf", "params", "hand_model",
    "depth", "depth_scale", "box", "sequence", "split",
)  # fmt: skip
PARAMS = ("global_orient", "hand_pose", "betas", "transl")
HAND_MODELS = ("open", "mano")
LINE_SPLITS = ("train", "val", "test")
MAX_HAND_M = 1.0
"""Largest extent of a hand's joints; larger values are not in metres."""

_MAX_TEXT = 1000
_MAX_ANGLE_RAD = 314.0

# Probable causes of invalid lines; `utnet data check` recognises these texts and suggests a conversion.
MILLIMETRES = "joints_3d look like millimetres"
OPENGL = "joints_3d have OpenGL axes (y up, z backward)"
RELATIVE = "joints_3d are relative to the hand, not to the camera of K"
BACKSLASHES = "paths have backslashes"
WIDTH_HEIGHT = "box looks like x, y, width, height"


_AT_CAMERA_M = 0.03


def is_at_camera(joints_m: np.ndarray) -> np.ndarray:
    """(...,) whether a joint of (..., 21, 3) hands lies at the camera's centre: joints are relative to the hand."""
    with np.errstate(invalid="ignore"):
        return (np.linalg.norm(joints_m, axis=-1) < _AT_CAMERA_M).any(-1)


class Line:
    """A parsed line. Methods return the value of a key as numpy, or raise an InputError with file, line and key.

    null is treated as a missing key.
    """

    def __init__(self, text: bytes, path: Path, number: int):
        """Parses and checks the structure: JSON, keys, and the texts that assign lines to splits.

        Args:
            text: the line.
            path: of the file, for messages.
            number: of the line, from 1.
        """
        self.where = f"{path}: line {number}"
        try:
            values = json.loads(text, parse_constant=_refuse_constant)
        except json.JSONDecodeError as error:
            self.fail(f"not JSON ({error.msg} at character {error.pos + 1}); every line must describe one hand")
        except (ValueError, RecursionError) as error:
            self.fail(f"not JSON that can be read ({error}); use null for missing labels")
        if not isinstance(values, dict):
            self.fail("expected an object {...} with the keys of one hand")
        self._check_keys(values, KEYS, "")
        self.values: dict[str, Any] = {key: value for key, value in values.items() if value is not None}
        self.image = self._text("image") or self.fail("'image' is missing; give the picture's path below this folder")
        self.side = self._text("side") or self.fail("'side' is missing; give right or left")
        self.split = self._text("split")
        self.sequence = self._text("sequence")
        if self.side not in SIDES:
            self.fail(f"'side' is {shown(self.side)}, expected right or left")
        if self.split and self.split not in LINE_SPLITS:
            self.fail(f"'split' is {shown(self.split)}, expected one of {', '.join(LINE_SPLITS)}, or no such key")
        self.key = f"{self.image}:{number}"
        if not self.sequence:  # by default the pictures of one folder are one recording
            self.sequence = self.image.rpartition("/")[0]

    def fail(self, message: str) -> NoReturn:
        raise InputError(f"{self.where}: {message}")

    def file(self, key: str, root: Path) -> Path:
        """The file that `key` names. It must lie below `root`: data sets may be untrusted."""
        name = self._text(key)
        for parts in (Path(name), PureWindowsPath(name)):
            if parts.is_absolute() or parts.drive or ".." in parts.parts or "\0" in name:
                self.fail(f"{key!r} is {shown(name)}; expected a path below the folder, without '..'")
        path = root / name
        try:
            inside, there = path.resolve().is_relative_to(root.resolve()), path.is_file()
        except (OSError, RuntimeError):  # a name that is too long, a cycle of links
            inside, there = True, False
        if not inside:
            self.fail(f"{key!r} is {shown(name)}, a link that leads out of the folder; put the file itself there")
        if not there and "\\" in name:
            self.fail(f"{BACKSLASHES}: {key!r} is {name!r}; write {name.replace(chr(92), '/')!r}")
        if not there:
            self.fail(f"{key!r}: {path}: no such file; check the path")
        return path

    def camera(self) -> np.ndarray | None:
        """(3, 3) K from nine numbers, or from [fx, fy, cx, cy]."""
        if "K" not in self.values:
            return None
        K = self._numbers("K", self.values["K"], (4,), (3, 3))
        K = intrinsics(*K) if K.shape == (4,) else K
        skew = np.abs([K[0, 1], K[1, 0]]).max()  # rotated pictures have small skew entries
        if not (min(K[0, 0], K[1, 1]) > 10 * skew and (K[2] == [0, 0, 1]).all()):
            self.fail("'K' is not a camera matrix; expected [fx, fy, cx, cy] or [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]")
        return K

    def joints(self, key: str, dims: int) -> tuple[np.ndarray, np.ndarray]:
        """(21, dims) labels, NaN where null, and (21,) their confidence: `KEY_conf`, else 1; 0 where null."""
        points, conf = np.full((NUM_JOINTS, dims), np.nan), np.zeros(NUM_JOINTS, np.float32)
        rows = self.values.get(key)
        if rows is None:
            if f"{key}_conf" in self.values:
                self.fail(f"'{key}_conf' is given without {key!r}")
            return points, conf
        if not isinstance(rows, list) or len(rows) != NUM_JOINTS:
            self.fail(f"{key!r}: expected {NUM_JOINTS} joints in OpenPose's order, null for one that is not labelled")
        for joint, row in enumerate(rows):
            if row is not None:
                points[joint] = self._numbers(f"{key}[{joint}]", row, (dims,))
        conf[:] = 1.0
        if f"{key}_conf" in self.values:
            conf[:] = self._numbers(f"{key}_conf", self.values[f"{key}_conf"], (NUM_JOINTS,))
            if (conf < 0).any():
                self.fail(f"'{key}_conf' has a number below 0; 0 is not labelled, 1 is certain")
        labelled = np.isfinite(points[:, 0])
        size_m = np.ptp(points[labelled], axis=0).max() if dims == 3 and labelled.any() else 0.0
        if size_m > MAX_HAND_M:
            unit = f"; {MILLIMETRES}, multiply by 0.001" if 30 < size_m < 300 else ""
            self.fail(f"{key!r}: joints more than {MAX_HAND_M:g} m apart; expected metres{unit}")
        return points, conf * labelled

    def box(self) -> np.ndarray | None:
        if "box" not in self.values:
            return None
        box = self._numbers("box", self.values["box"], (4,))
        if not (box[2] > box[0] and box[3] > box[1]):
            unlike = f"; {WIDTH_HEIGHT}" if (box >= 0).all() and (box[2:] > 0).all() else ""
            self.fail(f"'box' is {box.tolist()}; expected [x0, y0, x1, y1] in pixels with x0 < x1 and y0 < y1{unlike}")
        return box

    def depth_scale(self) -> float:
        """Metres of one unit."""
        scale = float(self._numbers("depth_scale", self.values.get("depth_scale", 0.001), ()))
        if not scale > 0:
            self.fail(f"'depth_scale' is {scale:g}; expected metres of one unit, more than 0")
        return scale

    def params(self, wanted: str) -> tuple[HandParams | None, str]:
        """Parameters and the name of their hand model: `wanted`, or the line's if that is "auto"."""
        hand_model = self._text("hand_model")
        if hand_model and hand_model not in HAND_MODELS:
            self.fail(f"'hand_model' is {shown(hand_model)}, expected open or mano")
        model = hand_model if wanted == "auto" else wanted
        if "params" not in self.values:
            return None, model or "open"
        if not model:
            self.fail("'params' need 'hand_model': open or mano, the model that they belong to")
        params = self.values["params"]
        if not isinstance(params, dict):
            self.fail(f"'params': expected an object with the keys {', '.join(PARAMS)}")
        self._check_keys(params, PARAMS, " in 'params'")

        def part(key: str, num: int) -> np.ndarray:
            if params.get(key) is None:
                self.fail(f"'params' has no {key!r}; expected {num} numbers")
            return self._numbers(f"params.{key}", params[key], (num,))

        angles = np.concatenate([part("global_orient", 3), part("hand_pose", 45)]).reshape(16, 3)
        if np.abs(angles).max() > _MAX_ANGLE_RAD:
            self.fail("'params' have a rotation of more than 50 turns; expected rotation vectors in radians")
        R = axis_angle_to_matrix(angles)
        return HandParams(
            global_orient=R[:1],
            hand_pose=R[1:],
            betas=part("betas", NUM_BETAS),
            transl_m=part("transl", 3) if params.get("transl") is not None else np.full(3, np.nan),
        ), model

    def _text(self, key: str) -> str:
        value = self.values.get(key, "")
        if not isinstance(value, str) or len(value) > _MAX_TEXT or any("\ud800" <= c <= "\udfff" for c in value):
            self.fail(f"{key!r} is {ascii(value)[:40]}, expected a text of at most {_MAX_TEXT} characters")
        return value

    def _numbers(self, key: str, value: Any, *shapes: tuple[int, ...]) -> np.ndarray:
        """float64 of one of the shapes, all finite."""
        expected = " or ".join("x".join(str(n) for n in shape) or "one" for shape in shapes)
        try:
            array = np.asarray(value)
            if array.dtype.kind not in "iuf":
                raise ValueError
        except (ValueError, OverflowError):
            self.fail(f"{key!r}: expected {expected} number(s)")
        array = array.astype(np.float64)
        if array.shape not in shapes or not np.isfinite(array).all():
            self.fail(f"{key!r} has shape {array.shape}; expected {expected} finite number(s)")
        return array

    def _check_keys(self, values: dict, known: tuple[str, ...], place: str) -> None:
        for key in values:
            if key not in known:
                near = difflib.get_close_matches(key, known, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"expected some of {', '.join(known)}"
                self.fail(f"unknown key {key[:40]!r}{place}; {hint}")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")
