"""Predictions as a data set to train on or to correct: the folder of docs/custom_data.md, without depth."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from utnet.errors import InputError
from utnet.io.atomic import atomic_dir
from utnet.predict.formats import PredictedFrame
from utnet.predict.hand import Hand
from utnet.render.drawing import save_picture
from utnet.rotations import matrix_to_axis_angle
from utnet.types import Sample

_IMAGES, _FILE = "images", "hands.jsonl"


@contextmanager
def open_writer(path: Path) -> Iterator[CustomWriter]:
    """Opens the folder, which appears complete at the end of the block.

    Raises:
        InputError: it exists. It is never replaced, since its labels may have been corrected manually.
    """
    if path.is_dir() and any(path.iterdir()):
        raise InputError(f"{path}: a data set, perhaps corrected since, is not overwritten; move or remove it first")
    with atomic_dir(path) as folder:
        (folder / _IMAGES).mkdir()
        with (folder / _FILE).open("w", encoding="utf-8") as file:
            yield CustomWriter(folder, file)


class CustomWriter:
    """Writes pictures as JPEG, and a line for each detected hand, to an open folder."""

    def __init__(self, folder: Path, file: Any):
        self._folder, self._file, self._num = folder, file, 0

    def add(self, frame: PredictedFrame) -> None:
        """Appends a picture with its hands; pictures without hands are skipped.

        Raises:
            InputError: the picture is missing.
        """
        seen = [hand for hand in frame.hands if hand.valid]
        if not seen:
            return
        if frame.read_rgb is None:
            raise InputError(f"{frame.file}: its picture is not available; predict it with --also custom")
        image = f"{_IMAGES}/{self._num:06d}.jpg"
        self._num += 1
        save_picture(self._folder / image, frame.read_rgb())
        sequence = frame.file if frame.is_video else Path(frame.file).parent.name
        for hand in seen:
            line = {"image": image, **custom_line(hand), "sequence": sequence or "pictures"}
            self._file.write(json.dumps(line) + "\n")


def custom_line(hand: Hand | Sample) -> dict[str, Any]:
    """Returns the labels of a hand with parameters and camera under the keys of docs/custom_data.md, without picture,
    sequence and split."""
    params = hand.params
    assert params is not None
    numbers = {
        "global_orient": matrix_to_axis_angle(params.global_orient)[0],
        "hand_pose": matrix_to_axis_angle(params.hand_pose).ravel(),
        "betas": params.betas,
        "transl": params.transl_m,
    }
    return {
        "side": hand.side,
        "K": np.asarray(hand.K_px, float).tolist(),
        "joints_3d": np.round(hand.joints_cam_m, 6).tolist(),
        "params": {name: np.round(np.asarray(value, float), 7).tolist() for name, value in numbers.items()},
        "hand_model": hand.hand_model,
        "box": np.round(np.asarray(hand.box_px, float), 2).tolist(),
    }
