"""Soft limits and Gaussians of joint angles for the fit.

Limits are those of `utnet.hand.anatomy` (flexion, abduction and twist of 15 joints). Their softness is the standard
deviation of violations; hinge joints (the outer two of each finger, the thumb's last) have limits of 0 to 0 in
abduction and twist, so they stay hinges within a few degrees.

The Gaussian of `rest_prior` contains the correlations of joints: fingers with their neighbours, last joints with the
middle ones, the thumb's joints with each other. tools/build_pose_prior.py fits it to the gestures of
`utnet.synth.gestures` and to measured hands.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np

from utnet.conventions import NUM_BETAS, PARENTS
from utnet.fit.solver import NUM_UNKNOWNS
from utnet.hand.anatomy import JOINT_LIMITS_RAD

PATH = Path(str(files("utnet"))) / "assets" / "fit" / "pose_prior.npz"
_SOFT_DEG = 5.0
_HINGE_SOFT_DEG = 3.0
USUAL_ERROR_RAD = float(np.deg2rad(6.0))
"""Standard deviation of flexion about an expected pose of unknown accuracy."""
_AXIS_SHARE = np.array([1.0, 0.6, 0.6])
"""Factors of that deviation for flexion, abduction and twist."""
_REST_SHARE = 0.5
"""Weight of the rest prior beside an expected pose, whose source includes a prior of its own."""
_LEAST_MM = 1.0


@dataclass(frozen=True)
class PosePrior:
    """A Gaussian of joint angles.

    Attributes:
        mean: (45,) flexion, abduction and twist of each of MANO's 15 joints in turn, radians.
        precision: (45, 45) inverse covariance.
    """

    mean: np.ndarray
    precision: np.ndarray


def angle_limits() -> np.ndarray:
    """(3, 15, 3): lower limits, upper limits (rad), inverse softness of both."""
    lower, upper = JOINT_LIMITS_RAD[..., 0], JOINT_LIMITS_RAD[..., 1]
    soft = np.where(upper > lower, _SOFT_DEG, _HINGE_SOFT_DEG)
    return np.stack([lower, upper, 1 / np.deg2rad(soft)])


def rest_prior() -> PosePrior:
    """The bundled prior distribution of poses."""
    with PATH.open("rb") as file, np.load(file, allow_pickle=False) as data:
        mean, covariance = data["mean"].astype(float), data["covariance"].astype(float)
    return PosePrior(mean, np.linalg.inv(covariance))


def expected_prior(angles: np.ndarray, rest: PosePrior, error_rad: np.ndarray) -> PosePrior:
    """Gaussian of angles centred at another method's pose (for example a network's), clamped to the joint limits.

    Args:
        angles: (15, 3) that pose.
        rest: the prior without it, added with half its weight.
        error_rad: (15,) standard deviation of each joint's flexion (`expected_errors_rad` of the bone that it
            rotates); those of abduction and twist are 0.6 of it.
    """
    limits = angle_limits()
    expected = np.clip(angles, limits[0], limits[1]).ravel()
    own, shared = np.diag(1 / np.outer(error_rad, _AXIS_SHARE).ravel() ** 2), _REST_SHARE * rest.precision
    precision = own + shared
    return PosePrior(np.linalg.solve(precision, own @ expected + shared @ rest.mean), precision)


def expected_errors_rad(error_mm: np.ndarray, joints_m: np.ndarray) -> np.ndarray:
    """(20,) standard deviations of bone directions for joints (21, 3) with expected position errors (21,).

    The error of a bone's end exceeds that of its start by the error of its direction: sqrt(end^2 - start^2) = length x
    angle, with a third of the end's error as the lower bound, as the two are measured independently.
    """
    parents = list(PARENTS[1:])
    start, end = error_mm[parents], error_mm[1:]
    length_mm = 1e3 * np.linalg.norm(joints_m[1:] - joints_m[parents], axis=1)
    added = np.sqrt(np.maximum(end**2 - start**2, (end / 3) ** 2))
    return np.maximum(added, _LEAST_MM) / length_mm


def betas_precision(normal: np.ndarray) -> np.ndarray:
    """(10, 10) precision of the betas by one picture and the prior, marginalised over the other unknowns (Schur
    complement of the normal matrix, given as its lower triangle)."""
    full = np.tril(normal) + np.tril(normal, -1).T
    others = NUM_UNKNOWNS - NUM_BETAS
    a, b, d = full[:others, :others], full[others:, :others], full[others:, others:]
    return d - b @ np.linalg.solve(a + 1e-9 * np.eye(others), b.T)
