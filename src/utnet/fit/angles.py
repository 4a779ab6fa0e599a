"""Rotations of joints as anatomical angles."""

from __future__ import annotations

import numpy as np

from utnet.rotations import axis_angle_to_matrix, matrix_to_axis_angle

_STEPS = 8


def angles_to_pose(angles: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """(..., 15, 3) flexion, abduction and twist in radians about given (15, 3, 3) axes -> (..., 15, 3, 3) rotations:
    abduction, then flexion, then twist. The inverse of `pose_to_angles`."""
    turns = axis_angle_to_matrix(axes * angles[..., None])
    return turns[..., 1, :, :] @ turns[..., 0, :, :] @ turns[..., 2, :, :]


def pose_to_angles(hand_pose: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """(15, 3, 3) rotations -> (15, 3) flexion, abduction and twist in radians about given (15, 3, 3) axes, such that
    abduction, then flexion, then twist give the rotation (Newton's method on rotations, from zero)."""
    angles = np.zeros(hand_pose.shape[:2])
    for _ in range(_STEPS):
        flexion, abduction, twist = axis_angle_to_matrix(axes * angles[..., None]).transpose(1, 0, 2, 3)
        columns = np.stack(
            [
                np.einsum("jab,jb->ja", abduction, axes[:, 0]),
                axes[:, 1],
                np.einsum("jab,jb->ja", abduction @ flexion, axes[:, 2]),
            ],
            -1,
        )
        left = matrix_to_axis_angle(hand_pose @ (abduction @ flexion @ twist).transpose(0, 2, 1))
        # Damped: with the joint bent by 90 degrees abduction and twist turn about the same axis.
        square = columns.transpose(0, 2, 1) @ columns + 1e-6 * np.eye(3)
        angles = angles + np.linalg.solve(square, columns.transpose(0, 2, 1) @ left[..., None])[..., 0]
    return angles
