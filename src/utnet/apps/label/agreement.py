"""Selection of hands: scores of the agreement between several estimates of a hand, and their limits."""

from __future__ import annotations

from dataclasses import dataclass

REASONS = ("unsure", "small", "outside", "overlap", "flip", "reprojection", "unsteady")
"""Reasons for which a hand is dropped, in order of precedence."""


@dataclass(frozen=True)
class Limits:
    """Limits of the scores of a hand. Percentages are of the longer side of the landmarks' box, means over the joints.

    Attributes:
        score: lowest score of the detector.
        box_px: smallest longer side of the box.
        outside: largest number of landmarks outside the picture.
        overlap: largest percentage of the box inside the box of a hand with a higher score.
        flip: largest distance from the landmarks of the mirrored picture, mirrored back; its side must be the other
            one.
        reprojection: largest distance of the fitted hand's projected joints from the landmarks.
        joint: the same for a single joint; joints beyond it have no 2D label.
        jitter: in videos, largest second difference of the landmarks over three frames.
        jitter_mm: the same of the fitted joints relative to the wrist.
    """

    score: float = 0.9
    box_px: float = 32.0
    outside: int = 5
    overlap: float = 60.0
    flip: float = 4.0
    reprojection: float = 4.5
    joint: float = 8.0
    jitter: float = 3.0
    jitter_mm: float = 15.0


@dataclass(frozen=True)
class QualityScores:
    """Agreement scores of one hand; units as in `Limits`.

    Attributes:
        score: the detector's.
        box_px: longer side of the box.
        outside: landmarks outside the picture.
        overlap: percentage of the box inside that of a hand with a higher score.
        flip: percent; infinity if no hand, or one of the same side, is detected in the mirrored picture.
        reprojection: percent.
        jitter: percent, 0 in a single picture; infinity if the hand is missing in the previous or next frame.
        jitter_mm: mm, likewise.
    """

    score: float
    box_px: float
    outside: int
    overlap: float
    flip: float
    reprojection: float
    jitter: float = 0.0
    jitter_mm: float = 0.0


def why_dropped(hand: QualityScores, limits: Limits) -> str | None:
    """The first of `REASONS` that applies, None for a hand that is kept. NaN exceeds every limit."""
    passed = {
        "unsure": hand.score >= limits.score,
        "small": hand.box_px >= limits.box_px,
        "outside": hand.outside <= limits.outside,
        "overlap": hand.overlap <= limits.overlap,
        "flip": hand.flip <= limits.flip,
        "reprojection": hand.reprojection <= limits.reprojection,
        "unsteady": hand.jitter <= limits.jitter and hand.jitter_mm <= limits.jitter_mm,
    }
    return next((reason for reason in REASONS if not passed[reason]), None)
