"""Registration of depth images to the pixels of the colour picture."""

from __future__ import annotations

import numpy as np

from utnet.compiled import njit
from utnet.errors import InputError

_SAME_SURFACE = np.float32(0.03)
"""Neighbouring readings that differ by more than this fraction of their distance belong to different surfaces."""
_ASPECT = 0.02


def resample_depth(depth_m: np.ndarray, size_px: tuple[int, int]) -> np.ndarray:
    """Resizes depth that covers the same view as the picture.

    A pixel is interpolated between its four neighbours where all of them are valid and of one surface; elsewhere it is
    the nearest reading, so no distances between two surfaces are made up, and holes stay holes.

    Args:
        depth_m: (h, w) float32, 0 where there is no reading.
        size_px: width and height of the picture.

    Returns:
        (H, W) float32.

    Raises:
        InputError: the aspect ratio differs, so the view is not the same.
    """
    height, width = depth_m.shape
    if (width, height) == size_px:
        return depth_m
    if abs(width * size_px[1] / (height * size_px[0]) - 1) > _ASPECT:
        raise InputError(
            f"depth of {width}x{height} has another aspect ratio than the picture of {size_px[0]}x{size_px[1]}; "
            "give depth aligned to the picture, or a recording with the depth camera's calibration"
        )
    out = np.empty(size_px[::-1], np.float32)
    _resample(np.ascontiguousarray(depth_m, np.float32), out)
    return out


def register_depth(
    depth_m: np.ndarray, K_depth: np.ndarray, T_color_depth: np.ndarray, K_color: np.ndarray, size_px: tuple[int, int]
) -> np.ndarray:
    """Moves the readings of a depth camera into the colour camera's picture.

    Every reading becomes a rectangle of the size that its pixel has in the colour picture; where several surfaces meet
    in a pixel, the nearest one is kept (the others are hidden from the colour camera).

    Args:
        depth_m: (h, w) float32 metres along the depth camera's axis, 0 where there is no reading.
        K_depth: (3, 3) of the depth camera.
        T_color_depth: (4, 4) p_color = T p_depth, metres.
        K_color: (3, 3) of the colour camera.
        size_px: width and height of the colour picture.

    Returns:
        (H, W) float32 metres along the colour camera's axis, 0 where there is no reading.
    """
    M = K_color @ T_color_depth[:3, :3] @ np.linalg.inv(K_depth)
    out = np.zeros(size_px[::-1], np.float32)
    _register(np.ascontiguousarray(depth_m, np.float32), M, K_color @ T_color_depth[:3, 3], out)
    return out


@njit()
def _resample(depth, out):
    h, w = depth.shape
    height, width = out.shape
    sy, sx = h / height, w / width
    for row in range(height):
        y = (row + 0.5) * sy - 0.5
        y0 = min(max(int(np.floor(y)), 0), h - 1)
        y1, fy = min(y0 + 1, h - 1), np.float32(min(max(y - y0, 0.0), 1.0))
        near_y = y1 if fy > 0.5 else y0
        for column in range(width):
            x = (column + 0.5) * sx - 0.5
            x0 = min(max(int(np.floor(x)), 0), w - 1)
            x1, fx = min(x0 + 1, w - 1), np.float32(min(max(x - x0, 0.0), 1.0))
            a, b, c, d = depth[y0, x0], depth[y0, x1], depth[y1, x0], depth[y1, x1]
            low, high = min(min(a, b), min(c, d)), max(max(a, b), max(c, d))
            if low > 0 and high - low < _SAME_SURFACE * low:
                top, bottom = a + fx * (b - a), c + fx * (d - c)
                out[row, column] = top + fy * (bottom - top)
            else:
                out[row, column] = depth[near_y, x1 if fx > 0.5 else x0]


@njit()
def _register(depth, M, t, out):
    h, w = depth.shape
    height, width = out.shape
    for v in range(h):
        for u in range(w):
            z = np.float64(depth[v, u])
            if z <= 0:
                continue
            at_z = (M[2, 0] * u + M[2, 1] * v + M[2, 2]) * z + t[2]
            if at_z <= 0:
                continue
            x = ((M[0, 0] * u + M[0, 1] * v + M[0, 2]) * z + t[0]) / at_z
            y = ((M[1, 0] * u + M[1, 1] * v + M[1, 2]) * z + t[1]) / at_z
            # Half the size of the pixel there; negative if the cameras are rotated against each other.
            dx = 0.5 * z * (abs(M[0, 0] - x * M[2, 0]) + abs(M[0, 1] - x * M[2, 1])) / at_z
            dy = 0.5 * z * (abs(M[1, 0] - y * M[2, 0]) + abs(M[1, 1] - y * M[2, 1])) / at_z
            left, right = max(int(np.ceil(x - dx)), 0), min(int(np.ceil(x + dx)), width)
            top, bottom = max(int(np.ceil(y - dy)), 0), min(int(np.ceil(y + dy)), height)
            for row in range(top, bottom):
                for column in range(left, right):
                    if out[row, column] == 0 or at_z < out[row, column]:
                        out[row, column] = at_z
