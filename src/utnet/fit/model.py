"""A hand model as the fit uses it: numpy in double precision, and where landmarks are on it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from utnet.conventions import MANO21_TO_OPENPOSE, NUM_BETAS, NUM_MANO_JOINTS
from utnet.fit.landmark_model import LandmarkModel
from utnet.hand import AnyHandModel, NumpyHandModel
from utnet.hand.anatomy import anatomical_axes
from utnet.hand.arrays import HandArrays
from utnet.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from utnet.types import HandParams, check_shape

_TIP_JOINTS = (15, 3, 6, 12, 9)
"""MANO's last joint of each finger, thumb to little."""


class FitModel:
    """A right hand with its 21 landmarks.

    Args:
        hand: open or MANO.
        landmarks: "mediapipe" or "joints", as `HandFitter` has it.

    Attributes:
        hand: the model in double precision.
        arrays: the model's numbers.
        axes: (15, 3, 3) flexion, abduction and twist of each joint, rest frame.
        joint: (21,) the articulated joint that moves each landmark.
        landmarks: how the landmarks lie about the model's joints.
        joints_rest: (21, 3) the model's own joints and fingertips at rest.
        dirs: (21, 3, 10) what the betas do to them, from the articulated joint that moves each.
        rigid_tips: fingertips follow their last joint alone (MANO's are blended and corrected vertices).

    Raises:
        ValueError: a left hand, or other landmarks.
    """

    def __init__(self, hand: AnyHandModel, landmarks: str):
        if hand.side != "right":
            raise ValueError("a fit takes the right hand model; mirror the landmarks of left hands")
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
            if hand.name != "open":  # whose joints are elsewhere
                self.landmarks = replace(self.landmarks, offsets_m=np.zeros_like(self.landmarks.offsets_m), spread=1.0)
        self.joints_rest = template
        self._own = template - arrays.J_template[self.joint]
        self.dirs = dirs - arrays.J_shapedirs[self.joint]
        last = np.diag(arrays.weights[arrays.tip_vertices][:, tips])
        self.rigid_tips = arrays.posedirs is None and bool((last > 0.999).all())

    def offset(self, seen: LandmarkModel) -> np.ndarray:
        """(21, 3) of landmarks as seen from one view, from the articulated joint that moves each, rest frame."""
        return self._own + seen.offsets_m

    def rest_wrist(self, betas: np.ndarray) -> np.ndarray:
        """(3,) where the wrist is at rest."""
        return self.arrays.J_template[0] + self.arrays.J_shapedirs[0] @ betas

    def with_mean(self, pose: np.ndarray, sign: float) -> np.ndarray:
        """Adds (1) or takes off (-1) the model's mean pose, which it adds to axis-angle vectors."""
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


def check_params(name: str, params: HandParams, num: int) -> None:
    """ValueError unless these are `num` hands with finite numbers."""
    shapes = {
        "global_orient": (num, 1, 3, 3),
        "hand_pose": (num, 15, 3, 3),
        "betas": (num, NUM_BETAS),
        "transl_m": (num, 3),
    }
    for key, shape in shapes.items():
        array = np.asarray(getattr(params, key))
        check_shape(f"{name}.{key}", array, shape)
        if not np.isfinite(array).all():
            raise ValueError(f"{name}.{key} holds NaN or inf")
