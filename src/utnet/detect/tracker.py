"""`LandmarkTracker`: the hands of a video, frame by frame, with constant numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from utnet.detect.assignment import assign
from utnet.detect.boxes import contained
from utnet.detect.detection import Detection
from utnet.detect.detector import HandDetector, as_detection, same_hand
from utnet.detect.landmark import Landmarks
from utnet.geometry import box_of
from utnet.heap import return_free_pages

_RETRY = 3
"""Frames between detections while a hand is lost."""
_FULL, _FULL_AT_MOST = 3, 6
"""While there are hands, full detection every this many detections; twice as rarely where it finds nothing new."""
_STEADY = 0.5
"""Weight of the newest movement in a track's velocity."""
_OTHER_SIDE = 1.0
"""Matching cost of a different side, in sizes of the hand, for a hand that reappears."""
_FARTHEST = 2.5
"""Largest matching cost, in sizes of the hand, of a hand that reappears."""
_OVERLAP = 0.65
"""Intersection over the smaller box above which a detection is a tracked hand."""


@dataclass
class _Track:
    """One hand over time.

    Attributes:
        number: never reused.
        hand: the latest landmarks.
        velocity_px: (2,) pixels per frame.
        votes: sum over frames of P(right) - 0.5.
        num_frames: frames with a detection.
        unseen: frames since the last detection.
    """

    number: int
    hand: Landmarks
    velocity_px: np.ndarray
    votes: float
    num_frames: int = 1
    unseen: int = 0

    @property
    def side(self) -> str:
        return "right" if self.votes >= 0 else "left"

    @property
    def detection(self) -> Detection:
        probability = 0.5 + abs(self.votes) / self.num_frames
        return as_detection(self.hand, side=self.side, side_probability=probability, track=self.number)

    @property
    def expected_px(self) -> np.ndarray:
        """(21, 2) landmarks extrapolated to the next frame; the velocity of a lost hand decays."""
        steps = 2 * (1 - 0.5 ** (self.unseen + 1))
        return self.hand.joints_px + self.velocity_px * steps

    def cost(self, hand: Landmarks) -> float:
        """Matching cost of a detection: distance in sizes of the hand, and a penalty for a different side."""
        size = float(np.sqrt(np.prod(np.ptp(self.hand.joints_px, 0))))
        distance = float(np.linalg.norm(hand.joints_px.mean(0) - self.expected_px.mean(0))) / max(size, 1.0)
        return distance + _OTHER_SIDE * ((hand.right >= 0.5) != (self.votes >= 0))

    def see(self, hand: Landmarks) -> None:
        moved = (hand.joints_px.mean(0) - self.hand.joints_px.mean(0)) / (self.unseen + 1)
        self.velocity_px = (1 - _STEADY) * self.velocity_px + _STEADY * moved
        self.hand, self.votes, self.unseen = hand, self.votes + hand.right - 0.5, 0
        self.num_frames += 1


class LandmarkTracker:
    """Tracks hands by their landmarks; call it once per frame, in order.

    The landmark network runs in the region of the previous frame's landmarks, extrapolated. The detector runs every few
    frames, and at once when a hand is lost. A lost hand keeps its number for `patience` frames: a hand that reappears
    near its extrapolated position, on the same side, is the same hand. A hand's side is the majority over its frames.

    Args:
        detector: the detector.
        every: frames between detections while no hand is lost.
        patience: frames for which a lost hand keeps its number (15: half a second at 30 per second).

    Raises:
        ValueError: `every` or `patience` below 1.
    """

    def __init__(self, detector: HandDetector, *, every: int = 10, patience: int = 15):
        if every < 1 or patience < 1:
            raise ValueError(f"every {every}, patience {patience}: expected at least 1 frame")
        self._detector, self._every, self._patience = detector, every, patience
        self._tracks: list[_Track] = []
        self._since_look, self._since_full = 0, every  # frames since the detector ran, and in full
        self._full = _FULL
        self._numbers = 0

    def __call__(self, image_rgb: np.ndarray) -> list[Detection]:
        """Returns the hands of the next frame (H, W, 3) uint8 RGB, in order of their `track`."""
        followed = self._follow(image_rgb)
        self._look(image_rgb, followed)
        self._tracks = [track for track in self._tracks if track.unseen <= self._patience]
        return [track.detection for track in self._tracks if track.unseen == 0]

    def _look(self, image_rgb: np.ndarray, followed: list[_Track]) -> None:
        """Runs the detector when due: the full one at intervals, the quick one in between and for lost hands."""
        self._since_look += 1
        self._since_full += 1
        just_lost = any(track.unseen == 1 for track in self._tracks)
        lost = len(followed) < len(self._tracks)
        if lost or not self._tracks:
            self._full = _FULL
        full = self._since_full >= (self._full * self._every if self._tracks else self._every)
        if full or just_lost or self._since_look >= (_RETRY if lost else self._every):
            self._since_look = 0
            self._since_full = 0 if full else self._since_full
            new = self._detect(image_rgb, followed, quick=not full)
            if full:
                self._full = _FULL if new else min(2 * self._full, _FULL_AT_MOST)
                return_free_pages()  # the networks of a full look run side by side

    def _follow(self, image_rgb: np.ndarray) -> list[_Track]:
        """Returns the tracks continued by the landmark network; if two end on one hand, the one of lower cost."""
        found: list[tuple[float, _Track, Landmarks]] = []
        for track in self._tracks:
            hand = self._detector.follow(image_rgb, track.expected_px) if track.unseen == 0 else None
            track.unseen += 1
            if hand:
                found.append((track.cost(hand), track, hand))
        kept: list[_Track] = []
        for _, track, hand in sorted(found, key=lambda entry: entry[0]):
            if not any(same_hand(hand.joints_px, other.hand.joints_px) for other in kept):
                track.unseen -= 1
                track.see(hand)
                kept.append(track)
        return kept

    def _detect(self, image_rgb: np.ndarray, followed: list[_Track], *, quick: bool) -> bool:
        """Adds lost hands that reappear, and new ones; returns whether there are any."""
        others = self._detector.find(image_rgb, quick=quick, known=[track.hand for track in followed])
        hands = [hand for hand in others if not any(_is(hand, track) for track in followed)]
        lost = [track for track in self._tracks if track not in followed]
        cost = np.array([[track.cost(hand) for hand in hands] for track in lost]).reshape(len(lost), len(hands))
        back = {j: lost[i] for i, j in assign(cost) if cost[i, j] <= _FARTHEST}
        for j, hand in enumerate(hands):
            if j in back:
                back[j].see(hand)
            else:
                self._numbers += 1
                self._tracks.append(_Track(self._numbers, hand, np.zeros(2), hand.right - 0.5))
        return bool(hands)


def _is(hand: Landmarks, track: _Track) -> bool:
    """Whether a detected hand is a tracked one."""
    a, b = hand.joints_px, track.hand.joints_px
    return same_hand(a, b) or contained(box_of(a), box_of(b)) > _OVERLAP
