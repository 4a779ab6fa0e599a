"""MANO's parameters of a hand of the open model, by fitting MANO's 21 joints to the hand's.

The two models share joints and axes, not shapes: the pose carries over nearly as it is, betas and translation do not.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from utnet.hand.arrays import HandArrays
from utnet.hand.numpy_model import NumpyHandModel
from utnet.rotations import axis_angle_to_matrix
from utnet.types import HandParams

_JOINT_M, _TURN_RAD, _BETA = 0.001, 0.3, 2.0
"""Widths: of a joint's distance, of a joint's turn away from the open hand's, of a beta."""


def fit_mano(params: HandParams, joints_cam_m: np.ndarray, mano: HandArrays) -> tuple[HandParams, float]:
    """Returns MANO's parameters of one hand, and the mean distance of its joints from the given ones in mm.

    Args:
        params: of the open hand of the same side; the pose from which it starts and to which it keeps.
        joints_cam_m: (21, 3) where the joints are to be.
        mano: MANO of the same side, without mean pose (`flat_hand_mean=True`).
    """
    model = NumpyHandModel(_joints_only(mano), name="mano", dtype=np.float64)
    start = np.concatenate([params.global_orient, params.hand_pose]).astype(float)

    def decoded(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        R = start @ axis_angle_to_matrix(x[:48].reshape(16, 3))
        joints = model(R[None, :1], R[None, 1:], x[None, 48:58]).joints_m[0]
        return R, joints

    def residuals(x: np.ndarray) -> np.ndarray:
        joints = decoded(x)[1] + x[58:]
        return np.concatenate(
            [((joints - joints_cam_m) / _JOINT_M).ravel(), x[3:48] / _TURN_RAD, x[48:58] / _BETA], dtype=float
        )

    x = np.zeros(61)
    x[58:] = joints_cam_m.mean(0) - decoded(x)[1].mean(0)
    from scipy.optimize import least_squares  # a third of a second that other formats do not need

    x = least_squares(residuals, x, method="trf", x_scale="jac", max_nfev=40).x
    R, joints = decoded(x)
    error_mm = 1e3 * float(np.linalg.norm(joints + x[58:] - joints_cam_m, axis=1).mean())
    return HandParams(R[:1], R[1:], x[48:58], x[58:]), error_mm


def _joints_only(arrays: HandArrays) -> HandArrays:
    """The hand with its fingertips as the only vertices: all that 21 joints need."""
    tips = arrays.tip_vertices
    return replace(
        arrays,
        v_template=arrays.v_template[tips],
        shapedirs=arrays.shapedirs[tips],
        weights=arrays.weights[tips],
        posedirs=None if arrays.posedirs is None else arrays.posedirs[tips],
        faces=np.array([[0, 1, 2]]),
        tip_vertices=np.arange(5),
    )
