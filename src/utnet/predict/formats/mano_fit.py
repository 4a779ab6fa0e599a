"""MANO parameters for a hand of the open model, by fitting MANO's 21 joints to the hand's.

The two models share joints and axes, not shapes: the pose is nearly the same, betas and translation are not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from utnet.hand.arrays import HandArrays
from utnet.hand.numpy_model import NumpyHandModel
from utnet.rotations import axis_angle_to_matrix
from utnet.types import HandParams

_JOINT_M, _TURN_RAD, _BETA = 0.001, 0.3, 2.0
"""Standard deviations: of a joint's distance, of its rotation from the open hand's, of a beta."""
_STEPS, _TOLERANCE, _DIFFERENCE = 40, 1e-6, 1e-6
"""Least squares: number of steps, relative gain of a step at which it ends, step of the differences."""


def fit_mano(params: HandParams, joints_cam_m: np.ndarray, mano: HandArrays) -> tuple[HandParams, float]:
    """Returns MANO's parameters of one hand, and the mean distance of its joints from the given ones in mm.

    Args:
        params: of the open hand of the same side; its pose is the start and the prior.
        joints_cam_m: (21, 3) target joints.
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
    x = _least_squares(residuals, x)
    R, joints = decoded(x)
    error_mm = 1e3 * float(np.linalg.norm(joints + x[58:] - joints_cam_m, axis=1).mean())
    return HandParams(R[:1], R[1:], x[48:58], x[58:]), error_mm


def _least_squares(residuals: Callable[[np.ndarray], np.ndarray], x: np.ndarray) -> np.ndarray:
    """Levenberg-Marquardt with Marquardt's scaling and derivatives by differences."""
    errors, damping = residuals(x), 1e-3
    for _ in range(_STEPS):
        J = np.stack([(residuals(x + step) - errors) / _DIFFERENCE for step in _DIFFERENCE * np.eye(len(x))], 1)
        H, gain = J.T @ J, 0.0
        while gain <= 0 and damping < 1e6:
            moved = x - np.linalg.solve(H + damping * np.diag(np.diag(H)), J.T @ errors)
            new = residuals(moved)
            gain = float(errors @ errors - new @ new)
            damping *= 0.2 if gain > 0 else 5.0
        if gain <= 0:
            break
        settled = gain < _TOLERANCE * float(errors @ errors)
        x, errors = moved, new
        if settled:
            break
    return x


def _joints_only(arrays: HandArrays) -> HandArrays:
    """The hand model with its fingertips as the only vertices, enough for 21 joints."""
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
