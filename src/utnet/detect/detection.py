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
        track: number of the hand through a video, None in a single picture.
        side_probability: in [0, 1], that `side` is right; 1 where the user gave the side.
        agreement: mean distance between the landmarks of two looks at the hand in percent of the box; None where it
            was looked at once.
    """

    side: str
    score: float
    box_px: np.ndarray
    joints_px: np.ndarray
    joints_m: np.ndarray
    track: int | None = None
    side_probability: float = 1.0
    agreement: float | None = None
