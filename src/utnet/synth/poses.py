"""Hand poses within anatomical limits, fingers moving together as real ones do.

A pose is 15 joints x 3 angles (flexion, abduction, twist) about axes taken from the open hand's rest bones, so a limit
is one number in degrees. Ranges of motion follow the American Academy of Orthopaedic Surgeons (Joint Motion: Method of
Measuring and Recording, 1965) and Kapandji (The Physiology of the Joints, vol. 1): fingers MCP -20..90, PIP 0..100,
DIP 0..80, spread about +-15; thumb CMC -10..35 across and -15..40 out of the palm, MCP 0..50, IP -10..75. The DIP
follows the PIP at about two thirds (Cobos et al., 2008).
"""

from __future__ import annotations

import numpy as np

from utnet.conventions import NUM_BETAS
from utnet.hand.arrays import load_open_hand

NUM_HAND_JOINTS = 15

PALM_M = np.array([-0.08, -0.01, 0.0])
"""The middle of the right open hand from its wrist, hand frame."""

# Degrees, MANO order without the wrist: index, middle, little, ring (MCP, PIP, DIP each), thumb (CMC, MCP, IP).
_FINGER_FLEXION = ((-20, 90), (0, 100), (0, 80))
_SPREAD = {"index": (-8, 16), "middle": (-8, 8), "little": (-22, 10), "ring": (-12, 8)}
_NONE = (0, 0)


def _limits() -> np.ndarray:
    rows = []
    for finger in ("index", "middle", "little", "ring"):
        for level, flexion in enumerate(_FINGER_FLEXION):
            rows.append((flexion, _SPREAD[finger] if level == 0 else _NONE, _NONE))
    rows.append(((-10, 35), (-15, 40), (-15, 25)))
    rows.append(((-5, 50), (-8, 8), _NONE))
    rows.append(((-10, 75), _NONE, _NONE))
    return np.deg2rad(np.array(rows, float))


JOINT_LIMITS_RAD = _limits()
"""(15, 3, 2) smallest and largest flexion, abduction (towards the thumb; for the thumb: out of the palm) and twist."""

_THUMB_FLEXION = (0.577, -0.797, 0.176)
"""The wide axis of the open hand's last thumb segment: its nail and pad lie across it."""


def _axes() -> np.ndarray:
    """(15, 3, 3) unit axes of flexion, abduction and twist, in the rest frame of the right open hand."""
    hand = load_open_hand()
    J, tips = hand.J_template.astype(float), hand.v_template[hand.tip_vertices].astype(float)
    ends = np.empty((15, 3))
    for joint in range(1, 16):
        finger = {0: 1, 1: 2, 2: 4, 3: 3, 4: 0}[(joint - 1) // 3]  # MANO's fingers to the tips' order
        ends[joint - 1] = tips[finger] if joint % 3 == 0 else J[joint + 1]
    bone = ends - J[1:]
    bone /= np.linalg.norm(bone, axis=1, keepdims=True)
    palm = np.array([0.0, -1.0, 0.0])
    flexion = np.cross(bone, palm)
    flexion[12:] = _THUMB_FLEXION
    abduction = np.tile([0.0, 1.0, 0.0], (15, 1))
    abduction[12:] = np.cross(bone[12:], palm)  # the thumb leaves the palm
    axes = np.stack([flexion, abduction, bone], 1)
    return axes / np.linalg.norm(axes, axis=-1, keepdims=True)


AXES = _axes()


def _cross_matrices() -> np.ndarray:
    x, y, z = np.moveaxis(AXES, -1, 0)
    zero = np.zeros_like(x)
    return np.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*AXES.shape, 3)


_K = _cross_matrices()
_KK = _K @ _K


def angles_to_pose(angles_rad: np.ndarray) -> np.ndarray:
    """(..., 15, 3) flexion, abduction, twist -> (..., 15, 3, 3) rotations: abduction, then flexion, then twist."""
    # The axes are fixed, so Rodrigues' formula needs only a sine and a cosine an angle.
    sin, cos = np.sin(angles_rad)[..., None, None], np.cos(angles_rad)[..., None, None]
    turns = np.eye(3) + sin * _K + (1 - cos) * _KK
    return turns[..., 1, :, :] @ turns[..., 0, :, :] @ turns[..., 2, :, :]


def sample_angles(rng: np.random.Generator) -> np.ndarray:
    """A random pose as (15, 3) angles in radians within `JOINT_LIMITS_RAD`.

    Four fifths of the hands curl their fingers together with neighbours alike, the others stretch some fingers and
    close the rest. Spreading dies out as the fingers close, and the thumb lies over closed fingers, not inside them.
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
    """(10,) shape coefficients: normal with the given standard deviation, at most 2.5 of them from the mean."""
    return np.clip(rng.normal(size=NUM_BETAS), -2.5, 2.5) * std


def sample_orientation(rng: np.random.Generator, max_tilt_deg: float = 180.0) -> np.ndarray:
    """(3, 3) rotation of the hand into a camera that it faces, uniform.

    Args:
        max_tilt_deg: largest angle between the viewing axis and the palm's normal or its opposite; from 90 on the
            rotations are uniform over the whole sphere.
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
        if abs(R[2, 1]) >= np.cos(np.deg2rad(min(max_tilt_deg, 90.0))) - 1e-9:  # the palm's normal is the hand's y axis
            return R
