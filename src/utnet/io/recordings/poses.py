"""Poses of a camera over time."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from utnet.errors import InputError
from utnet.rotations import quaternion_to_matrix

_ARKIT_TO_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])


class CameraPoses:
    """Poses of a camera in a world by time.

    Args:
        times_s: (N,) on the clock of the recording.
        T_world_cam: (N, 4, 4), OpenCV axes.
    """

    def __init__(self, times_s: np.ndarray, T_world_cam: np.ndarray):
        order = np.argsort(times_s)
        self._times_s, self._T_world_cam = times_s[order], T_world_cam[order]

    def at(self, time_s: float, tolerance_s: float) -> np.ndarray | None:
        """Returns the (4, 4) pose nearest in time, or None if none is within the tolerance."""
        i = int(np.argmin(np.abs(self._times_s - time_s)))
        return self._T_world_cam[i] if abs(self._times_s[i] - time_s) <= tolerance_s else None


def read_poses(path: str | Path, *, arkit: bool = False) -> CameraPoses:
    """Reads a trajectory in TUM's format: `time tx ty tz qx qy qz qw` a line (file formats of the TUM RGB-D benchmark).

    Args:
        path: the file.
        arkit: the camera has ARKit's axes (x right, y up, z back) instead of OpenCV's.

    Raises:
        InputError: no such file, or not such a trajectory.
    """
    path = Path(path)
    try:
        lines = [line.split() for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]
        rows = np.array([[float(word) for word in line] for line in lines])
        if rows.ndim != 2 or rows.shape[1] != 8 or not np.isfinite(rows).all():
            raise ValueError("expected 8 numbers a line")
        lengths = np.linalg.norm(rows[:, 4:], axis=1)
        if (np.abs(lengths - 1) > 0.01).any():
            raise ValueError("a quaternion is not of length 1")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise InputError(f"{path}: not a trajectory of TUM (time tx ty tz qx qy qz qw a line): {error}") from error
    T = np.tile(np.eye(4), (len(rows), 1, 1))
    T[:, :3, :3] = [quaternion_to_matrix(q) for q in rows[:, 4:]]
    T[:, :3, 3] = rows[:, 1:4]
    return CameraPoses(rows[:, 0], T @ _ARKIT_TO_OPENCV if arkit else T)
