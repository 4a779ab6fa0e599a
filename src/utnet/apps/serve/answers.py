"""What was uploaded in, what the page shows out. Knows nothing of the page."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from utnet.apps.serve.folder import OwnFolder
from utnet.apps.serve.scene import draw_boxes, scene_glb
from utnet.errors import InputError
from utnet.geometry import intrinsics
from utnet.io.atomic import write_whole
from utnet.io.depth import read_depth
from utnet.io.pictures import read_picture
from utnet.predict.files import PredictionsFile, hand_record, image_record
from utnet.predict.hand import Hand
from utnet.predict.method import METHODS, Method, Way, choose
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
        picture: its file, None where nothing was uploaded.
        depth: the file of a depth image aligned to it.
        depth_scale: metres a step of a depth image of whole numbers.
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
    """What the page shows of it.

    Attributes:
        note: a line for the reader.
        refused: the note says what is wrong with the upload; there is nothing else.
        overlay: JPEG of the picture with its hands, or without any.
        scene: GLB of all hands; None where there is no hand.
        predictions: JSON as `utnet predict` writes it.
        hands: best first.
    """

    note: str
    refused: bool = False
    overlay: Path | None = None
    scene: Path | None = None
    predictions: Path | None = None
    hands: list[Hand] = field(default_factory=list)


class Answers:
    """Answers questions, and writes the files that belong to them.

    Args:
        folder: to write into.
        weights: of the network, as `Predictor` takes them.

    Raises:
        InputError: weights that cannot be read.
    """

    def __init__(self, folder: OwnFolder, weights: str | Path | None = None):
        self._folder, self._weights = folder, weights
        self._lock = threading.Lock()
        self._predictors: dict[Way, Predictor] = {}
        self._predictor("auto")

    @property
    def default(self) -> Way:
        """What auto stands for."""
        return choose("auto", self._weights, None)

    @property
    def methods(self) -> tuple[Method, ...]:
        """Those that there is a choice of: without weights there is one way."""
        return ("fit",) if self.default == "fit" else METHODS

    def __call__(self, question: Question) -> Answer:
        """The answer; what is wrong with an upload is an answer, too."""
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
            write_whole(scene, scene_glb(hands))
        depth = None if question.depth is None else question.depth.name
        files = {"depth": depth, "overlay": overlay.name, "arrays": None}
        made_by = {"method": predictor.method, "weights": predictor.weights, "hand_model": predictor.hand_model}
        with PredictionsFile(predictions, made_by) as tree:
            records = [hand_record(hand, scene.name) for hand in hands]
            tree.add_image(image_record(file.name, picture.rgb, K_px, K_from, files, records))
        note = _note(hands, predictor.method, seconds, _CAMERAS[K_from])
        return Answer(note, False, overlay, scene if hands else None, predictions, hands)

    def _predictor(self, method: Method) -> Predictor:
        way = choose(method, self._weights, None)
        with self._lock:
            if way not in self._predictors:
                self._predictors[way] = Predictor(None if way == "fit" else self._weights, method=way)
            return self._predictors[way]


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
    """The message as the uploader knows the files: by their names."""
    for file in (question.picture, question.depth):
        if file is not None:
            text = text.replace(str(file), file.name)
    return text
