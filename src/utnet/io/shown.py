"""Display of decoded frames as in players: rotation, mirroring, square pixels, one size."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import cv2
import numpy as np

_SQUARE = 0.01
"""Tolerance of the pixel aspect ratio: pixels closer to square than this are square."""


def display_matrix(frame: Any) -> np.ndarray | None:
    """Upper (2, 2) of a frame's display matrix (ISO/IEC 14496-12, 6.2.2), or None.

    Displayed (x, y) = stored (x, y) @ matrix.
    """
    for data in frame.side_data:
        if data.type.name == "DISPLAYMATRIX":
            numbers = np.frombuffer(bytes(data), np.int32).reshape(3, 3)
            return numbers[:2, :2] / 65536.0
    return None


def as_shown(rgb: np.ndarray, matrix: np.ndarray | None) -> np.ndarray:
    """Rotates (to the nearest multiple of 90 degrees) and mirrors a picture by its display matrix."""
    if matrix is None or not np.abs(matrix).any():
        return rgb
    if np.abs(np.diag(matrix)).sum() >= np.abs(np.diag(matrix[::-1])).sum():
        right, down = matrix[0, 0], matrix[1, 1]
    else:  # stored rows are displayed as columns
        rgb = rgb.swapaxes(0, 1)
        right, down = matrix[1, 0], matrix[0, 1]
    rgb = rgb[:, ::-1] if right < 0 else rgb
    rgb = rgb[::-1] if down < 0 else rgb
    return np.ascontiguousarray(rgb)


def square_pixels(rgb: np.ndarray, aspect: Fraction | None) -> np.ndarray:
    """Stretches a picture of pixel aspect ratio `aspect` (width / height) to square pixels; no side shrinks."""
    if not aspect or abs(float(aspect) - 1) < _SQUARE:
        return rgb
    height, width = rgb.shape[:2]
    size = (round(width * aspect), height) if aspect > 1 else (width, round(height / aspect))
    return cv2.resize(rgb, size, interpolation=cv2.INTER_LINEAR)


def fitted_into(rgb: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Resizes a picture to fit into `shape` (height, width), centred on black."""
    height, width = shape
    scale = min(height / rgb.shape[0], width / rgb.shape[1])
    w, h = min(width, round(rgb.shape[1] * scale)), min(height, round(rgb.shape[0] * scale))
    out = np.zeros((height, width, 3), np.uint8)
    top, left = (height - h) // 2, (width - w) // 2
    out[top : top + h, left : left + w] = cv2.resize(rgb, (w, h), interpolation=cv2.INTER_AREA)
    return out
