"""MediaPipe's hand landmark network: a region of a picture -> 21 landmarks, presence and side."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from utnet.detect.networks import open_network, run
from utnet.detect.regions import Pyramid, Region

SIZE_PX = 224


@dataclass(frozen=True)
class Landmarks:
    """Output of the network for one region.

    Attributes:
        joints_px: (21, 2) in the picture, OpenPose-21.
        joints_m: (21, 3) metres from the hand's middle, axes as the picture's (x right, y down, z forward).
        presence: in [0, 1], probability of a hand.
        right: in [0, 1], probability of a right hand (in an ordinary picture, not mirrored).
        agreement: mean distance from the landmarks of an earlier pass, in percent of the box; None for a single pass.
    """

    joints_px: np.ndarray
    joints_m: np.ndarray
    presence: float
    right: float
    agreement: float | None = None

    def resized(self, x: float, y: float) -> Landmarks:
        """The same hand in the picture scaled by x and y; pixel edges map to edges."""
        scale = np.array([x, y])
        return replace(self, joints_px=(self.joints_px + 0.5) * scale - 0.5)


class LandmarkNetwork:
    """Landmarks of the hand in a region."""

    def __init__(self):
        self._session = open_network("landmark")

    def __call__(self, picture: np.ndarray | Pyramid, region: Region) -> Landmarks:
        """Predicts landmarks in (H, W, 3) uint8, also where there is no hand (see `presence`)."""
        crop = region.cut(picture, SIZE_PX).astype(np.float32) / 255
        points, presence, right, world = run(self._session, crop)
        A = region.to_picture(SIZE_PX)
        joints = points.reshape(21, 3)[:, :2].astype(float) - 0.5  # edges at 0 -> pixel centres at 0
        turn = np.eye(3)
        turn[:2, :2] = A[:, :2] * (SIZE_PX / region.side_px)
        return Landmarks(
            joints_px=joints @ A[:, :2].T + A[:, 2],
            joints_m=world.reshape(21, 3).astype(float) @ turn.T,
            presence=float(presence[0]),
            right=float(right[0]),
        )

    def mirrored_right(self, picture: np.ndarray | Pyramid, region: Region) -> float:
        """Probability of a right hand in a region, predicted from its mirror image."""
        _, _, left, _ = run(self._session, region.cut(picture, SIZE_PX)[:, ::-1].astype(np.float32) / 255)
        return 1 - float(left[0])
