"""What a user gives besides the picture: boxes, a camera, depth. Refused where it cannot be meant."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from utnet.errors import InputError
from utnet.placement import default_intrinsics

REACH_M = (0.1, 10.0)
"""Nearer or farther there is no hand: it is depth in another unit, or something else."""
_SMALLEST_BOX_PX = 4.0


def checked_image(image_rgb: np.ndarray) -> np.ndarray:
    """The picture; ValueError unless it is (H, W, 3) uint8 with at least one pixel."""
    if image_rgb.ndim != 3 or image_rgb.shape[2] != 3 or image_rgb.dtype != np.uint8 or 0 in image_rgb.shape:
        raise ValueError(f"image_rgb is {image_rgb.dtype} of shape {image_rgb.shape}, expected (H, W, 3) uint8")
    return image_rgb


def checked_camera(K_px: np.ndarray, size_px: int) -> np.ndarray:
    """(3, 3) float64 intrinsics; InputError unless they are a camera's, in pixels of a picture of that longer side."""
    K = np.asarray(K_px, float)
    if not (K.shape == (3, 3) and np.isfinite(K).all() and K[0, 0] > 0 and K[1, 1] > 0 and (K[2] == [0, 0, 1]).all()):
        raise InputError(f"K {K.tolist()} is not a camera matrix; give fx,fy,cx,cy in pixels with fx and fy above 0")
    if not 0.1 * size_px < K[0, 0] < 200 * size_px:
        raise InputError(f"K says a focal length of {K[0, 0]:g} px for a picture of {size_px} px; give K in pixels")
    return K


def choose_camera(
    image_rgb: np.ndarray, K_px: np.ndarray | None, exif_K_px: np.ndarray | None = None
) -> tuple[np.ndarray, str]:
    """Intrinsics (3, 3) of a picture, and where they are from: "given", else "exif", else "default".

    Raises:
        InputError: those given cannot be of a picture of that size.
    """
    height, width = image_rgb.shape[:2]
    if K_px is not None:
        return checked_camera(K_px, max(width, height)), "given"
    if exif_K_px is not None:
        return exif_K_px, "exif"
    return default_intrinsics(width, height), "default"


def check_box(box: Sequence[float] | np.ndarray, width: int, height: int) -> None:
    """InputError unless the box x0, y0, x1, y1 can hold a hand of which something is in the picture."""
    corners = np.asarray(box, float)
    if not (
        corners.shape == (4,) and np.isfinite(corners).all() and corners[0] < corners[2] and corners[1] < corners[3]
    ):
        raise InputError(f"box {corners.tolist()} is empty or not finite; give x0,y0,x1,y1 with x0 < x1 and y0 < y1")
    if (corners[2:] - corners[:2] < _SMALLEST_BOX_PX).any() or np.ptp(corners) > 4 * max(width, height):
        raise InputError(f"box {corners.tolist()} cannot hold a hand in an image of {width}x{height} px; give pixels")
    if corners[2] < 0 or corners[3] < 0 or corners[0] >= width or corners[1] >= height:
        raise InputError(f"box {corners.tolist()} lies outside the image of {width}x{height} px")


def checked_depth(depth_m: np.ndarray, image_shape: Sequence[int]) -> np.ndarray:
    """(H, W) float32 with 0 for what is no number; InputError unless it has the picture's size and any reading."""
    depth_m = np.nan_to_num(np.asarray(depth_m, np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    height, width = image_shape[:2]
    if depth_m.shape != (height, width):
        size = "x".join(str(side) for side in depth_m.shape[::-1])
        raise InputError(f"depth is {size}, the image {width}x{height}: give depth aligned to the image")
    if not (depth_m > 0).any():
        raise InputError("depth has no reading at all; leave depth out for this picture")
    return depth_m


def depth_in_reach(depth_m: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(B,) bool: depth in each of the (B, 4) boxes can be a hand's. One without readings passes.

    Raises:
        InputError: none of those with readings can: the unit is wrong. One among others is rather no hand.
    """
    medians = []
    for x0, y0, x1, y1 in np.clip(np.rint(boxes), 0, 1e6).astype(int):
        inside = depth_m[y0 : y1 + 1, x0 : x1 + 1]
        medians.append(float(np.median(inside[inside > 0])) if (inside > 0).any() else np.nan)
    read = np.isfinite(medians)
    in_reach = (np.array(medians) > REACH_M[0]) & (np.array(medians) < REACH_M[1])
    if read.any() and not in_reach.any():
        raise InputError(
            f"depth says that the hand is {np.array(medians)[read][0]:.4g} m away; expected 0.1 to 10 m: "
            "check the unit (--depth-scale multiplies 16-bit images, 0.001 for millimetres; floats and .npy are metres)"
        )
    return in_reach | ~read
