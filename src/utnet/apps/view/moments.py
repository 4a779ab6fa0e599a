"""Displayed frames, with pictures and depth in a temporary file, and hands as records of predictions.json."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from utnet.hand import NumpyHandModel
from utnet.rotations import axis_angle_to_matrix


@dataclass(frozen=True)
class ShownHand:
    """A hand of predictions.json.

    Attributes:
        name: side and track such as "right_1", constant over time.
        side: "right" or "left".
        valid: detected in this frame, not interpolated.
        joints_cam_m: (21, 3).
        vertices_cam_m: (V, 3); None for MANO hands, which the open model cannot decode.
        faces: (F, 3), or None.
    """

    name: str
    side: str
    valid: bool
    joints_cam_m: np.ndarray
    vertices_cam_m: np.ndarray | None = None
    faces: np.ndarray | None = None


@dataclass(frozen=True)
class Moment:
    """A frame or a picture.

    Attributes:
        name: for display.
        time_s: since the start of its recording.
        size_px: width and height of the picture.
        K_px: (3, 3) intrinsics; None: unknown.
        T_world_cam: (4, 4) pose of the camera; the identity if unknown.
        hands: by name, the record of each in predictions.json.
        rgb: (h, w, 3) uint8, downscaled; None: not available.
        points_cam_m: (N, 3) float32, from the depth image; None: no depth.
        colors: (N, 3) uint8, of the points.
    """

    name: str
    time_s: float
    size_px: tuple[int, int]
    K_px: np.ndarray | None = None
    T_world_cam: np.ndarray = field(default_factory=lambda: np.eye(4))
    hands: dict[str, dict] = field(default_factory=dict)
    rgb: np.ndarray | None = None
    points_cam_m: np.ndarray | None = None
    colors: np.ndarray | None = None


_ARRAYS = ("rgb", "points_cam_m", "colors")
_MOST_PATHS = 1000
"""Tracks whose path is kept, with 24 bytes a moment."""


class Moments(Sequence[Moment]):
    """Moments whose arrays are kept in a temporary file, in constant memory; a context manager."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="utnet_view_")  # noqa: SIM115
        self._moments: list[tuple[Moment, int, int]] = []
        right = NumpyHandModel.open()
        self._models = {"right": right, "left": right.mirrored()}

    def __enter__(self) -> Moments:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._moments)

    def __getitem__(self, i):  # an int
        moment, start, size = self._moments[i]
        self._file.seek(start)
        with np.load(io.BytesIO(self._file.read(size))) as arrays:
            return replace(moment, **dict(arrays))

    def add(self, moment: Moment) -> None:
        """Appends a moment."""
        data = io.BytesIO()
        given = {name: getattr(moment, name) for name in _ARRAYS if getattr(moment, name) is not None}
        np.savez(data, **given)
        start = self._file.seek(0, io.SEEK_END)
        self._file.write(data.getvalue())
        bare = replace(moment, rgb=None, points_cam_m=None, colors=None)
        self._moments.append((bare, start, len(data.getvalue())))

    def hands(self, i: int) -> list[ShownHand]:
        """Returns the hands of a moment, decoded."""
        return [self._decoded(name, record) for name, record in self._moments[i][0].hands.items()]

    def wrists(self) -> dict[str, np.ndarray]:
        """Returns the wrist of each track, by name: (T, 3) metres in the world over all moments, NaN if missing."""
        paths: dict[str, np.ndarray] = {}
        for i, (moment, _, _) in enumerate(self._moments):
            for name, record in moment.hands.items():
                if record["track"] is None:  # of another picture, possibly of another person
                    continue
                if len(paths) == _MOST_PATHS and name not in paths:
                    continue
                path = paths.setdefault(name, np.full((len(self), 3), np.nan))
                R, t = moment.T_world_cam[:3, :3], moment.T_world_cam[:3, 3]
                path[i] = R @ np.asarray(record["joints_cam_m"][0], float) + t
        return paths

    def _decoded(self, name: str, record: dict) -> ShownHand:
        joints = np.asarray(record["joints_cam_m"], float)
        hand = ShownHand(name, record["side"], record["valid"] is not False, joints)
        if record["hand_model"] not in (None, "open"):
            return hand
        model = self._models[hand.side]
        root = axis_angle_to_matrix(np.asarray(record["global_orient_axis_angle"], float)).reshape(1, 1, 3, 3)
        pose = axis_angle_to_matrix(np.asarray(record["hand_pose_axis_angle"], float)).reshape(1, 15, 3, 3)
        mesh = model(root, pose, np.asarray(record["betas"], float)[None])
        vertices = mesh.vertices_m[0] - mesh.joints_m[0, 0] + joints[0]
        return replace(hand, vertices_cam_m=vertices.astype(np.float32), faces=model.faces)
