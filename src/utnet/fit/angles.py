"""Rotations of joints as anatomical angles."""

from __future__ import annotations

import numpy as np

from utnet.rotations import axis_angle_to_matrix, matrix_to_axis_angle

_STEPS = 8
_NEGLIGIBLE = 1e-8
"""Step in radians after which a joint's angles are as exact as float64 allows: the steps shrink by 1e6 or more."""
_ONE = np.eye(3)


def angles_to_pose(angles: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """(..., 15, 3) flexion, abduction and twist in radians about given (15, 3, 3) axes -> (..., 15, 3, 3) rotations:
    abduction, then flexion, then twist. The inverse of `pose_to_angles`."""
    turns = axis_angle_to_matrix(axes * angles[..., None])
    return turns[..., 1, :, :] @ turns[..., 0, :, :] @ turns[..., 2, :, :]


def pose_to_angles(hand_pose: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """(..., 15, 3, 3) rotations -> (..., 15, 3) flexion, abduction and twist in radians about given (15, 3, 3) axes,
    such that abduction, then flexion, then twist give the rotation (Newton's method on rotations, from zero)."""
    rotations = hand_pose.reshape(-1, 3, 3)
    about = np.broadcast_to(axes, hand_pose.shape).reshape(-1, 3, 3)
    crosses = np.zeros((*about.shape, 3))  # crosses @ v = axis x v
    for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        crosses[..., j, i], crosses[..., i, j] = about[..., k], -about[..., k]
    twice = crosses @ crosses
    angles = np.zeros((len(rotations), 3))
    left = np.arange(len(angles))  # joints whose last step was not yet negligible
    for _ in range(_STEPS):
        step = _step(rotations[left], about[left], crosses[left], twice[left], angles[left])
        angles[left] += step
        left = left[np.abs(step).max(1) > _NEGLIGIBLE]
        if len(left) == 0:
            break
    return angles.reshape(hand_pose.shape[:-1])


def _step(
    rotations: np.ndarray, axes: np.ndarray, crosses: np.ndarray, twice: np.ndarray, angles: np.ndarray
) -> np.ndarray:
    """(J, 3) Newton's step from (J, 3) angles. `crosses`: (J, 3, 3, 3) matrices of the cross products with the axes;
    `twice`: their squares."""
    a = angles[..., None, None]
    turns = _ONE + np.sin(a) * crosses + (1 - np.cos(a)) * twice  # Rodrigues' formula
    flexion, abduction, twist = turns[:, 0], turns[:, 1], turns[:, 2]
    bent = abduction @ flexion
    columns = np.empty_like(rotations)
    columns[..., 0] = (abduction @ axes[:, 0, :, None])[..., 0]
    columns[..., 1] = axes[:, 1]
    columns[..., 2] = (bent @ axes[:, 2, :, None])[..., 0]
    across = columns.transpose(0, 2, 1)
    missing = _rotation_vectors(rotations @ (bent @ twist).transpose(0, 2, 1))
    # Damped: with the joint bent by 90 degrees abduction and twist turn about the same axis.
    return np.linalg.solve(across @ columns + 1e-6 * _ONE, across @ missing[..., None])[..., 0]


def _rotation_vectors(R: np.ndarray) -> np.ndarray:
    """`matrix_to_axis_angle`, faster where no angle is near pi."""
    double_cosine = R[:, 0, 0] + R[:, 1, 1] + R[:, 2, 2] - 1
    if (double_cosine < -1.9).any():
        return matrix_to_axis_angle(R)
    halves = 0.5 * (R - R.transpose(0, 2, 1))
    sines = np.stack([halves[:, 2, 1], halves[:, 0, 2], halves[:, 1, 0]], 1)
    sine = np.sqrt((sines * sines).sum(1))
    angle = np.arctan2(sine, 0.5 * double_cosine)
    return sines * np.where(sine > 0, angle / np.where(sine > 0, sine, 1.0), 1.0)[:, None]
