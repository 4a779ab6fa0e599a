"""Anatomy of the hand: axes of flexion, abduction and twist of the joints, and their limits.

A pose is 15 joints x 3 angles about axes derived from the rest bones of the model, so each limit is an angle. Ranges
of motion follow the American Academy of Orthopaedic Surgeons (Joint Motion: Method of Measuring and Recording, 1965)
and Kapandji (The Physiology of the Joints, vol. 1): fingers MCP -20..90, PIP 0..100, DIP 0..80, spread about +-15;
thumb CMC -10..35 across and -15..40 out of the palm, MCP 0..50, IP -10..75.
"""

from __future__ import annotations

import numpy as np

from utnet.hand.arrays import HandArrays

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
"""Flexion axis of the open hand's thumb: the wide axis of its last segment, parallel to the nail."""


def anatomical_axes(hand: HandArrays) -> np.ndarray:
    """Returns (15, 3, 3) unit axes of flexion, abduction and twist in the rest frame of a right hand (open or MANO)."""
    J, tips = hand.J_template.astype(float), hand.v_template[hand.tip_vertices].astype(float)
    ends = np.empty((15, 3))
    for joint in range(1, 16):
        finger = {0: 1, 1: 2, 2: 4, 3: 3, 4: 0}[(joint - 1) // 3]  # order of MANO's fingers to that of the tips
        ends[joint - 1] = tips[finger] if joint % 3 == 0 else J[joint + 1]
    bone = ends - J[1:]
    bone /= np.linalg.norm(bone, axis=1, keepdims=True)
    palm = np.array([0.0, -1.0, 0.0])
    flexion = np.cross(bone, palm)
    flexion[12:] = _THUMB_FLEXION
    abduction = np.tile([0.0, 1.0, 0.0], (15, 1))
    abduction[12:] = np.cross(bone[12:], palm)  # the thumb moves out of the palm
    axes = np.stack([flexion, abduction, bone], 1)
    return axes / np.linalg.norm(axes, axis=-1, keepdims=True)
