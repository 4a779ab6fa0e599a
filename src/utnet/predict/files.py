"""Output files of `utnet predict`: predictions.json, meshes, arrays. Fields: docs/predictions.md."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import utnet
from utnet.io.atomic import atomic_file
from utnet.io.pictures import Picture
from utnet.predict.checks import choose_camera
from utnet.predict.drawing import draw_hands
from utnet.predict.hand import Hand
from utnet.predict.meshes import write_meshes
from utnet.render.drawing import MAX_JPEG_PX, save_picture
from utnet.rotations import matrix_to_axis_angle

SCHEMA, SCHEMA_VERSION = "utnet-hands", 3
PREDICTIONS = "predictions.json"


def hand_record(hand: Hand, mesh: str | None = None) -> dict:
    """Returns the JSON record of a hand: metres, pixels, radians, OpenCV camera.

    Args:
        hand: the hand.
        mesh: name of its mesh file.
    """
    error = hand.landmark_error_percent
    return {
        "side": hand.side,
        "side_probability": round(hand.side_probability, 4),
        "score": round(hand.score, 4),
        "presence": round(hand.presence, 4),
        "valid": hand.valid,
        "track": hand.track,
        "box_px": _numbers(hand.box_px, 2),
        "method": hand.method,
        "distance_source": hand.distance_source,
        "shape_source": hand.shape_source,
        "landmark_error_percent": error if error is None else round(error, 2),
        "joints_cam_m": _numbers(hand.joints_cam_m, 6),
        "joints_px": _numbers(hand.joints_px, 3),
        "T_cam_wrist": _numbers(hand.T_cam_wrist, 6),
        "joints_wrist_m": _numbers(hand.joints_wrist_m, 6),
        "joint_error_mm": None if hand.joint_error_mm is None else _numbers(hand.joint_error_mm, 2),
        "hand_model": hand.hand_model,
        "global_orient_axis_angle": _numbers(matrix_to_axis_angle(hand.params.global_orient)[0], 6),
        "hand_pose_axis_angle": _numbers(matrix_to_axis_angle(hand.params.hand_pose), 6),
        "betas": _numbers(hand.params.betas, 6),
        "transl_m": _numbers(hand.params.transl_m, 6),
        "mesh": mesh,
    }


def image_record(
    file: str,
    size_px: tuple[int, int],
    K_px: np.ndarray,
    K_from: str,
    files: Mapping[str, str | None],
    hands: Sequence[dict] | None = None,
) -> dict:
    """Returns the JSON record of a picture, or of a video without its frames.

    Args:
        file: the picture, as named by the user.
        size_px: its width and height.
        K_px: (3, 3) intrinsics used.
        K_from: "given", "exif" or "default".
        files: its other files: `depth`, `overlay`, `arrays`.
        hands: `hand_record` of each.
    """
    width, height = size_px
    record = {"file": file, "width": width, "height": height, "K_px": _numbers(K_px, 4), "K_from": K_from, **files}
    return record if hands is None else {**record, "hands": list(hands)}


def image_size(image_rgb: np.ndarray) -> tuple[int, int]:
    """Returns the width and height of an (H, W, 3) picture."""
    return image_rgb.shape[1], image_rgb.shape[0]


class PredictionsFile:
    """predictions.json, written incrementally in constant memory; a context manager.

    The file appears at the end of the block, after Ctrl-C with the records so far; there is none on an error. Pictures
    come before videos.

    Args:
        path: the file.
        made_by: provenance of the predictions (method, weights, hand model, ...).
        also: files beside it with the same hands, by format.

    Attributes:
        is_empty: neither a picture nor a frame has been added.
    """

    def __init__(self, path: str | Path, made_by: Mapping[str, Any], also: Mapping[str, str] | None = None):
        self._head = {"schema": SCHEMA, "version": SCHEMA_VERSION, "made_by": {"utnet": utnet.__version__, **made_by}}
        self._head |= {"also": dict(also or {})}
        self._path, self._stack = path, ExitStack()
        self.is_empty = True
        self._in_videos = False
        self._between = ""
        self._problems: list[dict] = []

    def __enter__(self) -> PredictionsFile:
        temporary = self._stack.enter_context(atomic_file(self._path))
        self._file = self._stack.enter_context(temporary.open("w", encoding="utf-8"))
        self._file.write("{" + _fields(self._head, 0) + ',\n "images": [')
        return self

    def __exit__(self, kind, error, trace) -> None:
        kept = kind is None or (issubclass(kind, KeyboardInterrupt) and not self.is_empty)
        if not kept:
            self._stack.__exit__(kind, error, trace)
            return
        with self._stack:  # a full disk: the temporary file is removed
            self._turn_to_videos()
            self._file.write(f'\n ],\n "problems": {_text(self._problems, 1)}\n}}\n')

    def add_image(self, record: dict) -> None:
        """Appends a picture's `image_record`."""
        if self._in_videos:
            raise ValueError("a picture after a video; pictures come first")
        self._append(_text(record, 2))
        self.is_empty = False

    @contextmanager
    def video(self, record: dict, files: Mapping[str, str | None]) -> Iterator[Callable[[dict], None]]:
        """Opens a video's record; yields the function that appends a frame's record.

        Args:
            record: of the video.
            files: further fields for files written after the frames, read at the end of the block.
        """
        self._turn_to_videos()
        self._append("{" + _fields(record, 2) + ',\n   "frames": [')
        between = ""

        def add(frame: dict) -> None:
            nonlocal between
            self._file.write(f"{between}\n    {_text(frame, 4)}")
            between, self.is_empty = ",", False

        try:
            yield add
        finally:  # closes the record of a video that fails half-way
            self._file.write("\n   ]," + _fields(dict(files), 2) + "\n  }")

    def problem(self, file: str, why: str) -> None:
        """Records an input that failed or is incomplete."""
        self._problems.append({"file": file, "why": why})

    def _turn_to_videos(self) -> None:
        if not self._in_videos:
            self._file.write('\n ],\n "videos": [')
            self._in_videos, self._between = True, ""

    def _append(self, text: str) -> None:
        self._file.write(f"{self._between}\n  {text}")
        self._between = ","


def write_hands(
    folder: str | Path,
    name: str,
    image: np.ndarray | Picture,
    hands: Sequence[Hand],
    *,
    K_px: np.ndarray | None = None,
    depth: str | None = None,
    mesh: str = "glb",
) -> dict[str, list[Path]]:
    """Writes one picture's `NAME.json` (as predictions.json), `NAME_overlay.jpg` and a mesh for each hand.

    Args:
        folder: created if missing; files of these names are replaced.
        name: prefix of the files' names.
        image: a `Picture`, or (H, W, 3) uint8.
        hands: of that picture, by one predictor.
        K_px: (3, 3) intrinsics passed to the predictor; None: the picture's own, else the default.
        depth: name of the depth image used.
        mesh: "glb", "obj" or "ply".

    Returns:
        The paths by kind: json, overlay, mesh.
    """
    image_rgb, exif_K_px = (image.rgb, image.K_px) if isinstance(image, Picture) else (image, None)
    K_px, K_from = choose_camera(image_rgb, K_px, exif_K_px)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    meshes = write_meshes(folder / name, hands, mesh)
    overlay, text = folder / overlay_name(name, image_rgb), folder / f"{name}.json"
    save_picture(overlay, draw_hands(image_rgb, hands))
    records = [hand_record(hand, path.name) for hand, path in zip(hands, meshes, strict=True)]
    others = {"depth": depth, "overlay": overlay.name, "arrays": None}
    with PredictionsFile(text, {}) as file:
        file.add_image(image_record(name, image_size(image_rgb), K_px, K_from, others, records))
    return {"json": [text], "overlay": [overlay], "mesh": meshes}


def overlay_name(name: str, image_rgb: np.ndarray) -> str:
    """`NAME_overlay.jpg`; a PNG if the picture is too large for JPEG."""
    return f"{name}_overlay.{'png' if max(image_rgb.shape) > MAX_JPEG_PX else 'jpg'}"


def _numbers(array: np.ndarray, digits: int) -> list:
    return np.round(np.asarray(array, float), digits).tolist()


def _text(value: Any, indent: int) -> str:
    """JSON with one line per field; lists of numbers are on one line."""
    if isinstance(value, dict) and value:
        return "{" + _fields(value, indent) + "\n" + " " * indent + "}"
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        inner = "\n" + " " * (indent + 1)
        return "[" + ",".join(inner + _text(item, indent + 1) for item in value) + "\n" + " " * indent + "]"
    return json.dumps(value, allow_nan=False)


def _fields(record: dict, indent: int) -> str:
    """Lines of a record, without braces."""
    inner = "\n" + " " * (indent + 1)
    return ",".join(f"{inner}{json.dumps(key)}: {_text(item, indent + 1)}" for key, item in record.items())
