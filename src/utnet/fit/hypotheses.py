"""The landmark lifter's hypotheses as hand parameters that a fit starts from or expects."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from utnet.fit.angles import angles_to_pose
from utnet.fit.landmarks import View, look_at, put_at
from utnet.fit.lifter import LandmarkLifter
from utnet.fit.model import FitModel
from utnet.fit.solver import pose_joints
from utnet.types import HandParams


@dataclass(frozen=True)
class LiftedHands:
    """K hypotheses for each of B hands, the likeliest first.

    Attributes:
        params: K times (B, ...) parameters in the camera, placed where their landmarks are as large as seen.
        probability: (B, K), rows sum to 1.
        error_m: (B, K, 21) expected distance of the joints, relative to the wrist, from the true ones.
    """

    params: list[HandParams]
    probability: np.ndarray
    error_m: np.ndarray


def lift_hands(
    lifter: LandmarkLifter, model: FitModel, joints_px: np.ndarray, joints_m: np.ndarray, K_px: np.ndarray
) -> LiftedHands:
    """Lifts the landmarks of B right hands, which are as `HandFitter.fit` takes them.

    Raises:
        ValueError: fewer than three landmarks of a palm.
    """
    views = [
        look_at(*(np.asarray(array, float) for array in row)) for row in zip(joints_px, joints_m, K_px, strict=True)
    ]
    fields = ("points", "joints_m", "seen", "joints_ok")
    guesses = lifter(*(np.stack([getattr(view, name) for view in views]) for name in fields))
    known = np.zeros_like(guesses.betas) if model.hand.name != "open" else guesses.betas
    params = []
    for k in range(guesses.probability.shape[1]):
        hands = [
            _placed(model, view, guesses.root[i, k], guesses.angles[i, k], known[i]) for i, view in enumerate(views)
        ]
        names = ("global_orient", "hand_pose", "betas", "transl_m")
        params.append(HandParams(*(np.stack([getattr(hand, name) for hand in hands]) for name in names)))
    return LiftedHands(params, guesses.probability, guesses.error_m)


def _placed(model: FitModel, view: View, root: np.ndarray, angles: np.ndarray, betas: np.ndarray) -> HandParams:
    """One hand in the camera."""
    arrays, of = model.arrays, model.joint
    rest = arrays.J_template, arrays.J_shapedirs, model.axes
    places, R, *_ = pose_joints(np.zeros(3), np.ascontiguousarray(root), angles, betas, *rest)
    points = places[of] + np.einsum("nab,nb->na", R[of], model.offset + model.dirs @ betas)
    wrist = view.look.T @ put_at(points, view.points, view.seen)
    return HandParams(
        global_orient=(view.look.T @ root)[None],
        hand_pose=model.with_mean(angles_to_pose(angles, model.axes), -1.0),
        betas=betas.copy(),
        transl_m=wrist - model.rest_wrist(betas),
    )
