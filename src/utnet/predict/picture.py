"""Predicts a picture file and writes its results."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from utnet.errors import InputError
from utnet.io.depth import read_depth
from utnet.io.pictures import Picture, read_picture
from utnet.io.recordings import Camera
from utnet.io.recordings.alignment import resample_depth
from utnet.predict.checks import check_box
from utnet.predict.drawing import draw_hands
from utnet.predict.files import hand_record, image_record, image_size, overlay_name
from utnet.predict.given_landmarks import box_of_landmarks, read_landmarks
from utnet.predict.hands import Hands
from utnet.predict.inputs import Input
from utnet.predict.meshes import mesh_paths, write_meshes
from utnet.predict.predictor import Predictor
from utnet.predict.request import Request
from utnet.render.drawing import save_picture


def predict_picture(predictor: Predictor, item: Input, request: Request) -> tuple[dict, Hands]:
    """Returns one picture's `files.image_record` and hands; writes its meshes, overlay and arrays.

    Calls from several threads at once are safe.

    Raises:
        InputError: the picture or its depth image cannot be read.
        OSError: its files cannot be written; none remains.
    """
    assert isinstance(item.source, Path)
    picture = read_picture(item.source)
    as_recorded = picture.rgb
    lens = request.lens_of(as_recorded)
    if lens is not None:
        picture = replace(picture, rgb=lens.rectified(picture.rgb))
    K_px, K_from = request.camera(picture.rgb, picture.K_px)
    overlay = overlay_name(item.name, picture.rgb) if request.overlay else None
    arrays = f"{item.name}.npz" if request.arrays else None
    files: dict[str, str | None] = {"depth": None, "overlay": overlay, "arrays": arrays}
    depth_m = None
    if request.depth is not None:
        if picture.turned:
            raise InputError(f"{item.source}: rotated by its EXIF data, unlike its depth image; save it upright first")
        depth_file = request.depth.of(item.source)
        depth_m = read_depth(depth_file, request.depth_scale)
        try:
            depth_m = resample_depth(depth_m, image_size(picture.rgb))
        except InputError as error:
            raise InputError(f"{depth_file}: {error}") from error
        depth_m = depth_m if lens is None else lens.rectified(depth_m, nearest=True)
        files["depth"] = str(depth_file)
    try:
        hands = _hands(predictor, picture, item.source, depth_m, K_px, lens, request)
    except InputError as error:
        raise InputError(f"{item.source}: {error}") from error
    start = request.out / item.name
    meshes = [] if request.mesh is None else mesh_paths(start, hands, request.mesh)
    try:
        if request.mesh is not None:
            write_meshes(start, hands, request.mesh)
        if overlay:
            drawn = draw_hands(as_recorded, hands, request.style, lens=lens)
            save_picture(request.out / overlay, drawn, overwrite=True)
            del drawn
        if arrays:
            rows = request.rows(hands.size_px, with_vertices=True)
            rows.add(hands)
            rows.write(request.out / arrays)
    except Exception:
        for path in [*meshes, *(request.out / name for name in (overlay, arrays) if name)]:
            with suppress(OSError):
                path.unlink(missing_ok=True)
        raise
    names: Sequence[str | None] = [path.name for path in meshes] or [None] * len(hands)
    records = [hand_record(hand, name) for hand, name in zip(hands, names, strict=True)]
    return image_record(str(item.source), hands.size_px, K_px, K_from, files, records), hands


def _hands(
    predictor: Predictor,
    picture: Picture,
    file: Path,
    depth_m: np.ndarray | None,
    K_px: np.ndarray,
    lens: Camera | None,
    request: Request,
) -> Hands:
    """The detected hands, those in the given boxes, or those of the landmark file with its boxes and sides; boxes and
    landmarks are in pixels of the recorded picture."""
    boxes: Sequence[Sequence[float]] | np.ndarray | None = request.boxes
    if boxes is not None and lens is not None:
        height, width = picture.rgb.shape[:2]
        for box in boxes:
            check_box(box, width, height)
        boxes = np.stack([lens.rectified_box(box) for box in boxes])
    if request.landmarks is None:
        return predictor(picture, depth_m, K_px, boxes, request.sides)
    given = read_landmarks(request.landmarks, image_size(picture.rgb), file)
    if lens is not None:
        given = [hand.rectified(lens) for hand in given]
    sides = request.sides
    if boxes is None:
        own = [box_of_landmarks(hand.landmarks_px) if hand.box_px is None else hand.box_px for hand in given]
        boxes = np.stack(own)
    stated = [hand.side for hand in given]
    if sides is None and None not in stated:
        sides = [side for side in stated if side is not None]
    return predictor(picture, depth_m, K_px, boxes, sides, [hand.landmarks_px for hand in given])
