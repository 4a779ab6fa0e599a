"""A hand model for the fit: numpy in double precision, with its landmarks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from utnet.conventions import MANO21_TO_OPENPOSE, NUM_MANO_JOINTS
from utnet.fit.landmark_model import LandmarkModel
from utnet.hand import AnyHandModel, NumpyHandModel
from utnet.hand.anatomy import anatomical_axes
from utnet.hand.arrays import HandArrays
from utnet.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from utnet.types import HandParams

_TIP_JOINTS = (15, 3, 6, 12, 9)
"""MANO's last joint of each finger, thumb to little."""


class FitModel:
    """A right hand with its 21 landmarks.

    Args:
        hand: open or MANO.
        landmarks: "mediapipe" or "joints", as in `HandFitter`.

    Attributes:
        hand: the model in double precision.
        arrays: the model's numbers.
        axes: (15, 3, 3) flexion, abduction and twist of each joint, rest frame.
        joint: (21,) the articulated joint that moves each landmark.
        landmarks: offsets and deviations of the landmarks relative to the model's joints.
        joints_rest: (21, 3) the model's own joints and fingertips at rest.
        dirs: (21, 3, 10) their blendshapes, relative to the articulated joint that moves each.
        rigid_tips: fingertips follow their last joint alone (MANO's are vertices with blended skinning and
            correctives).

    Raises:
        ValueError: a left hand, or other landmarks.
    """

    def __init__(self, hand: AnyHandModel, landmarks: str):
        if hand.side != "right":
            raise ValueError("the fit requires a right hand model; mirror the landmarks of left hands")
        if landmarks not in ("mediapipe", "joints"):
            raise ValueError(f"landmarks is {landmarks!r}, expected 'mediapipe' or 'joints'")
        self.hand = NumpyHandModel.of(hand, dtype=np.float64)
        self.arrays = arrays = _arrays_of(self.hand.arrays)
        self.axes = anatomical_axes(arrays)
        order, tips = list(MANO21_TO_OPENPOSE), list(_TIP_JOINTS)
        self.joint = np.array([*range(NUM_MANO_JOINTS), *tips])[order]
        template = np.concatenate([arrays.J_template, arrays.v_template[arrays.tip_vertices]])[order]
        dirs = np.concatenate([arrays.J_shapedirs, arrays.shapedirs[arrays.tip_vertices]])[order]
        self.landmarks = LandmarkModel.exact()
        if landmarks == "mediapipe":
            self.landmarks = LandmarkModel.mediapipe()
            if hand.name != "open":  # MANO's joints are elsewhere
                self.landmarks = replace(self.landmarks, offsets_m=np.zeros_like(self.landmarks.offsets_m), spread=1.0)
        self.joints_rest = template
        self._own = template - arrays.J_template[self.joint]
        self.dirs = dirs - arrays.J_shapedirs[self.joint]
        last = np.diag(arrays.weights[arrays.tip_vertices][:, tips])
        self.rigid_tips = arrays.posedirs is None and bool((last > 0.999).all())

    def offset(self, seen: LandmarkModel) -> np.ndarray:
        """(21, 3) landmarks of one view relative to the articulated joint that moves each, rest frame."""
        return self._own + seen.offsets_m

    def rest_wrist(self, betas: np.ndarray) -> np.ndarray:
        """(3,) the wrist at rest."""
        return self.arrays.J_template[0] + self.arrays.J_shapedirs[0] @ betas

    def with_mean(self, pose: np.ndarray, sign: float) -> np.ndarray:
        """Adds (1) or subtracts (-1) the mean pose, which the model adds to axis-angle vectors."""
        mean = self.arrays.pose_mean
        return pose if mean is None else axis_angle_to_matrix(matrix_to_axis_angle(pose) + sign * mean.reshape(15, 3))

    def decode(self, params: HandParams) -> tuple[np.ndarray, np.ndarray]:
        """(21, 3) joints and (V, 3) vertices of one hand, before translation."""
        mesh = self.hand.decode(params.map(lambda array: array[None]))
        return mesh.joints_m[0], mesh.vertices_m[0]


def _arrays_of(arrays: HandArrays) -> HandArrays:
    """A hand's numbers in double precision, contiguous."""
    fields = ("v_template", "shapedirs", "J_template", "J_shapedirs", "weights")
    doubles = {name: np.ascontiguousarray(getattr(arrays, name), np.float64) for name in fields}
    mean = arrays.pose_mean if arrays.pose_mean is not None and np.any(arrays.pose_mean) else None
    return replace(arrays, **doubles, pose_mean=mean)
