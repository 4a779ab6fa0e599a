"""Rotations: matrices, rotation vectors (axis-angle) and 6D. Works on numpy arrays and torch tensors alike.

Matrices are used inside; every conversion is named `a_to_b`, and roma does it or tests it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch


def rotation_6d_to_matrix(six: torch.Tensor) -> torch.Tensor:
    """(..., 6) first and second column -> (..., 3, 3), by Gram-Schmidt (Zhou et al. 2019; WiLoR's layout)."""
    import roma  # takes a second

    return roma.special_gramschmidt(six.unflatten(-1, (2, 3)).transpose(-1, -2))


def matrix_to_rotation_6d(R: torch.Tensor) -> torch.Tensor:
    """(..., 3, 3) -> (..., 6), the first and second column."""
    return R[..., :2].transpose(-1, -2).flatten(-2)


def rotation_to_z(direction: np.ndarray) -> np.ndarray:
    """(..., 3) unit vectors with z > -1 -> (..., 3, 3) the smallest rotation that takes each to the z axis, numpy."""
    x, y, z = np.moveaxis(direction, -1, 0)
    k = 1 / (1 + z)
    rows = (1 - k * x * x, -k * x * y, -x), (-k * x * y, 1 - k * y * y, -y), (x, y, z)
    return np.stack([np.stack(row, -1) for row in rows], -2)


def axis_angle_to_matrix(axis_angle: Any) -> Any:
    """(..., 3) rotation vectors in radians -> (..., 3, 3). Numpy in, numpy out.

    Longer than 1e18 (float32) or 1e150 (float64) they give NaN, which labels and losses refuse.

    The numpy version (used for every label read) is ten times faster than roma for one hand.
    """
    if isinstance(axis_angle, np.ndarray):
        return _rodrigues(axis_angle)
    import roma

    return roma.rotvec_to_rotmat(axis_angle)


def _rodrigues(axis_angle: np.ndarray) -> np.ndarray:
    """R = cos I + sin/angle [v] + (1 - cos)/angle^2 v v^T (Rodrigues), in the input's dtype, finite at 0."""
    x, y, z = (axis_angle[..., i] for i in range(3))
    squared = x * x + y * y + z * z
    half = 0.5 * np.sqrt(squared)
    half_sinc = np.sinc(half / np.pi)  # sin(half) / half, 1 at 0
    a, b = half_sinc * np.cos(half), 0.5 * half_sinc * half_sinc  # sin(angle) / angle, (1 - cos(angle)) / angle^2
    R = b[..., None, None] * (axis_angle[..., :, None] * axis_angle[..., None, :])
    cos = 1 - b * squared
    for i, j, s in ((2, 1, a * x), (0, 2, a * y), (1, 0, a * z)):
        R[..., i, j] += s
        R[..., j, i] -= s
    for i in range(3):
        R[..., i, i] += cos
    return R


def matrix_to_quaternion(R: np.ndarray) -> np.ndarray:
    """(..., 3, 3) -> (..., 4) unit quaternions x, y, z, w, numpy. The larger of w and the axis' parts decides the sign.

    The four products of a component with all are read off the matrix, and the longest row is taken (Shepperd 1978).
    """
    (a, b, c), (d, e, f), (g, h, i) = np.moveaxis(R, (-2, -1), (0, 1))
    products = np.empty((*R.shape[:-2], 4, 4), R.dtype)
    for k, value in enumerate((1 + a - e - i, 1 - a + e - i, 1 - a - e + i, 1 + a + e + i)):
        products[..., k, k] = value
    for k, m, value in ((0, 1, b + d), (0, 2, c + g), (1, 2, f + h), (0, 3, h - f), (1, 3, c - g), (2, 3, d - b)):
        products[..., k, m] = products[..., m, k] = value
    largest = np.argmax(np.diagonal(products, axis1=-2, axis2=-1), -1)
    q = np.take_along_axis(products, largest[..., None, None], -2)[..., 0, :]
    return q / np.linalg.norm(q, axis=-1, keepdims=True)


def matrix_to_axis_angle(R: Any) -> Any:
    """(..., 3, 3) -> (..., 3) rotation vectors in radians, angle in [0, pi]. Numpy in, numpy out.

    The numpy version equals roma's, which needs torch.
    """
    if isinstance(R, np.ndarray):
        return _rotation_vectors(R)
    import roma

    return roma.rotmat_to_rotvec(R)


def _rotation_vectors(R: np.ndarray) -> np.ndarray:
    """By `matrix_to_quaternion`, which is exact at 0 and near pi."""
    q = matrix_to_quaternion(R)
    q = np.where(q[..., 3:] < 0, -q, q)
    sine = np.linalg.norm(q[..., :3], axis=-1, keepdims=True)
    half = np.arctan2(sine, q[..., 3:])
    scale = np.divide(2 * half, sine, out=np.full_like(sine, 2.0), where=sine > 0)
    return q[..., :3] * scale


def quaternion_to_matrix(xyzw: np.ndarray) -> np.ndarray:
    """(4,) x, y, z, w of any length above 0 -> (3, 3), numpy."""
    x, y, z, w = np.asarray(xyzw, float) / np.linalg.norm(xyzw)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
