"""What a detector says of one hand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SIDE_DOUBT_BELOW = 0.8
"""A side less probable than this is in doubt."""


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
        side_probability: in [0.5, 1], that `side` is right; 1.0 where the user gave it. Of a track the mean of its
            frames.
        agreement: mean distance between the landmarks of two looks (in the first region and in the tighter one of its
            landmarks) in percent of the box, 2 to 5 of hands that are seen well; None where a video's hand is followed
            by a single look.
        joint_confidence: (21,) of landmarks that did not come from the detector alone (`predict.given_landmarks`): 1
            where a person placed the joint, 0 where there is none; None: all are the detector's.
    """

    side: str
    score: float
    box_px: np.ndarray
    joints_px: np.ndarray
    joints_m: np.ndarray
    track: int | None = None
    side_probability: float = 1.0
    agreement: float | None = None
    joint_confidence: np.ndarray | None = None

    @property
    def doubts(self) -> tuple[str, ...]:
        """What should be checked: "side" where it is less probable than 0.8."""
        return ("side",) if self.side_probability < SIDE_DOUBT_BELOW else ()
