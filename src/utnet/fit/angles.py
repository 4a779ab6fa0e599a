"""Rotations of joints as anatomical angles."""

from __future__ import annotations

import numpy as np

from utnet.rotations import axis_angle_to_matrix, matrix_to_axis_angle

_STEPS = 8
_NEGLIGIBLE = 1e-8
"""Step in radians after which a joint's angles are as exact as float64 allows: the steps shrink by 1e6 or more."""


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
    angles = np.zeros((len(rotations), 3))
    left = np.arange(len(angles))  # joints whose last step was not yet negligible
    for _ in range(_STEPS):
        step = _step(rotations[left], about[left], angles[left])
        angles[left] += step
        left = left[np.abs(step).max(1) > _NEGLIGIBLE]
        if len(left) == 0:
            break
    return angles.reshape(hand_pose.shape[:-1])


def _step(rotations: np.ndarray, axes: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """(J, 3) Newton's step from (J, 3) angles."""
    flexion, abduction, twist = axis_angle_to_matrix(axes * angles[..., None]).transpose(1, 0, 2, 3)
    bent = abduction @ flexion
    columns = np.stack(
        [(abduction @ axes[:, 0, :, None])[..., 0], axes[:, 1], (bent @ axes[:, 2, :, None])[..., 0]], -1
    )
    missing = matrix_to_axis_angle(rotations @ (bent @ twist).transpose(0, 2, 1))
    # Damped: with the joint bent by 90 degrees abduction and twist turn about the same axis.
    square = columns.transpose(0, 2, 1) @ columns + 1e-6 * np.eye(3)
    return np.linalg.solve(square, columns.transpose(0, 2, 1) @ missing[..., None])[..., 0]
