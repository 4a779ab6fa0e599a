"""Angles of the joints in degrees under their clinical names, as CSV. Not a medical device.

Flexion is positive towards the palm, abduction away from the middle finger (the middle finger's: towards the thumb; the
thumb's: out of the palm). Flexion is 0 in a flat hand with straight fingers, the open hand's rest pose; abduction is 0
if a finger is parallel to the middle finger of that pose; the thumb's angles are 0 at rest. Axes are those of
`utnet.hand.anatomy`. The standard error is the root mean square error that `benchmarks/angles.py` measured for the
angle, the method and the input (RGB, RGB-D) on drawn hands (assets/angles.json); it is not specific to this hand.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from utnet.conventions import FINGERS, MANO_JOINT_NAMES
from utnet.fit.angles import pose_to_angles
from utnet.hand.anatomy import anatomical_axes
from utnet.hand.arrays import load_open_hand
from utnet.io.atomic import atomic_file
from utnet.predict.confidence import kind_of
from utnet.predict.formats import PredictedFrame
from utnet.predict.hand import Hand

_FLEXION, _ABDUCTION = 0, 1
_MIRROR = np.array([-1.0, 1.0, 1.0])
ANGLES = tuple(
    (f"{name}_{motion}", joint, axis)
    for finger in FINGERS
    for joint, name in enumerate(MANO_JOINT_NAMES[1:])
    if name.startswith(finger)
    for motion, axis in (("flexion", _FLEXION), ("abduction", _ABDUCTION))
    if axis == _FLEXION or joint in (0, 3, 6, 9, 12)
)
"""Name, row of `hand_pose` and axis of each angle: MCP, PIP, DIP of the fingers, CMC, MCP, IP of the thumb."""
_SIGNS = np.array([-1.0 if axis == _ABDUCTION and joint in (6, 9) else 1.0 for _, joint, axis in ANGLES])
"""The model's abduction is towards the thumb; ring and little finger abduct the other way."""
_HEAD = ("file", "frame", "time_s", "track", "side", "valid", "score")


def clinical_angles(hand_pose: np.ndarray, side: str) -> np.ndarray:
    """Returns the angles (20,) in degrees, in the order of `ANGLES`, of (15, 3, 3) rotations of a hand of that side."""
    mirror = np.outer(_MIRROR, _MIRROR) if side == "left" else 1.0
    angles = np.rad2deg(pose_to_angles(hand_pose * mirror, _axes()))
    angles[[0, 3, 6, 9], _ABDUCTION] += _rest_spread_deg()
    return angles[[joint for _, joint, _ in ANGLES], [axis for _, _, axis in ANGLES]] * _SIGNS


def standard_errors(hand: Hand) -> np.ndarray | None:
    """Returns the standard errors (20,) of `clinical_angles` in degrees, or None if not measured."""
    measured = _measured()["kinds"].get(kind_of(hand.method, with_depth=hand.distance_source == "sensor"))
    if measured is None or hand.hand_model != "open":  # measured for the open hand only
        return None
    of_name = dict(zip(_measured()["angles"], measured["rms_deg"], strict=True))
    return np.array([of_name[name] for name, _, _ in ANGLES])


@contextmanager
def open_writer(path: Path) -> Iterator[AnglesWriter]:
    """Opens the CSV, written line by line."""
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        yield AnglesWriter(file)


class AnglesWriter:
    """Writes a header, and a line for each hand and frame, to an open file."""

    def __init__(self, file: Any):
        self._csv = csv.writer(file)
        columns = [column for name, _, _ in ANGLES for column in (f"{name}_deg", f"{name}_se_deg")]
        self._csv.writerow([*_HEAD, *columns])

    def add(self, frame: PredictedFrame) -> None:
        """Appends a line for each hand; unknown standard errors are empty."""
        for hand in frame.hands:
            angles, errors = clinical_angles(hand.params.hand_pose, hand.side), standard_errors(hand)
            known = np.full(len(angles), np.nan) if errors is None else errors
            pairs = [["" if np.isnan(x) else f"{x:.1f}" for x in pair] for pair in zip(angles, known, strict=True)]
            track = "" if hand.track is None else hand.track
            head = [frame.file, frame.index, f"{frame.time_s:.4f}", track, hand.side, int(hand.valid)]
            self._csv.writerow([*head, f"{hand.score:.4f}", *(text for pair in pairs for text in pair)])


@cache
def _axes() -> np.ndarray:
    return anatomical_axes(load_open_hand())


@cache
def _rest_spread_deg() -> np.ndarray:
    """(4,) directions of index, middle, little and ring finger at rest from that of the middle finger, in the plane of
    the palm, positive towards the thumb."""
    joints = load_open_hand().J_template
    bones = joints[[2, 5, 8, 11]] - joints[[1, 4, 7, 10]]
    directions = np.rad2deg(np.arctan2(bones[:, 2], -bones[:, 0]))
    return directions - directions[1]


@cache
def _measured() -> dict[str, Any]:
    return json.loads((files("utnet") / "assets" / "angles.json").read_text(encoding="utf-8"))
