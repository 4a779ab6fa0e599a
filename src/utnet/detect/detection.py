"""A detected hand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SIDE_DOUBT_BELOW = 0.8
"""Probability of the side below which it is reported as doubtful."""


@dataclass(frozen=True)
class Detection:
    """A detected hand in one picture, numpy.

    Attributes:
        side: "right" or "left", in an ordinary (not mirrored) picture.
        score: in [0, 1], probability of a hand.
        box_px: (4,) tight box x0, y0, x1, y1 of the hand.
        joints_px: (21, 2) landmarks in the picture, OpenPose-21.
        joints_m: (21, 3) landmarks in metres relative to the hand's middle, axes as the picture's (x right, y down,
            z forward), turned back from the detector's own region.
        track: number of the hand in a video, None in a single picture.
        side_probability: in [0.5, 1], that `side` is correct; 1.0 if given by the user: a lower one lets a network that
            predicts sides turn it (`Predictor.from_detections`). For a track the mean over its frames.
        agreement: mean distance between the landmarks of two passes (in the first region and in the tighter one of its
            landmarks) in percent of the box, 2 to 5 for clearly visible hands; None for tracked hands with a single
            pass.
        joint_confidence: (21,) of landmarks given by the user (`predict.given_landmarks`): 1 for a joint placed by a
            person, 0 for a missing one; None: all are the detector's.
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
        """Attributes that should be checked: "side" if its probability is below 0.8."""
        return ("side",) if self.side_probability < SIDE_DOUBT_BELOW else ()
