"""Reads predictions.json of version 3, and of version 2 converted to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from utnet.errors import BAD_TREE, InputError, first_line, shown
from utnet.predict.files import SCHEMA, SCHEMA_VERSION
from utnet.rotations import axis_angle_to_matrix

_DISTANCE_SOURCE = {"depth": "sensor", "size": "hand_size"}
"""`distance_from` of version 2."""


def read_predictions(path: str | Path) -> dict[str, Any]:
    """The contents of a predictions.json in the format of docs/predictions.md.

    Files of version 2 are converted: their `score` becomes `presence`, fields that they lack (`score`,
    `side_probability`, `shape_source`, `joint_error_mm`) are null, and `valid` is true. `landmarks_percent`, of
    version 2 and early files of version 3, becomes `landmark_error_percent`.

    Raises:
        InputError: no such file, not a predictions.json, damaged, or of a later version.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a predictions.json of utnet predict")
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        schema, version = tree["schema"], tree["version"]
    except BAD_TREE as error:
        raise InputError(f"{path}: not a predictions.json of utnet predict, or damaged; write it again") from error
    if schema != SCHEMA:
        raise InputError(f"{path}: schema is {shown(schema)}, expected {SCHEMA!r}; give a file of utnet predict")
    if version not in (2, SCHEMA_VERSION):
        raise InputError(f"{path}: version {shown(version)}; supported are 2 and {SCHEMA_VERSION}; update utnet")
    try:
        for hand in _hands(tree):
            if version == 2:
                _upgrade(hand)
            if "landmarks_percent" in hand:
                hand["landmark_error_percent"] = hand.pop("landmarks_percent")
    except BAD_TREE as error:
        raise InputError(f"{path}: damaged ({first_line(error)}); write it again with utnet predict") from error
    tree["version"] = SCHEMA_VERSION
    return tree


def _hands(tree: dict) -> Iterator[dict]:
    for record in [*tree["images"], *tree["videos"]]:
        for frame in record.get("frames", [record]):
            yield from frame["hands"]


def _upgrade(hand: dict) -> None:
    """A hand of version 2 with the fields of version 3."""
    joints = np.array(hand["joints_cam_m"], float)
    T = np.eye(4)
    T[:3, :3] = axis_angle_to_matrix(np.array(hand["global_orient_axis_angle"], float))
    T[:3, 3] = joints[0]
    hand.update(
        side_probability=None,
        presence=hand["score"],
        score=None,
        valid=True,
        distance_source=_DISTANCE_SOURCE[hand.pop("distance_from")],
        shape_source=None,
        T_cam_wrist=T.tolist(),
        joints_wrist_m=((joints - joints[0]) @ T[:3, :3]).tolist(),
        joint_error_mm=None,
    )
