"""Decoding of a single open hand in numpy: equal to `utnet.hand.HandModel`, and faster for a batch of one."""

from __future__ import annotations

import numpy as np

from utnet.conventions import MANO21_TO_OPENPOSE
from utnet.hand.arrays import HandArrays
from utnet.synth.scene import PosedHand
from utnet.types import HandParams


class NumpyHand:
    """Linear blend skinning of one hand, float32; equal to `HandModel` within 1e-6 m.

    Args:
        arrays: a hand without pose correctives and mean pose, such as the open hand.

    Raises:
        ValueError: the hand has pose correctives or a mean pose (MANO).
    """

    def __init__(self, arrays: HandArrays):
        if arrays.posedirs is not None or (arrays.pose_mean is not None and np.any(arrays.pose_mean)):
            raise ValueError("hands with pose correctives or a mean pose are not supported here; use HandModel")

        def matrix(dirs: np.ndarray) -> np.ndarray:
            return np.ascontiguousarray(dirs.reshape(-1, dirs.shape[-1]), np.float32)

        # Vertices are stored by coordinate: (3, V).
        self._vertices, self._shape = arrays.v_template.T.astype(np.float32), matrix(arrays.shapedirs.swapaxes(0, 1))
        self._joints, self._joint_shape = arrays.J_template.astype(np.float32), matrix(arrays.J_shapedirs)
        self._weights = np.ascontiguousarray(arrays.weights.T, np.float32)
        self._tips, self._to_openpose = arrays.tip_vertices, np.array(MANO21_TO_OPENPOSE)

    def __call__(self, params: HandParams) -> PosedHand:
        """Decodes the parameters of one hand (numpy, no batch axis) in the camera frame."""
        betas = params.betas.astype(np.float32)
        R, joints, rest = self._kinematics(params, betas)
        to = np.concatenate([R, (joints - (R @ rest[..., None])[..., 0])[..., None]], 2)  # [R | t] of every joint
        blended = (to.reshape(16, 12).T @ self._weights).reshape(3, 4, -1)
        shaped = self._vertices + (self._shape @ betas).reshape(3, -1)
        moved = (blended[:, :3] * shaped).sum(1) + blended[:, 3]
        vertices = np.ascontiguousarray(moved.T) + params.transl_m.astype(np.float32)
        joints = joints + params.transl_m.astype(np.float32)
        return PosedHand(vertices, np.concatenate([joints, vertices[self._tips]])[self._to_openpose], R[0])

    def _kinematics(self, params: HandParams, betas: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(16, 3, 3) rotations of the joints in the camera, (16, 3) joints before translation, and at rest."""
        rest = self._joints + (self._joint_shape @ betas).reshape(-1, 3)
        local = params.hand_pose.astype(np.float32).reshape(5, 3, 3, 3)  # MANO's joints 1-15 are five chains of three
        fingers = rest[1:].reshape(5, 3, 3)
        R, joints = np.empty((16, 3, 3), np.float32), np.empty((16, 3), np.float32)
        R[0], joints[0] = params.global_orient[0], rest[0]
        turn, at, before = R[0], rest[0], rest[0]
        for level in range(3):
            at = at + (turn @ (fingers[:, level] - before)[..., None])[..., 0]
            turn, before = turn @ local[:, level], fingers[:, level]
            R[1 + level :: 3], joints[1 + level :: 3] = turn, at
        return R, joints, rest
