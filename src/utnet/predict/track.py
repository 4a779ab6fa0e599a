"""A hand through a video: its smoothed parameters over time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from utnet.predict.hand import Hand


@dataclass(frozen=True)
class HandTrack:
    """A tracked hand, one row per frame with a mesh.

    Attributes:
        track: its number.
        side: "right" or "left".
        hand_model: "open" or "mano".
        frames: (T,) increasing indices.
        times_s: (T,) since the video's first frame.
        valid: (T,) bool, the hand was detected in the frame, not interpolated.
        wrist_cam_m: (T, 3) joint 0 in the camera's frame.
        rotations: (T, 16, 3, 3) MANO order: the root's in the camera, then each joint's relative to its parent.
        betas: (10,) one shape: the last frame's, with smoothing the mean over the track.
    """

    track: int
    side: str
    hand_model: str
    frames: np.ndarray
    times_s: np.ndarray
    valid: np.ndarray
    wrist_cam_m: np.ndarray
    rotations: np.ndarray
    betas: np.ndarray

    def gaps_s(self) -> list[tuple[float, float]]:
        """Returns start and end times of the losses between the first and last frame."""
        seen, frames = self.times_s[self.valid], self.frames[self.valid]
        lost = np.flatnonzero(np.diff(frames) > 1)
        return [(float(seen[i]), float(seen[i + 1])) for i in lost]


class TrackCollector:
    """Collects the hands of a video, frame by frame, into tracks. A track that changes its side becomes two."""

    def __init__(self) -> None:
        self._rows: dict[tuple[int, str], list[tuple]] = {}
        self._last: dict[tuple[int, str], Hand] = {}

    def add(self, hands: Sequence[Hand], frame: int, time_s: float) -> None:
        """Appends a frame's hands; those without a track are numbered by position."""
        for number, hand in enumerate(hands):
            key = (number if hand.track is None else hand.track, hand.side)
            rotations = np.concatenate([hand.params.global_orient, hand.params.hand_pose]).astype(np.float32)
            row = (frame, time_s, hand.valid, hand.joints_cam_m[0], rotations)
            self._rows.setdefault(key, []).append(row)
            self._last[key] = hand

    def tracks(self) -> list[HandTrack]:
        """Returns the tracks, by number and side."""
        found = []
        for (track, side), rows in sorted(self._rows.items()):
            frames, times, valid, wrists, rotations = (np.array(column) for column in zip(*rows, strict=True))
            last = self._last[track, side]
            found.append(
                HandTrack(track, side, last.hand_model, frames, times, valid, wrists, rotations, last.params.betas)
            )
        return found
