"""Depth images of sensors, in metres."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from utnet.errors import InputError
from utnet.io.limits import check_megapixels
from utnet.io.npy import map_npy
from utnet.io.pictures import open_image

DEPTH_SUFFIXES = (".png", ".tif", ".tiff", ".npy")


def read_depth(path: str | Path, scale: float = 0.001) -> np.ndarray:
    """(H, W) float32 metres along z, 0 where there is no reading.

    Args:
        path: a PNG or TIFF with one channel of 16 bits (`scale` metres a step), or a TIFF of floats or a .npy file (in
            metres; what is not finite counts as no reading).
        scale: metres a step of whole numbers; 0.001 is millimetres.

    Raises:
        InputError: no such file, not a depth image, or a negative distance.
    """
    path = Path(path)
    if not scale > 0:
        raise InputError(f"--depth-scale is {scale}; expected metres a step, such as 0.001 for millimetres")
    depth = _read_npy(path) if path.suffix.lower() == ".npy" else _read_image(path, scale)
    depth = np.nan_to_num(depth, nan=0.0, posinf=0.0, neginf=0.0)
    if (depth < 0).any():
        raise InputError(f"{path}: holds distances below 0; expected metres along the camera's axis, 0 for no reading")
    return depth


def _read_npy(path: Path) -> np.ndarray:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    depth = map_npy(path)  # the header alone
    if depth.ndim != 2 or depth.dtype.kind not in "fiu":
        raise InputError(f"{path}: expected one array of (H, W) numbers in metres")
    check_megapixels(path, depth.shape[1], depth.shape[0])
    return np.array(depth, np.float32)


def _read_image(path: Path, scale: float) -> np.ndarray:
    with open_image(path) as image:
        if image.mode == "F":
            return np.array(image)
        if image.mode == "I" or image.mode.startswith("I;16"):
            return np.asarray(image).astype(np.float32) * np.float32(scale)
        raise InputError(f"{path}: a picture of colours ({image.mode}); expected one channel of 16 bits, or floats")
