"""What a hand can do, and how it rests or is expected to be, joint by joint: soft limits and angles for the fit.

The limits are those of `utnet.hand.anatomy` (flexion, abduction and twist of 15 joints). The softness says by how many
degrees a real hand may pass them, in the way of a standard deviation; the joints that are hinges (the outer two of each
finger, the thumb's last) have limits of 0 to 0 across and about the bone, so they stay hinges within a few degrees.
"""

from __future__ import annotations

import numpy as np

from utnet.hand.anatomy import JOINT_LIMITS_RAD

_SOFT_DEG = 5.0
_HINGE_SOFT_DEG = 3.0
_REST_FLEXION_DEG = (15.0, 25.0, 15.0)
"""Of a relaxed finger: knuckle, middle joint, last joint."""
_REST_THUMB_DEG = 10.0
_WIDE_DEG = np.array([40.0, 10.0, 10.0])
"""How far from rest flexion, abduction and twist of a finger usually are."""
_WIDE_THUMB_BASE_DEG = np.array([25.0, 25.0, 12.0])
_WIDE_THUMB_DEG = 30.0
_EXPECTED_DEG = np.array([15.0, 8.0, 8.0])
"""How far the true flexion, abduction and twist are from what a network says: for `ti`, as benchmarks/methods.py
measures, better than 1.5 and 2.5 times as much."""


def angle_prior() -> np.ndarray:
    """(5, 15, 3): lower limit, upper limit (rad), one over the softness of both, resting angle (rad), one over its
    spread."""
    lower, upper = JOINT_LIMITS_RAD[..., 0], JOINT_LIMITS_RAD[..., 1]
    soft = np.where(upper > lower, _SOFT_DEG, _HINGE_SOFT_DEG)
    rest, wide = np.zeros((15, 3)), np.tile(_WIDE_DEG, (15, 1))
    rest[:12, 0] = np.tile(_REST_FLEXION_DEG, 4)
    rest[12:, 0] = _REST_THUMB_DEG
    rest[12, 1] = _REST_THUMB_DEG
    wide[12:] = _WIDE_THUMB_DEG
    wide[12] = _WIDE_THUMB_BASE_DEG
    return np.stack([lower, upper, 1 / np.deg2rad(soft), np.deg2rad(rest), 1 / np.deg2rad(wide)])


def expecting(prior: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """`angle_prior` that draws to (15, 3) angles which somebody else says, and more strongly than to rest; the limits
    stay, also of what is said."""
    spread = np.tile(1 / np.deg2rad(_EXPECTED_DEG), (1, 15, 1))
    return np.concatenate([prior[:3], np.clip(angles, prior[0], prior[1])[None], spread])
