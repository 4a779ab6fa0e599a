"""A picture file through the predictor, and what is written of it."""

from __future__ import annotations

from pathlib import Path

from utnet.errors import InputError
from utnet.media import read_depth, read_picture
from utnet.predict.arrays import HandRows
from utnet.predict.drawing import draw_hands
from utnet.predict.files import hand_record, image_record, write_meshes
from utnet.predict.hand import Hand
from utnet.predict.inputs import Input
from utnet.predict.predictor import Predictor
from utnet.predict.request import Request
from utnet.viz import save_picture


def predict_picture(predictor: Predictor, item: Input, request: Request) -> tuple[dict, list[Hand]]:
    """One picture's hands and their `files.image_record`; its meshes, overlay and arrays are written.

    Calls from several threads at once are safe.

    Raises:
        InputError: the picture or its depth image cannot be read; nothing is written.
    """
    assert isinstance(item.source, Path)
    picture = read_picture(item.source)
    K_px, K_from = request.camera(picture.rgb, picture.K_px)
    overlay = f"{item.name}_overlay.jpg" if request.overlay else None
    arrays = f"{item.name}.npz" if request.arrays else None
    files: dict[str, str | None] = {"depth": None, "overlay": overlay, "arrays": arrays}
    depth_m = None
    if request.depth is not None:
        depth_file = request.depth.of(item.source)
        depth_m, files["depth"] = read_depth(depth_file, request.depth_scale), str(depth_file)
    try:
        hands = predictor(picture.rgb, depth_m, K_px, request.boxes, request.sides)
    except InputError as error:
        raise InputError(f"{item.source}: {error}") from error
    meshes: list[str] | list[None] = [None] * len(hands)
    if request.mesh is not None:
        meshes = [path.name for path in write_meshes(request.out / item.name, hands, request.mesh)]
    if overlay:
        save_picture(request.out / overlay, draw_hands(picture.rgb, hands))
    if arrays:
        rows = HandRows(with_vertices=True)
        rows.add(hands)
        rows.write(request.out / arrays)
    records = [hand_record(hand, mesh) for hand, mesh in zip(hands, meshes, strict=True)]
    return image_record(str(item.source), picture.rgb, K_px, K_from, files, records), hands
