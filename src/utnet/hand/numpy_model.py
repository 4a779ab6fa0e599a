"""`NumpyHandModel`: what predictions are decoded by; equal to `utnet.hand.HandModel`, without torch and gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np

from utnet.conventions import MANO21_TO_OPENPOSE, NUM_BETAS, NUM_MANO_JOINTS, SIDES
from utnet.hand.arrays import HandArrays, load_open_hand
from utnet.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from utnet.types import HandMesh, HandParams, check_shape

_TO_OPENPOSE = np.array(MANO21_TO_OPENPOSE)
_FINGERS = (5, 3)
"""MANO's joints 1 to 15 are five chains of three from the root."""


class AnyHandModel(Protocol):
    """What `HandModel` and `NumpyHandModel` have in common: a hand by its arrays."""

    side: str
    name: str

    @property
    def arrays(self) -> HandArrays: ...


class NumpyHandModel:
    """(global_orient, hand_pose, betas) -> vertices, 16 joints, 21 keypoints, by linear blend skinning in numpy.

    Equal to `HandModel` within 1e-6 m, for both models, with and without pose correctives and mean pose.

    Args:
        arrays: the hand.
        side: "right" or "left".
        name: "open" or "mano".
        dtype: of the computation, float32 or float64.

    Attributes:
        arrays: the hand.
        faces: (F, 3) int64, counter-clockwise seen from outside.
        num_vertices: number of vertices V.
    """

    def __init__(self, arrays: HandArrays, *, side: str = "right", name: str = "open", dtype=np.float32):
        if side not in SIDES:
            raise ValueError(f"side is {side!r}, expected 'right' or 'left'")
        self.arrays, self.side, self.name, self.dtype = arrays, side, name, np.dtype(dtype)
        self.faces, self.num_vertices = np.asarray(arrays.faces, np.int64), len(arrays.v_template)

        def rows(offsets: np.ndarray) -> np.ndarray:
            """(N, 3, C) offsets -> (C, 3 N): all x, all y, all z."""
            return np.ascontiguousarray(offsets.transpose(2, 1, 0).reshape(offsets.shape[2], -1), self.dtype)

        self._template = np.ascontiguousarray(arrays.v_template.T, self.dtype)
        self._dirs = rows(arrays.shapedirs)
        self._pose_dirs = None if arrays.posedirs is None else rows(arrays.posedirs)
        self._weights = np.ascontiguousarray(arrays.weights.T, self.dtype)
        self._joints = np.asarray(arrays.J_template, self.dtype)
        self._joint_dirs = np.ascontiguousarray(
            arrays.J_shapedirs.transpose(2, 0, 1).reshape(arrays.J_shapedirs.shape[2], -1), self.dtype
        )
        has_mean = arrays.pose_mean is not None and np.any(arrays.pose_mean)
        self._mean = np.asarray(arrays.pose_mean, self.dtype).reshape(15, 3) if has_mean else None

    @classmethod
    def open(cls, side: str = "right") -> NumpyHandModel:
        """The bundled open hand, as `HandModel.open`."""
        arrays = load_open_hand()
        return cls(arrays.mirrored() if side == "left" else arrays, side=side)

    @classmethod
    def from_mano(
        cls, path: str | Path, *, side: str = "right", flat_hand_mean: bool = True, tips: str = "smplx"
    ) -> NumpyHandModel:
        """Loads a MANO file; arguments and errors as of `HandModel.from_mano`."""
        from utnet.hand.mano import load_mano

        return cls(load_mano(path, side=side, flat_hand_mean=flat_hand_mean, tips=tips), side=side, name="mano")

    @classmethod
    def of(cls, hand: AnyHandModel, *, dtype=np.float32) -> NumpyHandModel:
        """The same hand as another model's."""
        return cls(hand.arrays, side=hand.side, name=hand.name, dtype=dtype)

    def mirrored(self) -> NumpyHandModel:
        """Returns the other hand, as `HandModel.mirrored`."""
        other = "left" if self.side == "right" else "right"
        return NumpyHandModel(self.arrays.mirrored(), side=other, name=self.name, dtype=self.dtype)

    def __call__(self, global_orient: np.ndarray, hand_pose: np.ndarray, betas: np.ndarray) -> HandMesh:
        """Decodes a batch.

        Args:
            global_orient: (B, 1, 3, 3) rotation matrices.
            hand_pose: (B, 15, 3, 3) rotation matrices, MANO order.
            betas: (B, 10).

        Returns:
            HandMesh in the model's frame, metres, of the model's dtype.

        Raises:
            ValueError: a wrong shape.
        """
        num = len(global_orient)
        check_shape("global_orient", global_orient, (num, 1, 3, 3))
        check_shape("hand_pose", hand_pose, (num, 15, 3, 3))
        check_shape("betas", betas, (num, NUM_BETAS))
        root, pose, betas = (np.asarray(array, self.dtype) for array in (global_orient, hand_pose, betas))
        if self._mean is not None:
            pose = axis_angle_to_matrix(matrix_to_axis_angle(pose) + self._mean)
        rest = self._joints + (betas @ self._joint_dirs).reshape(num, -1, 3)
        R, joints = self._kinematics(root, pose, rest)
        transforms = np.concatenate([R, joints[..., None] - R @ rest[..., None]], 3)  # [R | t] of rest-pose points
        blended = transforms.reshape(num, NUM_MANO_JOINTS, 12).swapaxes(1, 2) @ self._weights
        blended = blended.reshape(num, 3, 4, -1)
        offsets = betas @ self._dirs
        if self._pose_dirs is not None:
            offsets = offsets + (pose - np.eye(3, dtype=self.dtype)).reshape(num, -1) @ self._pose_dirs
        shaped = self._template + offsets.reshape(num, 3, -1)
        moved = (blended[:, :, :3] * shaped[:, None]).sum(2) + blended[:, :, 3]
        vertices = np.ascontiguousarray(moved.swapaxes(1, 2))
        joints21 = np.concatenate([joints, vertices[:, self.arrays.tip_vertices]], 1)[:, _TO_OPENPOSE]
        return HandMesh(joints_m=joints21, mano_joints_m=joints, vertices_m=vertices)

    def decode(self, params: HandParams) -> HandMesh:
        """Decodes HandParams with a batch axis; the translation is not added."""
        return self(params.global_orient, params.hand_pose, params.betas)

    def _kinematics(self, root: np.ndarray, pose: np.ndarray, rest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(B, 16, 3, 3) rotations of the joints in the hand's frame, and (B, 16, 3) posed joints."""
        num = len(root)
        local, fingers = pose.reshape(num, *_FINGERS, 3, 3), rest[:, 1:].reshape(num, *_FINGERS, 3)
        R, joints = np.empty((num, NUM_MANO_JOINTS, 3, 3), self.dtype), np.empty((num, NUM_MANO_JOINTS, 3), self.dtype)
        R[:, :1], joints[:, 0] = root, rest[:, 0]
        turn, at, before = root, joints[:, :1], rest[:, :1]
        for level in range(3):
            at = at + (turn @ (fingers[:, :, level] - before)[..., None])[..., 0]
            turn, before = turn @ local[:, :, level], fingers[:, :, level]
            R[:, 1 + level :: 3], joints[:, 1 + level :: 3] = turn, at
        return R, joints
