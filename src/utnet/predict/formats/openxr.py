"""Hands in the form of OpenXR (XR_EXT_hand_tracking) and WebXR (WebXR Hand Input): 26 joints with poses and radii.

Axes of a joint, as both specifications define them: -Z along the bone towards the tip (of the last bone for a tip), +Y
out of the back of the hand, across the axis about which the joint bends, +X to the right of both. Poses are in the view
space of the camera: right-handed, x right, y up, -z forward, metres; quaternions are x, y, z, w.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import utnet
from utnet.conventions import FINGERS, JOINT_NAMES, NUM_JOINTS
from utnet.hand.anatomy import anatomical_axes
from utnet.hand.arrays import load_open_hand
from utnet.io.atomic import atomic_file
from utnet.predict.formats import PredictedFrame
from utnet.predict.hand import Hand
from utnet.rotations import matrix_to_quaternion

_BONES = ("metacarpal", "phalanx-proximal", "phalanx-intermediate", "phalanx-distal", "tip")
_THUMB = tuple(f"thumb-{bone}" for bone in _BONES if bone != "phalanx-intermediate")
_NAMES = ("index-finger", "middle-finger", "ring-finger", "pinky-finger")
WEBXR_JOINTS = ("wrist", *_THUMB, *(f"{name}-{bone}" for name in _NAMES for bone in _BONES))
"""WebXR's 25 names, in the order of XRHand. OpenXR's 26 are the palm and these: XR_HAND_JOINT_PALM_EXT is 0."""
OPENXR_JOINTS = ("palm", *WEBXR_JOINTS)

_METACARPAL_SHARE = 0.2
"""Bases of the metacarpals, as fractions of the way from wrist to knuckle; the hand model has no such joints."""
_RADII_M = {"palm": 0.02, "wrist": 0.022, "metacarpal": 0.015, "proximal": 0.0105, "intermediate": 0.009}
_RADII_M |= {"distal": 0.008, "tip": 0.0065}
"""Radii of an average hand whose middle finger's knuckle is `_PALM_M` from the wrist."""
_PALM_M = 0.092
_TO_VIEW = np.diag([1.0, -1.0, -1.0])

# XrHandJointLocationFlags: XR_SPACE_LOCATION_{ORIENTATION,POSITION}_{VALID,TRACKED}_BIT
VALID, TRACKED = 0b0011, 0b1100


def to_openxr(hand: Hand) -> dict[str, Any]:
    """Returns the 26 joints of a hand.

    Returns:
        `joints`: names; `position_m` (26, 3); `orientation_xyzw` (26, 4); `radius_m` (26,); `flags` (26,) of
        XrSpaceLocationFlags: always valid, tracked if the hand was detected; `is_active`.
    """
    places, rotations, radii = openxr_joints(hand)
    return {
        "side": hand.side,
        "is_active": bool(hand.valid),
        "joints": list(OPENXR_JOINTS),
        "position_m": places,
        "orientation_xyzw": matrix_to_quaternion(rotations),
        "radius_m": radii,
        "flags": np.full(len(OPENXR_JOINTS), VALID | TRACKED if hand.valid else VALID),
    }


def openxr_joints(hand: Hand) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns places (26, 3), rotations (26, 3, 3) and radii (26,) in view space, in the order of `OPENXR_JOINTS`."""
    joints = hand.joints_cam_m @ _TO_VIEW
    backs = _backs(hand) @ _TO_VIEW
    back, along = backs[0], joints[9] - joints[0]
    palm = (joints[0] + joints[9]) / 2
    places, axes = [palm, joints[0]], [_frame(along, back)] * 2
    for number, finger in enumerate(FINGERS):
        chain = joints[1 + 4 * number : 5 + 4 * number]
        of_chain = backs[1 + 4 * number : 5 + 4 * number]
        if finger != "thumb":
            start = joints[0] + _METACARPAL_SHARE * (chain[0] - joints[0])
            chain, of_chain = np.vstack([start, chain]), np.vstack([back, of_chain])
        bones = np.diff(chain, axis=0)
        places += list(chain)
        axes += [_frame(bone, up) for bone, up in zip([*bones, bones[-1]], of_chain, strict=True)]
    scale = float(np.linalg.norm(along)) / _PALM_M
    radii = [next(r for part, r in _RADII_M.items() if name.endswith(part)) * scale for name in OPENXR_JOINTS]
    return np.array(places), np.array(axes), np.array(radii)


def _backs(hand: Hand) -> np.ndarray:
    """(21, 3) direction out of the back of the hand at each joint, camera frame: across the axis of its bending."""
    flip = np.array([-1.0, 1.0, 1.0]) if hand.side == "left" else np.ones(3)
    rest = _rest_backs() * flip
    R = [hand.params.global_orient[0]]
    for joint in range(15):
        R.append(R[0 if joint % 3 == 0 else joint] @ hand.params.hand_pose[joint])
    backs = np.empty((NUM_JOINTS, 3))
    backs[0] = R[0] @ [0.0, 1.0, 0.0]
    for joint, name in enumerate(_MANO_ROWS):
        backs[name] = R[1 + joint] @ rest[joint]
    for tip in range(4, NUM_JOINTS, 4):
        backs[tip] = backs[tip - 1]
    return backs


_MANO_ROWS = [
    JOINT_NAMES.index(f"{finger}_{joint}")
    for finger in ("index", "middle", "little", "ring", "thumb")
    for joint in (("cmc", "mcp", "ip") if finger == "thumb" else ("mcp", "pip", "dip"))
]
"""OpenPose-21 joint of each of MANO's joints 1 to 15."""


def _rest_backs() -> np.ndarray:
    """(15, 3) in the right hand's rest frame: bone x flexion axis, so that bending turns the bone away from it."""
    axes = anatomical_axes(load_open_hand())
    return np.cross(axes[:, 0], axes[:, 2]) * -1.0


def _frame(along: np.ndarray, back: np.ndarray) -> np.ndarray:
    """(3, 3) rotation with -Z along the bone and +Y as close to the back's direction as possible."""
    z = -along / np.linalg.norm(along)
    x = np.cross(back, z)
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z], 1)


@contextmanager
def open_writer(path: Path) -> Iterator[OpenXRWriter]:
    """Opens JSON lines, one per hand and frame; the first has the names of the joints."""
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        head = {"schema": "utnet-openxr", "version": 1, "utnet": utnet.__version__, "joints": OPENXR_JOINTS}
        space = "view: the camera, x right, y up, -z forward"
        file.write(json.dumps({**head, "unit": "m", "space": space}) + "\n")
        yield OpenXRWriter(file)


class OpenXRWriter:
    """Writes lines to an open file."""

    def __init__(self, file: Any):
        self._file = file

    def add(self, frame: PredictedFrame) -> None:
        """Appends a line for each hand."""
        for hand in frame.hands:
            joints = to_openxr(hand)
            line = {"file": frame.file, "frame": frame.index, "time_s": round(frame.time_s, 6), "track": hand.track}
            line |= {"side": hand.side, "is_active": joints["is_active"], "score": round(hand.score, 4)}
            for name in ("position_m", "orientation_xyzw", "radius_m"):
                line[name] = np.round(joints[name], 6).tolist()
            self._file.write(json.dumps({**line, "flags": joints["flags"].tolist()}) + "\n")
