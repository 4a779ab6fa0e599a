"""The landmark lifter's hypotheses as hand parameters that a fit starts from or expects."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from utnet.fit.angles import angles_to_pose, pose_to_angles
from utnet.fit.landmarks import View, look_at, put_at
from utnet.fit.lifter import LandmarkLifter
from utnet.fit.model import FitModel
from utnet.fit.solver import pose_joints
from utnet.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from utnet.types import HandParams


@dataclass(frozen=True)
class LiftedHands:
    """K hypotheses for each of B hands, the likeliest first.

    Attributes:
        params: K times (B, ...) parameters in the camera, at the distance that matches the landmarks' size.
        joints_m: (K, B, 21, 3) their landmarks in metres from the wrist, in the axes of `HandFitter.fit`: anatomically
            valid relative 3D landmarks that replace the detector's.
        probability: (B, K), rows sum to 1.
        error_m: (B, K, 21) expected distance of the joints, relative to the wrist, from the true ones.
    """

    params: list[HandParams]
    joints_m: np.ndarray
    probability: np.ndarray
    error_m: np.ndarray


def lift_hands(
    lifter: LandmarkLifter,
    model: FitModel,
    joints_px: np.ndarray,
    joints_m: np.ndarray,
    K_px: np.ndarray,
    *,
    num: int | None = None,
) -> LiftedHands:
    """Lifts the landmarks of B right hands, given as to `HandFitter.fit`; `num`: hypotheses in `params` and `joints_m`
    (None: all K).

    Raises:
        ValueError: fewer than three landmarks of a palm.
    """
    views = [
        look_at(*(np.asarray(array, float) for array in row)) for row in zip(joints_px, joints_m, K_px, strict=True)
    ]
    fields = ("points", "joints_m", "seen", "joints_ok")
    guesses = lifter(*(np.stack([getattr(view, name) for view in views]) for name in fields))
    known = np.zeros_like(guesses.betas) if model.hand.name != "open" else guesses.betas
    params, joints = [], []
    names = ("global_orient", "hand_pose", "betas", "transl_m")
    for k in range(guesses.probability.shape[1] if num is None else num):
        hands, points = zip(
            *(_placed(model, view, guesses.root[i, k], guesses.angles[i, k], known[i]) for i, view in enumerate(views)),
            strict=True,
        )
        params.append(HandParams(*(np.stack([getattr(hand, name) for hand in hands]) for name in names)))
        joints.append(np.stack(points))
    return LiftedHands(params, np.stack(joints), guesses.probability, guesses.error_m)


def average_hands(model: FitModel, one: HandParams, other: HandParams, share: np.ndarray) -> HandParams:
    """Interpolates two estimates of each hand: angles and betas linearly, the root by slerp; the translation is
    `one`'s.

    Args:
        model: gives the anatomical axes.
        one: B hands.
        other: B hands.
        share: (B,) weight of `other`, 0 to 1.
    """
    poses = [model.with_mean(pose, 1.0) for hands in (one, other) for pose in hands.hand_pose]
    angles, others = np.split(pose_to_angles(np.stack(poses), model.axes), 2)
    mixed = angles + share[:, None, None] * (others - angles)
    turn = matrix_to_axis_angle(one.global_orient.swapaxes(-1, -2) @ other.global_orient)
    return HandParams(
        global_orient=one.global_orient @ axis_angle_to_matrix(share[:, None, None] * turn),
        hand_pose=np.stack([model.with_mean(angles_to_pose(pose, model.axes), -1.0) for pose in mixed]),
        betas=one.betas + share[:, None] * (other.betas - one.betas),
        transl_m=one.transl_m,
    )


def _placed(
    model: FitModel, view: View, root: np.ndarray, angles: np.ndarray, betas: np.ndarray
) -> tuple[HandParams, np.ndarray]:
    """One hand in the camera, and its landmarks (21, 3) from the wrist in the view."""
    arrays, of = model.arrays, model.joint
    rest = arrays.J_template, arrays.J_shapedirs, model.axes
    places, R = pose_joints(np.zeros(3), root, angles, betas, *rest)
    offset = model.offset(model.landmarks.at(float(root[2, 1])))
    points = places[of] + np.einsum("nab,nb->na", R[of], offset + model.dirs @ betas)
    wrist = view.look.T @ put_at(points, view.points, view.seen)
    params = HandParams(
        global_orient=(view.look.T @ root)[None],
        hand_pose=model.with_mean(angles_to_pose(angles, model.axes), -1.0),
        betas=betas.copy(),
        transl_m=wrist - model.rest_wrist(betas),
    )
    return params, points
