"""The side of a hand by the detector and the network together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from utnet.conventions import SIDES
from utnet.detect import Detection

_SURE = 4.0
"""Logit of the network above which the crop of the other side is not evaluated."""
_MOST = 3.0
"""Bound of the difference of the network's logits for the two sides: the side of a detector with a probability above
0.95 stays, since the network fails on some backs of hands (it was trained with few photographs of them)."""


def is_predicted(detection: Detection) -> bool:
    """Whether the side is the detector's in this picture, not the user's or a track's."""
    return detection.track is None and detection.side_probability < 1


def needs_other_side(detection: Detection, side_logit: float) -> bool:
    """Whether the hand is to be tried as one of the other side, too.

    Args:
        detection: of the hand.
        side_logit: the network's, above 0 where the crop, mirrored if need be, looks like a right hand's.
    """
    return is_predicted(detection) and side_logit < _SURE


def other_side(detection: Detection) -> Detection:
    """The same hand as one of the other side."""
    return replace(detection, side=SIDES[1 - SIDES.index(detection.side)])


def with_likelier_side(detection: Detection, difference: float = np.inf) -> Detection:
    """The detection with its likelier side and the probability of that.

    Args:
        detection: of a hand whose side `is_predicted`.
        difference: the network's logit of the crop less that of the crop of the other side; infinite where that
            was not evaluated.
    """
    probability = detection.side_probability
    odds = np.log(probability) - np.log1p(-probability) + np.clip(difference, -_MOST, _MOST)
    likelier = detection if odds >= 0 else other_side(detection)
    return replace(likelier, side_probability=float(1 / (1 + np.exp(-abs(odds)))))
