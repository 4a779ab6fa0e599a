"""Random hand poses within anatomical limits, with correlated fingers.

A pose is 15 joints x 3 angles (flexion, abduction, twist) about the axes and within the limits of `utnet.hand.anatomy`.
The last joint of a finger follows the middle one at about two thirds (Cobos et al., 2008).
"""

from __future__ import annotations

import numpy as np

from utnet.conventions import NUM_BETAS
from utnet.hand.anatomy import JOINT_LIMITS_RAD, anatomical_axes
from utnet.hand.arrays import load_open_hand

NUM_HAND_JOINTS = 15

PALM_M = np.array([-0.08, -0.01, 0.0])
"""Middle of the palm of the right open hand relative to its wrist, hand frame."""

AXES = anatomical_axes(load_open_hand())


def _cross_matrices() -> np.ndarray:
    x, y, z = np.moveaxis(AXES, -1, 0)
    zero = np.zeros_like(x)
    return np.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*AXES.shape, 3)


_K = _cross_matrices()
_KK = _K @ _K


def angles_to_pose(angles_rad: np.ndarray) -> np.ndarray:
    """(..., 15, 3) flexion, abduction, twist -> (..., 15, 3, 3) rotations: abduction, then flexion, then twist."""
    # With fixed axes Rodrigues' formula needs only the sine and cosine of each angle.
    sin, cos = np.sin(angles_rad)[..., None, None], np.cos(angles_rad)[..., None, None]
    turns = np.eye(3) + sin * _K + (1 - cos) * _KK
    return turns[..., 1, :, :] @ turns[..., 0, :, :] @ turns[..., 2, :, :]


def sample_angles(rng: np.random.Generator) -> np.ndarray:
    """Draws a random pose: (15, 3) angles in radians within `JOINT_LIMITS_RAD`.

    80 % of the hands have correlated curls of neighbouring fingers; the others have some fingers stretched and the rest
    closed. Spread decreases as fingers close, and the thumb lies over closed fingers.
    """
    if rng.random() < 0.8:
        curl = np.clip(rng.beta(1.0, 1.4) + 0.18 * np.cumsum(rng.normal(size=4)) * rng.choice([-1, 1]), 0, 1)
    else:
        curl = np.where(rng.random(4) < 0.5, rng.uniform(0.0, 0.15, 4), rng.uniform(0.75, 1.0, 4))
    curl = curl[[0, 1, 3, 2]]  # drawn index to little, stored index, middle, little, ring
    angles = np.zeros((NUM_HAND_JOINTS, 3))
    knuckle = np.clip(curl + 0.15 * rng.normal(size=4), 0, 1)
    spread = rng.normal(0.35, 0.5)
    base = np.deg2rad([9.0, 0.0, -16.0, -6.0])
    angles[0:12:3, 0] = np.deg2rad(-15 + 100 * knuckle + rng.normal(0, 4, 4))
    angles[0:12:3, 1] = (spread * base + np.deg2rad(rng.normal(0, 2.0, 4))) * (1 - 0.9 * knuckle)
    pip = 100 * curl + rng.normal(0, 6, 4)
    angles[1:12:3, 0] = np.deg2rad(pip)
    angles[2:12:3, 0] = np.deg2rad(0.66 * pip + rng.normal(0, 6, 4))
    closed = curl[:2].mean()
    angles[12, 0] = np.deg2rad(rng.uniform(-10, 25))
    angles[12, 1] = np.deg2rad(rng.uniform(-12, 25) + 20 * closed)
    angles[12, 2] = np.deg2rad(rng.uniform(-10, 15) + 10 * closed)
    bend = rng.beta(1.2, 1.5)
    angles[13, 0] = np.deg2rad(-5 + 45 * bend + rng.normal(0, 4))
    angles[13, 1] = np.deg2rad(rng.normal(0, 3))
    angles[14, 0] = np.deg2rad(-8 + 60 * bend + rng.normal(0, 8))
    return np.clip(angles, JOINT_LIMITS_RAD[..., 0], JOINT_LIMITS_RAD[..., 1])


def sample_betas(rng: np.random.Generator, std: float = 1.0) -> np.ndarray:
    """Draws (10,) shape coefficients: normal, truncated at 2.5 standard deviations."""
    return np.clip(rng.normal(size=NUM_BETAS), -2.5, 2.5) * std


def sample_orientation(rng: np.random.Generator, max_tilt_deg: float = 180.0) -> np.ndarray:
    """Draws a uniform random rotation (3, 3), hand to camera.

    Args:
        rng: of the rotation.
        max_tilt_deg: maximum angle between the viewing axis and the normal of the palm or back; 90 or more is the whole
            sphere.
    """
    while True:
        q = rng.normal(size=4)
        x, y, z, w = q / np.linalg.norm(q)
        R = np.array(
            [
                [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
                [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
                [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
            ]
        )
        if abs(R[2, 1]) >= np.cos(np.deg2rad(min(max_tilt_deg, 90.0))) - 1e-9:  # y: normal of the palm
            return R
