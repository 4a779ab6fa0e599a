"""`Hand.save` and `Hands.save`: writers by file suffix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from utnet.errors import InputError
from utnet.io.atomic import write_json
from utnet.predict.arrays import HandRows
from utnet.predict.files import PredictionsFile, hand_record, image_record
from utnet.predict.hand import Hand
from utnet.predict.hands import Hands
from utnet.predict.meshes import MESH_SUFFIXES, write_mesh, write_scene
from utnet.render.drawing import save_picture

_PICTURES = (".jpg", ".jpeg", ".png")
_SUFFIXES = (".json", ".npz", *MESH_SUFFIXES, *_PICTURES)


def save_hand(path: str | Path, hand: Hand, image_rgb: np.ndarray | None) -> None:
    """Writes one hand; see `Hand.save`."""
    path = _checked(path)
    if path.suffix in MESH_SUFFIXES:
        write_mesh(path, hand)
    elif path.suffix == ".json":
        write_json(path, hand.to_dict())
    elif path.suffix == ".npz":
        _write_arrays(path, [hand])
    elif image_rgb is None:
        raise InputError(f"{path}: the picture is missing; pass image_rgb, an (H, W, 3) uint8 array")
    else:
        save_picture(path, hand.draw(image_rgb))


def save_hands(path: str | Path, hands: Hands) -> None:
    """Writes the hands of a picture; see `Hands.save`."""
    path = _checked(path)
    if path.suffix in MESH_SUFFIXES:
        write_scene(path, hands)
    elif path.suffix == ".json":
        with PredictionsFile(path, hands.made_by) as file:
            file.add_image(hands_record(hands))
    elif path.suffix == ".npz":
        _write_arrays(path, hands)
    else:
        save_picture(path, hands.draw())


def hands_record(hands: Hands) -> dict:
    """Returns a picture's record of predictions.json; its `file` is empty for an array."""
    files = {"depth": None, "overlay": None, "arrays": None}
    records = [hand_record(hand) for hand in hands]
    return image_record(hands.file, hands.size_px, hands.K_px, hands.K_from, files, records)


def _write_arrays(path: Path, hands: Sequence[Hand]) -> None:
    rows = HandRows(with_vertices=True)
    rows.add(hands)
    rows.write(path)


def _checked(path: str | Path) -> Path:
    path = Path(path)
    if path.suffix not in _SUFFIXES:
        raise InputError(f"{path}: unknown suffix; expected one of {', '.join(_SUFFIXES)}")
    if not path.parent.is_dir():
        raise InputError(f"{path.parent}: no such folder; make it first")
    return path
