"""Uploads to predictions and the files that the page shows; independent of the page."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utnet.apps.serve.folder import OwnFolder
from utnet.apps.serve.scene import draw_boxes
from utnet.errors import InputError
from utnet.geometry import intrinsics
from utnet.io.atomic import atomic_write
from utnet.io.depth import read_depth
from utnet.io.pictures import read_picture
from utnet.predict.files import PredictionsFile, hand_record, image_record
from utnet.predict.hand import Hand
from utnet.predict.meshes import scene_glb
from utnet.predict.methods.resolve import METHODS, Method, ResolvedMethod, resolve_method
from utnet.predict.predictor import Predictor
from utnet.predict.request import Request
from utnet.render.drawing import save_picture

WAITING = "Drop a picture to begin."
_CAMERAS = {
    "given": "as you gave it",
    "exif": "from the photo's EXIF data",
    "default": "a guess, f = the longer side",
}


@dataclass(frozen=True)
class Question:
    """One upload.

    Attributes:
        picture: its file, None without an upload.
        depth: the file of a depth image aligned to it.
        depth_scale: metres per unit of an integer depth image.
        camera: fx, fy, cx, cy in pixels; all of them or none.
        method: as `Predictor` takes it.
    """

    picture: Path | None
    depth: Path | None = None
    depth_scale: float | None = 0.001
    camera: Sequence[float | None] = (None, None, None, None)
    method: Method = "auto"


@dataclass(frozen=True)
class Answer:
    """The result that the page shows.

    Attributes:
        note: one line for the user.
        refused: the upload is bad: the note names the error, and the rest is empty.
        overlay: JPEG of the picture with its hands drawn.
        scene: GLB of all hands; None without hands.
        predictions: JSON as `utnet predict` writes it.
        hands: best first.
    """

    note: str
    refused: bool = False
    overlay: Path | None = None
    scene: Path | None = None
    predictions: Path | None = None
    hands: Sequence[Hand] = ()


class HandService:
    """Predicts uploads and writes the files that the page shows.

    Args:
        folder: to write into.
        weights: of the network, as `Predictor` takes them.

    Raises:
        InputError: weights that cannot be read.
    """

    def __init__(self, folder: OwnFolder, weights: str | Path | None = None):
        self._folder, self._weights = folder, weights
        self._lock = threading.Lock()
        self._predictors: dict[ResolvedMethod, Predictor] = {}
        self._predictor("auto")

    @property
    def default(self) -> ResolvedMethod:
        """The method that "auto" stands for."""
        return resolve_method("auto", self._weights, None)

    @property
    def methods(self) -> tuple[Method, ...]:
        """The methods that a user can choose: without weights only the fit."""
        return ("fit",) if self.default == "fit" else METHODS

    def __call__(self, question: Question) -> Answer:
        """Returns the answer; a bad upload is one with `refused`."""
        if question.picture is None:
            return Answer(WAITING)
        self._folder.tidy()
        try:
            return self._answer(question, question.picture)
        except InputError as error:
            return Answer(_without_folders(str(error), question), refused=True)

    def _answer(self, question: Question, file: Path) -> Answer:
        picture = read_picture(file)
        out = self._folder.new()
        request = Request(out, K_px=_camera(question.camera))
        K_px, K_from = request.camera(picture.rgb, picture.K_px)
        depth_m = None if question.depth is None else read_depth(question.depth, _scale(question.depth_scale))
        predictor = self._predictor(question.method)
        start = time.perf_counter()
        hands = predictor(picture.rgb, depth_m, K_px)
        seconds = time.perf_counter() - start
        overlay, scene, predictions = out / "overlay.jpg", out / "hands.glb", out / "hands.json"
        save_picture(overlay, draw_boxes(picture.rgb, hands))
        if hands:
            atomic_write(scene, scene_glb(hands))
        depth = None if question.depth is None else question.depth.name
        files = {"depth": depth, "overlay": overlay.name, "arrays": None}
        made_by = {"method": predictor.method, "weights": predictor.weights, "hand_model": predictor.hand_model}
        with PredictionsFile(predictions, made_by) as tree:
            records = [hand_record(hand, scene.name) for hand in hands]
            tree.add_image(image_record(file.name, hands.size_px, K_px, K_from, files, records))
        note = _note(hands, predictor.method, seconds, _CAMERAS[K_from])
        return Answer(note, False, overlay, scene if hands else None, predictions, hands)

    def _predictor(self, method: Method) -> Predictor:
        resolved = resolve_method(method, self._weights, None)
        with self._lock:
            if resolved not in self._predictors:
                self._predictors[resolved] = Predictor(None if resolved == "fit" else self._weights, method=resolved)
            return self._predictors[resolved]


def _note(hands: Sequence[Hand], method: str, seconds: float, camera: str) -> str:
    if not hands:
        return "No hand was found in this picture. Hands should be in view, in light and not too small."
    count = f"{len(hands)} hand{'' if len(hands) == 1 else 's'}"
    return f"{count} in {seconds:.1f} s ({method}). Camera: {camera}."


def _camera(values: Sequence[float | None]) -> np.ndarray | None:
    known = [value for value in values if value is not None]
    if known and len(known) < len(values):
        raise InputError("the camera has empty fields; give all of fx, fy, cx and cy, or none")
    return intrinsics(*known) if known else None


def _scale(value: float | None) -> float:
    if value is None or not value > 0:
        raise InputError(f"depth steps are {value} m; expected more than 0, such as 0.001 for millimetres")
    return value


def _without_folders(text: str, question: Question) -> str:
    """Returns the message with file names in place of paths on this machine."""
    for file in (question.picture, question.depth):
        if file is not None:
            text = text.replace(str(file), file.name)
    return text
