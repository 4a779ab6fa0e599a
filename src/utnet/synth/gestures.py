"""Common gestures and grasps with random variation and without self-penetration.

A gesture is given by joint angles in degrees. The variation follows the main synergies of the hand (Santello, Flanders
and Soechting, Postural Hand Synergies for Tool Use, 1998): common closing of all fingers, knuckles against middle
joints, spread, opposition of the thumb, and correlation of neighbouring fingers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from utnet.hand.arrays import load_open_hand
from utnet.synth.poses import JOINT_LIMITS_RAD, angles_to_pose, sample_angles

_STRAIGHT, _CLOSED = (0, 3, 2), (78, 98, 62)


@dataclass(frozen=True)
class Gesture:
    """A hand pose in degrees.

    Attributes:
        fingers: flexion of the three joints of index, middle, ring and little finger.
        spread: spread of the fingers, from -0.5 (together) to 2 (wide).
        thumb: flexion, abduction and twist of the CMC joint, and flexion of the other joints.
        weight: relative frequency.
    """

    fingers: tuple[tuple[float, float, float], ...]
    spread: float
    thumb: tuple[float, float, float, float, float]
    weight: float = 1.0


def _all(bends: tuple[float, float, float]) -> tuple[tuple[float, float, float], ...]:
    return (bends,) * 4


_OVER = (26, 22, 12, 35, 45)  # the thumb over closed fingers
_OUT = (-8, 4, 0, -4, -6)  # the thumb stretched away

GESTURES = {
    "open": Gesture(_all(_STRAIGHT), 0.8, _OUT, 2.0),
    "spread": Gesture(_all((-8, 0, 0)), 1.8, (-10, -5, -5, -5, -8), 1.5),
    "flat": Gesture(_all((5, 4, 3)), -0.4, (12, -4, 0, 5, 5), 1.5),
    "relaxed": Gesture(((18, 28, 15), (24, 34, 18), (28, 38, 20), (30, 38, 20)), 0.3, (5, 10, 5, 10, 15), 3.0),
    "fist": Gesture(_all(_CLOSED), -0.2, _OVER, 2.0),
    "point": Gesture((_STRAIGHT, _CLOSED, _CLOSED, _CLOSED), 0.0, _OVER, 2.0),
    "gun": Gesture((_STRAIGHT, _CLOSED, _CLOSED, _CLOSED), 0.0, _OUT),
    "victory": Gesture(((-2, 2, 2), (-2, 2, 2), _CLOSED, _CLOSED), 1.5, _OVER, 1.5),
    "three": Gesture((_STRAIGHT, _STRAIGHT, _STRAIGHT, _CLOSED), 1.0, _OVER),
    "four": Gesture(_all(_STRAIGHT), 1.0, (30, 12, 10, 35, 40)),
    "thumb_up": Gesture(_all(_CLOSED), -0.2, (-10, -6, -8, -5, -8), 2.0),
    "ok": Gesture(((59, 48, 30), (12, 12, 8), (8, 8, 6), (4, 6, 4)), 1.0, (8, 21, 8, 21, 22), 1.5),
    "pinch": Gesture(((58, 48, 29), (60, 52, 31), (62, 55, 36), (64, 58, 38)), 0.2, (15, 16, 15, 17, 26), 2.0),
    "pinch_middle": Gesture(((20, 20, 12), (66, 40, 24), (20, 24, 14), (14, 16, 10)), 0.6, (19, 21, 12, 10, 23)),
    "pinch_ring": Gesture(((10, 10, 8), (18, 18, 12), (62, 56, 34), (24, 26, 16)), 0.6, (27, 19, 18, 22, 21)),
    "tripod": Gesture(((54, 50, 30), (62, 40, 33), (66, 68, 40), (68, 72, 40)), 0.0, (17, 15, 10, 15, 23), 1.5),
    "horns": Gesture((_STRAIGHT, _CLOSED, _CLOSED, (0, 4, 3)), 0.6, _OVER),
    "phone": Gesture((_CLOSED, _CLOSED, _CLOSED, (0, 4, 3)), 0.6, _OUT),
    "love": Gesture((_STRAIGHT, _CLOSED, _CLOSED, _STRAIGHT), 0.8, _OUT),
    "hook": Gesture(_all((5, 92, 60)), 0.0, (15, 8, 5, 15, 20)),
    "claw": Gesture(_all((-5, 58, 40)), 1.2, (0, 20, 5, 20, 30)),
    "table_top": Gesture(_all((82, 6, 4)), 0.0, (10, 12, 5, 10, 10)),
    "crossed": Gesture(((10, 6, 4), (2, 4, 3), _CLOSED, _CLOSED), -1.0, _OVER, 0.5),
    "cylinder": Gesture(((42, 50, 30), (46, 52, 32), (50, 54, 32), (52, 54, 32)), 0.2, (14, 34, 15, 15, 22), 2.5),
    "cylinder_thin": Gesture(((66, 74, 44), (68, 76, 44), (70, 76, 44), (70, 74, 42)), 0.0, (24, 30, 15, 26, 36), 1.5),
    "ball": Gesture(((22, 40, 26), (24, 40, 26), (26, 42, 26), (28, 42, 26)), 1.5, (4, 36, 12, 10, 18), 2.0),
    "card": Gesture(((42, 57, 34), (48, 64, 36), (54, 70, 40), (58, 74, 42)), -0.2, (18, 15, 7, 5, 5)),
    "plate": Gesture(((58, 18, 10), (58, 18, 10), (58, 18, 10), (58, 18, 10)), 0.0, (8, 36, 15, 12, 10)),
    "tap": Gesture(((28, 18, 10), (10, 22, 14), (14, 26, 16), (16, 26, 16)), 0.4, (2, 8, 2, 8, 12)),
    "mouse": Gesture(((18, 26, 14), (20, 26, 14), (24, 36, 20), (26, 38, 22)), 0.5, (2, 16, 4, 10, 14)),
    "scissors_closed": Gesture((_STRAIGHT, _STRAIGHT, _CLOSED, _CLOSED), -0.6, _OVER),
    "middle_bent": Gesture((_STRAIGHT, _CLOSED, _STRAIGHT, _STRAIGHT), 0.8, _OVER, 0.5),
}

_BASE_SPREAD = np.array([9.0, 0.0, -6.0, -16.0])
_NEIGHBOURS = 0.6 * np.eye(4) + 0.2 * (np.eye(4, k=1) + np.eye(4, k=-1))
"""Correlation of the flexion of neighbouring fingers."""
_ROWS = np.array([0, 3, 9, 6])  # index, middle, ring, little in MANO's order
_CUMULATIVE = np.cumsum([gesture.weight for gesture in GESTURES.values()])[:-1] / sum(
    gesture.weight for gesture in GESTURES.values()
)


def gesture_angles(gesture: Gesture) -> np.ndarray:
    """(15, 3) angles in radians, as in `poses`."""
    angles = np.zeros((15, 3))
    for finger, row in enumerate(_ROWS):
        angles[row : row + 3, 0] = gesture.fingers[finger]
        closed = np.clip(gesture.fingers[finger][0] / 90, 0, 1)
        angles[row, 1] = gesture.spread * _BASE_SPREAD[finger] * (1 - 0.9 * closed)
    angles[12] = gesture.thumb[:3]
    angles[13, 0], angles[14, 0] = gesture.thumb[3:]
    angles = np.deg2rad(angles)
    angles[:, 1] = np.clip(angles[:, 1], *JOINT_LIMITS_RAD[:, 1].T)  # limits of spread differ by finger
    return angles


_ANGLES = np.stack([gesture_angles(gesture) for gesture in GESTURES.values()])


def vary(rng: np.random.Generator, angles: np.ndarray, amount: float) -> np.ndarray:
    """Varies (15, 3) angles (radians) along the synergies, within the limits."""
    move = np.zeros((15, 3))
    common, against, spread, oppose = rng.normal(size=4)
    own = rng.normal(size=4)
    own = _NEIGHBOURS @ own
    for finger, row in enumerate(_ROWS):
        curl = 9 * common + 9 * own[finger]
        move[row, 0] = 0.9 * curl + 8 * against + 3 * rng.normal()
        middle = 1.1 * curl - 7 * against + 4 * rng.normal()
        move[row + 1, 0], move[row + 2, 0] = middle, 0.66 * middle + 4 * rng.normal()
        move[row, 1] = 0.3 * spread * _BASE_SPREAD[finger] + 2 * rng.normal()
    move[12] = [4 * common + 5 * rng.normal(), 8 * oppose + 4 * rng.normal(), 6 * oppose + 3 * rng.normal()]
    move[13] = [6 * common + 5 * rng.normal(), 2 * rng.normal(), 0]
    move[14, 0] = 8 * common + 8 * rng.normal()
    return np.clip(angles + amount * np.deg2rad(move), JOINT_LIMITS_RAD[..., 0], JOINT_LIMITS_RAD[..., 1])


def sample_pose(rng: np.random.Generator, *, gestures: float, contact: bool) -> np.ndarray:
    """Draws (15, 3) angles of a random hand.

    Args:
        rng: of the pose.
        gestures: strength of gestures: 3/4 of hands at 1. They are a gesture or a mixture of two; other hands come from
            `poses.sample_angles`.
        contact: resolve penetration of fingers and palm.
    """
    if rng.random() < 0.75 * gestures:
        first, second = _ANGLES[np.searchsorted(_CUMULATIVE, rng.random(2))]
        share = rng.uniform(0.15, 0.6) if rng.random() < 0.3 else 0.0
        angles = vary(rng, (1 - share) * first + share * second, rng.uniform(0.3, 1.2))
    else:
        angles = sample_angles(rng)
    return without_overlap(angles) if contact else angles


_ALLOWED_M = 0.0035
"""Allowed penetration depth of two capsules (soft tissue)."""
_RADII_M = np.array([0.0082, 0.0074, 0.0066] * 4 + [0.0095, 0.009, 0.0080])
_TRIES, _OPENING = 10, 0.88
_OPEN = np.deg2rad(12.0)


def without_overlap(angles: np.ndarray) -> np.ndarray:
    """Opens penetrating fingers step by step; (15, 3) angles -> (15, 3)."""
    angles = angles.copy()
    for _ in range(_TRIES):
        deep = overlaps(angles)
        if deep.max() <= _ALLOWED_M:
            break
        for finger in np.flatnonzero(deep > _ALLOWED_M):
            rows = slice(3 * finger, 3 * finger + 3)
            if finger == 4:  # lift the thumb off the palm and straighten it
                angles[12, 1] += np.deg2rad(4.0)
                angles[12, 0] -= np.deg2rad(3.0)
                angles[13:15, 0] *= _OPENING
            else:
                angles[rows, 0] = _OPEN + (angles[rows, 0] - _OPEN) * _OPENING
                angles[rows, 1] *= 0.8
    return np.clip(angles, JOINT_LIMITS_RAD[..., 0], JOINT_LIMITS_RAD[..., 1])


def overlaps(angles: np.ndarray) -> np.ndarray:
    """(5,) penetration depth (m) of index, middle, little, ring finger and thumb into other fingers and the palm.

    Computed for the mean hand, with bones as capsules.
    """
    ends = _bone_ends(angles_to_pose(angles))
    out = np.zeros(5)
    _overlaps(ends, _RADII_M, _PALM_M, out)
    return out


_HAND = load_open_hand()
_J = _HAND.J_template.astype(float)
_TIPS = _HAND.v_template[_HAND.tip_vertices].astype(float)[[1, 2, 4, 3, 0]]
# The palm as capsules from the wrist to the knuckles: two ends and a radius.
_PALM_M = np.array([[*(0.25 * _J[k]), *(0.93 * _J[k]), 0.0105] for k in (1, 4, 10, 7)])


_ENDS = np.concatenate([_J[1:].reshape(5, 3, 3), (0.08 * _J[3::3] + 0.92 * _TIPS)[:, None]], 1)
"""(5, 4, 3) rest joints of each finger, and a point near its tip."""


def _bone_ends(pose: np.ndarray) -> np.ndarray:
    """(15, 3, 3) rotations -> (15, 2, 3) ends of the finger bones in the hand frame."""
    local, bones = pose.reshape(5, 3, 3, 3), np.diff(_ENDS, axis=1)[..., None]
    ends, at, R = np.empty((5, 3, 2, 3)), _ENDS[:, 0], np.eye(3)
    for level in range(3):
        R = R @ local[:, level]
        ends[:, level, 0] = at
        at = at + (R @ bones[:, level])[..., 0]
        ends[:, level, 1] = at
    return ends.reshape(15, 2, 3)


@numba.njit(cache=True, nogil=True)
def _distance(p, q, r, s):
    """Smallest distance of the segments p-q and r-s (Ericson, Real-Time Collision Detection, 5.1.9)."""
    d1, d2, e = q - p, s - r, p - r
    a, b, f = (d1 * d1).sum() + 1e-12, (d2 * d2).sum() + 1e-12, (d2 * e).sum()
    c, g = (d1 * e).sum(), (d1 * d2).sum()
    denominator = a * b - g * g
    u = min(max((g * f - c * b) / denominator, 0.0), 1.0) if denominator > 1e-14 else 0.0
    v = (g * u + f) / b
    if v < 0.0:
        u, v = min(max(-c / a, 0.0), 1.0), 0.0
    elif v > 1.0:
        u, v = min(max((g - c) / a, 0.0), 1.0), 1.0
    gap = p + u * d1 - r - v * d2
    return np.sqrt((gap * gap).sum())


@numba.njit(cache=True, nogil=True)
def _overlaps(ends, radii, palm, out):
    for i in range(15):
        finger = i // 3
        for j in range(i + 1, 15):
            other = j // 3
            if other == finger or (i % 3 == 0 and j % 3 == 0):  # neighbouring first phalanges
                continue
            deep = radii[i] + radii[j] - _distance(ends[i, 0], ends[i, 1], ends[j, 0], ends[j, 1])
            out[finger], out[other] = max(out[finger], deep), max(out[other], deep)
        if i % 3 == 0:
            continue
        for k in range(palm.shape[0]):
            if finger == 4 and i % 3 == 1:
                continue
            deep = radii[i] + palm[k, 6] - _distance(ends[i, 0], ends[i, 1], palm[k, :3], palm[k, 3:6])
            out[finger] = max(out[finger], deep)
