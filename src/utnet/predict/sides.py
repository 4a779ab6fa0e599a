"""The side of a hand by detector and network, in a single picture and over the frames of a track."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from utnet.conventions import SIDES
from utnet.detect import Detection

_SURE = 4.0
"""Logit of the network above which the crop of the other side is not evaluated."""
_MOST = 3.0
"""Bound of the difference of the network's logits for the two sides: the side of a detector with a probability above
0.95 stays, since the network fails on some backs of hands (it was trained with few photographs of them)."""
_LEAST = 1e-6
"""Bound of a side's probability, so that its logit is finite."""
_FIRST, _EVERY = 15, 5
"""The network is used in this many first frames of a track, then in every fifth (uncertain sides need two runs)."""


def is_predicted(detection: Detection) -> bool:
    """Whether the side is predicted by the detector, not given by the user or a track."""
    return detection.track is None and detection.side_probability < 1


def needs_other_side(side_logit: float) -> bool:
    """Whether the hand is also to be reconstructed as one of the other side.

    Args:
        side_logit: of the network, above 0 if the crop (mirrored for left hands) looks like a right hand.
    """
    return side_logit < _SURE


def other_side(detection: Detection) -> Detection:
    """The same hand as one of the other side."""
    return replace(detection, side=SIDES[1 - SIDES.index(detection.side)])


def with_likelier_side(detection: Detection, difference: float = np.inf) -> Detection:
    """Returns the detection with its likelier side and the probability of it.

    Args:
        detection: of a hand whose side `is_predicted`.
        difference: the network's logit of the crop minus that of the other side's crop; infinite if that was not
            evaluated.
    """
    probability = detection.side_probability
    odds = np.log(probability) - np.log1p(-probability) + np.clip(difference, -_MOST, _MOST)
    likelier = detection if odds >= 0 else other_side(detection)
    return replace(likelier, side_probability=float(1 / (1 + np.exp(-abs(odds)))))


@dataclass
class _Votes:
    """Evidence of the side of a track.

    Attributes:
        right: the tracker's probability of a right hand, the mean of its frames so far.
        num_frames: number of frames so far.
        network: sum of the network's bounded differences, for a right hand.
        num_counted: number of summands.
    """

    right: float
    num_frames: int = 0
    network: float = 0.0
    num_counted: int = 0


class TrackSides:
    """One side for each track, by the evidence of all its frames: a track is treated like a picture whose evidence of
    detector and network is the mean over its frames.

    The frames of a track are not independent, so the number of frames does not increase the confidence.
    """

    def __init__(self) -> None:
        self._votes: dict[int, _Votes] = {}

    def see(self, detection: Detection) -> Detection:
        """Adds the detector's side of a track in the next frame; returns the detection with the track's side."""
        right = detection.side_probability if detection.side == "right" else 1 - detection.side_probability
        votes = self._votes.setdefault(_track(detection), _Votes(right))
        votes.right, votes.num_frames = right, votes.num_frames + 1
        return self.decided(detection)

    def is_due(self, detection: Detection) -> bool:
        """Whether the network is used in this frame."""
        number = self._votes[_track(detection)].num_frames - 1
        return number < _FIRST or number % _EVERY == 0

    def add(self, detection: Detection, difference: float) -> Detection:
        """Adds the network's difference, as of `with_likelier_side`; returns the detection with the track's side."""
        votes, bounded = self._votes[_track(detection)], float(np.clip(difference, -_MOST, _MOST))
        votes.network += bounded if detection.side == "right" else -bounded
        votes.num_counted += 1
        return self.decided(detection)

    def decided(self, detection: Detection) -> Detection:
        """Returns the detection with the side of its track by all frames so far, and the probability of it."""
        votes = self._votes[_track(detection)]
        right = float(np.clip(votes.right, _LEAST, 1 - _LEAST))
        as_right = replace(detection, side="right", side_probability=right)
        return with_likelier_side(as_right, votes.network / max(votes.num_counted, 1))


def _track(detection: Detection) -> int:
    if detection.track is None:
        raise ValueError("a detection has no track number; the side of a track needs tracked hands")
    return detection.track
