"""Prediction of uploads and writing of the page's files; independent of the server."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from utnet.apps.serve.scene import draw_boxes, shrink
from utnet.conventions import NUM_JOINTS
from utnet.errors import InputError
from utnet.geometry import box_of, intrinsics
from utnet.io.atomic import atomic_write
from utnet.io.depth import read_depth
from utnet.io.pictures import Picture, read_picture
from utnet.predict.checks import choose_camera
from utnet.predict.files import PredictionsFile, hand_record, image_record
from utnet.predict.hand import Hand
from utnet.predict.meshes import scene_glb
from utnet.predict.methods.resolve import METHODS, Method, ResolvedMethod, resolve_method
from utnet.predict.predictor import Predictor
from utnet.render.drawing import save_picture

VIEW, SCENE, PREDICTIONS = "view.jpg", "hands.glb", "hands.json"
_VIEW_PX = 1600
"""Longer side of the displayed picture."""
_REMEMBERED_PX = 24 * 10**6
"""Largest picture that stays decoded while joints are moved."""
_CAMERAS = {
    "given": "as you gave it",
    "exif": "from the photo's EXIF data",
    "default": "a guess, f = the longer side",
}


@dataclass(frozen=True)
class Query:
    """One picture and its options.

    Attributes:
        picture: its file.
        depth: the file of a depth image aligned to it.
        depth_scale: metres per unit of an integer depth image.
        camera: fx, fy, cx, cy in pixels; all of them or none.
        method: as `Predictor` takes it.
    """

    picture: Path
    depth: Path | None = None
    depth_scale: float | None = 0.001
    camera: Sequence[float | None] = (None, None, None, None)
    method: Method = "auto"


@dataclass
class Result:
    """The hands of one picture, which the visitor may correct.

    Attributes:
        query: the upload.
        folder: of the files `VIEW`, `SCENE` (without hands: none) and `PREDICTIONS`.
        size_px: width and height of the picture.
        K_px: (3, 3) camera used.
        K_from: "given", "exif" or "default".
        note: one line for the visitor.
        hands: best first, then those added by the visitor.
        found: the same before joints were moved.
        points: for each hand the joints moved by the visitor, with x, y in pixels.
        version: number of changes.
    """

    query: Query
    folder: Path
    size_px: tuple[int, int]
    K_px: np.ndarray
    K_from: str
    note: str = ""
    hands: list[Hand] = field(default_factory=list)
    found: list[Hand] = field(default_factory=list)
    points: list[dict[int, tuple[float, float]]] = field(default_factory=list)
    version: int = 1


class HandService:
    """Predicts uploads and writes the files of the page.

    Args:
        weights: of the network, as `Predictor` takes them.

    Raises:
        InputError: weights that cannot be read.
    """

    def __init__(self, weights: str | Path | None = None):
        self._weights = weights
        self._lock = threading.Lock()
        self._predictors: dict[ResolvedMethod, Predictor] = {}
        self._remembered: tuple[Query, Picture, np.ndarray | None] | None = None
        self._predictor("auto")

    @property
    def default(self) -> ResolvedMethod:
        """The method used for "auto"."""
        return resolve_method("auto", self._weights, None)

    @property
    def methods(self) -> tuple[Method, ...]:
        """The methods that a visitor can choose: without weights only the fit."""
        return ("fit",) if self.default == "fit" else METHODS

    def warm_up(self) -> None:
        """Loads networks in advance for the first picture."""
        self._predictor("auto")(np.full((64, 64, 3), 128, np.uint8))

    def predict(self, query: Query, folder: Path, progress: Callable[[str], None]) -> Result:
        """Finds the hands of a picture and writes the page's files into the folder.

        Args:
            query: the picture.
            folder: of the result.
            progress: called with the name of each step.

        Raises:
            InputError: a bad upload; the message names files, not folders.
        """
        try:
            progress("Reading the picture")
            picture, depth_m = self._read(query)
            K_px, K_from = choose_camera(picture.rgb, _camera(query.camera), picture.K_px)
            predictor = self._predictor(query.method)
            progress("Finding hands")
            start = time.perf_counter()
            hands = predictor(picture.rgb, depth_m, K_px)
        except InputError as error:
            raise InputError(_without_folders(str(error), query)) from error
        result = Result(query, folder, hands.size_px, K_px, K_from)
        result.hands, result.found = list(hands), list(hands)
        result.points = [{} for _ in hands]
        result.note = _note(hands, predictor.method, time.perf_counter() - start, _CAMERAS[K_from])
        progress("Drawing")
        self._write(result, picture.rgb)
        return result

    def takes_landmarks(self, result: Result) -> bool:
        """Whether joints of this result can be moved."""
        return self._predictor(result.query.method).takes_landmarks

    def move_joints(self, result: Result, index: int, points: Mapping[int, tuple[float, float]]) -> None:
        """Reconstructs a hand with joints placed by the visitor; without any, the original hand is restored.

        Args:
            result: changed in place; its files are rewritten.
            index: of the hand.
            points: places x, y in pixels of joints 0 to 20; they replace earlier ones.

        Raises:
            InputError: no such hand or joint, a point far outside the picture, or a network without prompts.
        """
        if not 0 <= index < len(result.hands):
            raise InputError(f"no hand {index}; the picture has {len(result.hands)}")
        landmarks = np.full((NUM_JOINTS, 2), np.nan)
        for joint, place in points.items():
            if not 0 <= joint < NUM_JOINTS:
                raise InputError(f"no joint {joint}; expected 0 to {NUM_JOINTS - 1}")
            landmarks[joint] = _inside(place, result.size_px)
        picture, depth_m = self._read(result.query)
        hand = result.found[index]
        if points:
            box = box_of(np.concatenate([hand.box_px.reshape(2, 2), landmarks[list(points)]]))
            predictor = self._predictor(result.query.method)
            (hand,) = predictor(
                picture.rgb, depth_m, result.K_px, boxes=box[None], sides=[hand.side], landmarks_px=[landmarks]
            )
        result.hands[index], result.points[index] = hand, dict(points)
        result.version += 1
        self._write(result, picture.rgb)

    def add_hand(self, result: Result, box_px: Sequence[float]) -> None:
        """Adds the hand in a box drawn by the visitor.

        Args:
            result: changed in place; its files are rewritten.
            box_px: x0, y0, x1, y1.

        Raises:
            InputError: an empty box, or one outside the picture.
        """
        picture, depth_m = self._read(result.query)
        (hand,) = self._predictor(result.query.method)(picture.rgb, depth_m, result.K_px, boxes=[box_px])
        result.hands.append(hand)
        result.found.append(hand)
        result.points.append({})
        result.version += 1
        self._write(result, picture.rgb)

    def overlay(self, result: Result) -> bytes:
        """The picture in its full size with the hands drawn, as JPEG, or PNG if it is too large for JPEG."""
        drawn = draw_boxes(self._read(result.query)[0].rgb, result.hands)
        ending = ".png" if max(result.size_px) > 65_500 else ".jpg"
        ok, data = cv2.imencode(ending, np.ascontiguousarray(drawn[..., ::-1]))
        if not ok:
            raise InputError("the overlay cannot be encoded; make the picture smaller first")
        return data.tobytes()

    def _read(self, query: Query) -> tuple[Picture, np.ndarray | None]:
        """Returns the picture and its depth; those of the last query are cached."""
        remembered = self._remembered
        if remembered is not None and remembered[0] is query:
            return remembered[1:]
        self._remembered = None
        picture = read_picture(query.picture)
        depth_m = None if query.depth is None else read_depth(query.depth, _scale(query.depth_scale))
        if picture.rgb.shape[0] * picture.rgb.shape[1] <= _REMEMBERED_PX:
            self._remembered = query, picture, depth_m
        return picture, depth_m

    def _write(self, result: Result, image_rgb: np.ndarray) -> None:
        shown, hands = shrink(image_rgb, result.hands, _VIEW_PX)
        save_picture(result.folder / VIEW, draw_boxes(shown, hands))
        if result.hands:
            atomic_write(result.folder / SCENE, scene_glb(result.hands))
        predictor, query = self._predictor(result.query.method), result.query
        files = {"depth": None if query.depth is None else query.depth.name, "overlay": "overlay.jpg", "arrays": None}
        made_by = {"method": predictor.method, "weights": predictor.weights, "hand_model": predictor.hand_model}
        with PredictionsFile(result.folder / PREDICTIONS, made_by) as tree:
            records = [hand_record(hand, SCENE) for hand in result.hands]
            tree.add_image(image_record(query.picture.name, result.size_px, result.K_px, result.K_from, files, records))

    def _predictor(self, method: Method) -> Predictor:
        resolved = resolve_method(method, self._weights, None)
        with self._lock:
            if resolved not in self._predictors:
                self._predictors[resolved] = Predictor(None if resolved == "fit" else self._weights, method=resolved)
            return self._predictors[resolved]


def _note(hands: Sequence[Hand], method: str, seconds: float, camera: str) -> str:
    if not hands:
        return "No hand was found in this picture. Hands should be visible, well lit and not too small."
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


def _inside(place: Sequence[float], size_px: tuple[int, int]) -> tuple[float, float]:
    """Checks that a point is in the picture, or at most its size away."""
    (x, y), (width, height) = place, size_px
    if not (-width <= x <= 2 * width and -height <= y <= 2 * height):
        raise InputError(f"a joint is at {x:.0f}, {y:.0f}; the picture is {width} x {height}")
    return x, y


def _without_folders(text: str, query: Query) -> str:
    """Returns the message with file names in place of paths on this machine."""
    for file in (query.picture, query.depth):
        if file is not None:
            text = text.replace(str(file), file.name)
    return text
