"""Predictions as NumPy arrays, one row per hand."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from utnet.conventions import NUM_JOINTS
from utnet.io.atomic import atomic_write
from utnet.predict.hand import Hand
from utnet.rotations import matrix_to_axis_angle


class HandRows:
    """Collects hands of a picture or a video into one .npz; docs/predictions.md lists the fields.

    Args:
        with_vertices: include vertices and faces (not for videos: the parameters decode to them).
    """

    def __init__(self, *, with_vertices: bool):
        self._with_vertices = with_vertices
        self._rows: list[dict[str, np.ndarray]] = []
        self._faces: dict[str, np.ndarray] = {}

    def add(self, hands: Sequence[Hand], frame: int = 0, time_s: float = 0.0) -> None:
        """Appends the hands of a frame."""
        for hand in hands:
            row = hand_row(hand, frame, time_s)
            if self._with_vertices:
                row["vertices_cam_m"] = hand.vertices_cam_m.astype(np.float32)
                self._faces[f"faces_{hand.side}"] = hand.faces.astype(np.int32)
            self._rows.append(row)

    def write(self, path: Path) -> None:
        """Writes the file atomically; without hands it contains an empty `frame` only."""
        columns = {name: np.stack([row[name] for row in self._rows]) for name in (self._rows[0] if self._rows else ())}
        data = io.BytesIO()
        np.savez_compressed(data, **(columns or {"frame": np.zeros(0, np.int32)}), **self._faces)  # type: ignore[arg-type]
        atomic_write(path, data.getvalue())


def hand_row(hand: Hand, frame: int, time_s: float) -> dict[str, np.ndarray]:
    """Returns one hand's fields; missing ones are -1 (`track`) or NaN (`joint_error_mm`)."""
    error_mm = np.full(NUM_JOINTS, np.nan) if hand.joint_error_mm is None else hand.joint_error_mm
    return {
        "frame": np.array(frame, np.int32),
        "time_s": np.array(time_s, np.float64),
        "track": np.array(-1 if hand.track is None else hand.track, np.int32),
        "side": np.array(hand.side, "U5"),
        "side_probability": np.array(hand.side_probability, np.float32),
        "score": np.array(hand.score, np.float32),
        "presence": np.array(hand.presence, np.float32),
        "valid": np.array(hand.valid, bool),
        "box_px": hand.box_px.astype(np.float32),
        "K_px": hand.K_px,
        "joints_cam_m": hand.joints_cam_m.astype(np.float32),
        "joints_px": hand.joints_px.astype(np.float32),
        "T_cam_wrist": hand.T_cam_wrist.astype(np.float32),
        "joints_wrist_m": hand.joints_wrist_m.astype(np.float32),
        "joint_error_mm": error_mm.astype(np.float32),
        "global_orient_axis_angle": matrix_to_axis_angle(hand.params.global_orient)[0].astype(np.float32),
        "hand_pose_axis_angle": matrix_to_axis_angle(hand.params.hand_pose).astype(np.float32),
        "betas": hand.params.betas.astype(np.float32),
        "transl_m": hand.params.transl_m.astype(np.float32),
    }
