"""Validation of the predictor's arguments: pictures, boxes, cameras, depth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from utnet.errors import InputError, shown
from utnet.geometry import intrinsics
from utnet.io.pictures import Picture, picture_from_pil, read_picture
from utnet.placement import default_intrinsics

ImageInput: TypeAlias = str | Path | np.ndarray | Picture | Image.Image
"""A picture: a file, (H, W, 3) uint8 RGB, a `Picture` or a Pillow image."""
CameraInput: TypeAlias = np.ndarray | Sequence[float] | Sequence[Sequence[float]]
"""Intrinsics in pixels: 3 x 3, or fx, fy, cx, cy."""
_IMAGE_KINDS = "a path, an (H, W, 3) uint8 RGB array, a Picture, a PIL image, or a list of these"
REACH_M = (0.1, 10.0)
"""Range of a hand's distance; depth outside is in another unit or not of the hand."""
_SMALLEST_BOX_PX, _LARGEST_BOX = 4.0, 4
"""Smallest side of a box in pixels, and largest extent as a multiple of the picture's longer side."""
_FOCAL, _FARTHEST_CENTRE = (0.1, 200), 100
"""Limits of focal length and principal point, as multiples of the picture's longer side."""


def open_image(image: ImageInput) -> Picture:
    """Converts any `ImageInput` to a picture.

    Raises:
        InputError: a file that cannot be read, an array that is not (H, W, 3) uint8, or not a picture.
    """
    if isinstance(image, str | Path):
        return read_picture(image)
    if isinstance(image, Image.Image):
        return picture_from_pil(image)
    picture = image if isinstance(image, Picture) else Picture(image, None)
    rgb = picture.rgb
    if not isinstance(rgb, np.ndarray):
        raise InputError(f"image is a {type(rgb).__name__}, expected {_IMAGE_KINDS}")
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or 0 in rgb.shape:
        raise InputError(f"image is {rgb.dtype} of shape {rgb.shape}, expected (H, W, 3) uint8 RGB, 0 to 255")
    return picture


def as_numbers(name: str, value: Any) -> np.ndarray:
    """Returns numbers as an array of float64.

    Raises:
        InputError: text, complex numbers, rows of several lengths, or other objects.
    """
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "biufO":
            raise TypeError(array.dtype)
        return array.astype(float)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{name} are not numbers: {shown(value)}") from error


def is_camera(K_px: Any) -> bool:
    """Whether a value has the form of one camera: 3 x 3 or (fx, fy, cx, cy)."""
    try:
        return as_numbers("K", K_px).shape in ((3, 3), (4,))
    except InputError:
        return False


def checked_camera(K_px: CameraInput, size_px: int) -> np.ndarray:
    """Returns intrinsics as (3, 3) float64.

    Args:
        K_px: (3, 3), or fx, fy, cx, cy, in pixels.
        size_px: longer side of the picture.

    Raises:
        InputError: neither, or implausible for a picture of that size.
    """
    if not is_camera(K_px):
        raise InputError("K is not a camera; give a 3 x 3 matrix or (fx, fy, cx, cy) in pixels")
    K = np.asarray(K_px, float)
    if K.shape == (4,):
        K = intrinsics(*K)
    if not (np.isfinite(K).all() and K[0, 0] > 0 and K[1, 1] > 0 and (K[2] == [0, 0, 1]).all()):
        raise InputError(f"K {K.tolist()} is not a camera matrix; give fx,fy,cx,cy in pixels with fx and fy above 0")
    for focal in (K[0, 0], K[1, 1]):
        if not _FOCAL[0] * size_px < focal < _FOCAL[1] * size_px:
            raise InputError(f"K has a focal length of {focal:g} px for a picture of {size_px} px; give K in pixels")
    skewed = max(abs(K[0, 1]), abs(K[1, 0])) > K[0, 0]  # the camera of a turned crop has a little in both
    if np.abs(K[:2, 2]).max() > _FARTHEST_CENTRE * size_px or skewed:
        raise InputError(f"K {K.tolist()} does not belong to a picture of {size_px} px; give fx,fy,cx,cy in its pixels")
    return K


def choose_camera(
    image_rgb: np.ndarray, K_px: CameraInput | None, exif_K_px: np.ndarray | None = None
) -> tuple[np.ndarray, str]:
    """Returns the intrinsics (3, 3) of a picture and their source: "given", else "exif", else "default".

    Raises:
        InputError: the given ones are not plausible for a picture of that size.
    """
    height, width = image_rgb.shape[:2]
    if K_px is not None:
        return checked_camera(K_px, max(width, height)), "given"
    if exif_K_px is not None:
        return exif_K_px, "exif"
    return default_intrinsics(width, height), "default"


def check_box(box: Sequence[float] | np.ndarray, width: int, height: int) -> None:
    """Raises InputError unless x0, y0, x1, y1 is large enough for a hand and overlaps the picture."""
    corners = as_numbers("corners of a box", box)
    if not (
        corners.shape == (4,) and np.isfinite(corners).all() and corners[0] < corners[2] and corners[1] < corners[3]
    ):
        raise InputError(f"box {corners.tolist()} is empty or not finite; give x0,y0,x1,y1 with x0 < x1 and y0 < y1")
    if (corners[2:] - corners[:2] < _SMALLEST_BOX_PX).any():
        raise InputError(f"box {corners.tolist()} is too small for a hand in {width}x{height} px; give pixels")
    if corners[2] < 0 or corners[3] < 0 or corners[0] >= width or corners[1] >= height:
        raise InputError(f"box {corners.tolist()} lies outside the image of {width}x{height} px")
    if np.ptp(corners) > _LARGEST_BOX * max(width, height):
        raise InputError(f"box {corners.tolist()} is too large for a hand in {width}x{height} px; give pixels")


def checked_depth(depth_m: np.ndarray, image_shape: Sequence[int]) -> np.ndarray:
    """Returns depth as (H, W) float32 at the size of the image, 0 for NaN and inf.

    Raises:
        InputError: depth has another aspect ratio or no reading, or is not numeric.
    """
    if not isinstance(depth_m, np.ndarray) or depth_m.dtype.kind not in "iuf":
        kind = depth_m.dtype if isinstance(depth_m, np.ndarray) else type(depth_m).__name__
        raise InputError(f"depth is {kind}; expected an array (H, W) of metres")
    if depth_m.ndim != 2 or 0 in depth_m.shape:
        raise InputError(f"depth has the shape {depth_m.shape}; expected (H, W) metres")
    with np.errstate(over="ignore"):
        depth_m = np.nan_to_num(depth_m.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    from utnet.io.recordings.alignment import resample_depth

    depth_m = resample_depth(depth_m, (image_shape[1], image_shape[0]))
    if not (depth_m > 0).any():
        raise InputError("depth has no reading at all; leave depth out for this picture")
    return depth_m


def depth_in_reach(depth_m: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Returns (B,) bool: whether the median depth in each of the (B, 4) boxes is within `REACH_M`, or missing.

    Raises:
        InputError: no box with readings is within reach, so the unit is wrong.
    """
    medians = []
    for x0, y0, x1, y1 in np.clip(np.rint(boxes), 0, 1e6).astype(int):
        inside = depth_m[y0 : y1 + 1, x0 : x1 + 1]
        medians.append(float(np.median(inside[inside > 0])) if (inside > 0).any() else np.nan)
    read = np.isfinite(medians)
    in_reach = (np.array(medians) > REACH_M[0]) & (np.array(medians) < REACH_M[1])
    if read.any() and not in_reach.any():
        raise InputError(
            f"depth of the hand is {np.array(medians)[read][0]:.4g} m; expected 0.1 to 10 m: "
            "check the unit (--depth-scale; files: integers are millimetres, floats metres; arrays: metres)"
        )
    return in_reach | ~read
