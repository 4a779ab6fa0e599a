"""Pictures passed to the predictor: one, or several with their cameras and depth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from utnet.detect import Detection
from utnet.errors import InputError
from utnet.predict.checks import CameraInput, ImageInput, checked_depth, choose_camera, depth_in_reach, open_image

_MOST_HANDS = 256
"""Largest number of hands of one picture; they are reconstructed together, with 2 MB each."""


@dataclass(frozen=True)
class View:
    """A picture with its camera and depth.

    Attributes:
        rgb: (H, W, 3) uint8.
        K_px: (3, 3) intrinsics.
        K_from: "given", "exif" or "default".
        depth_m: (H, W) float32 metres, 0 where there is no reading; None without depth.
        file: the picture's file; None for arrays.
    """

    rgb: np.ndarray
    K_px: np.ndarray
    K_from: str
    depth_m: np.ndarray | None = None
    file: Path | None = None

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height."""
        return self.rgb.shape[1], self.rgb.shape[0]

    def depth_of(self, detections: Sequence[Detection]) -> list[np.ndarray | None]:
        """Returns the depth for each detection; None for those whose distance is implausible, unless all are.

        Raises:
            InputError: all distances are implausible.
        """
        if self.depth_m is None or not detections:
            return [None] * len(detections)
        in_reach = depth_in_reach(self.depth_m, np.array([detection.box_px for detection in detections]))
        return [self.depth_m if ok else None for ok in in_reach]


def open_view(image: ImageInput, K_px: CameraInput | None, depth_m: np.ndarray | None) -> View:
    """Returns a picture with the given camera, else its own (EXIF), else the default.

    Raises:
        InputError: see `Predictor.__call__`.
    """
    picture = open_image(image)
    if depth_m is not None and picture.turned:
        raise InputError("this picture is rotated by its EXIF data, unlike its depth image; save it upright first")
    K, K_from = choose_camera(picture.rgb, K_px, picture.K_px)
    depth = None if depth_m is None else checked_depth(depth_m, picture.rgb.shape)
    return View(picture.rgb, K, K_from, depth, Path(image) if isinstance(image, str | Path) else None)


def for_hands(name: str, value: Any) -> Any:
    """Returns an argument with an entry for each hand.

    Raises:
        InputError: neither a list, a tuple nor an array of several entries, or more than `_MOST_HANDS`.
    """
    if not (isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim > 0)):
        raise InputError(f"{name} is a {type(value).__name__}; give a list with one for each hand")
    if len(value) > _MOST_HANDS:
        raise InputError(f"{name} of {len(value)} hands; give at most {_MOST_HANDS} for one picture")
    return value


def for_each(name: str, value: Any, num: int) -> list[Any]:
    """Returns an argument's entry for each of several pictures.

    Args:
        name: the argument, for the message.
        value: None for all, or a sequence with an entry (or None) for each.
        num: number of pictures.

    Raises:
        InputError: not a list, or of another length.
    """
    if value is None:
        return [None] * num
    if not isinstance(value, list | tuple):
        raise InputError(f"{name} is a {type(value).__name__} for a list of pictures; give a list with one for each")
    if len(value) != num:
        raise InputError(f"{name} has {len(value)} entries for {num} pictures; give one (or None) for each")
    return list(value)
