"""What a detector says of one hand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Detection:
    """A detected hand in one picture, numpy.

    Attributes:
        side: "right" or "left": whose hand it is in an ordinary (not mirrored) picture.
        score: in [0, 1], that there is a hand.
        box_px: (4,) tight box x0, y0, x1, y1 of the hand.
        joints_px: (21, 2) landmarks in the picture, OpenPose-21.
        joints_m: (21, 3) landmarks in metres relative to the hand's middle, axes as the picture's (x right, y down,
            z forward), turned back from the detector's own region.
        joint_confidence: (21,) of landmarks that did not come from the detector alone (`predict.given_landmarks`): 1
            where a person placed the joint, 0 where there is none; None: all are the detector's.
        track: number of the hand through a video, None in a single picture.
    """

    side: str
    score: float
    box_px: np.ndarray
    joints_px: np.ndarray
    joints_m: np.ndarray
    track: int | None = None
    joint_confidence: np.ndarray | None = None
