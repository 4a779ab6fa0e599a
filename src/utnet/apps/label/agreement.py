"""Which hands are kept: numbers on how well several observers of a hand agree, against limits."""

from __future__ import annotations

from dataclasses import dataclass

REASONS = ("unsure", "small", "outside", "overlap", "flip", "reprojection", "unsteady")
"""Why a hand is dropped; of several reasons the first one counts."""


@dataclass(frozen=True)
class Limits:
    """What a hand must keep to. Percentages are of the longer side of the landmarks' box, means over the joints.

    Attributes:
        score: least score of the detector.
        box_px: least longer side of the box.
        outside: most landmarks outside the picture.
        overlap: largest share of the box, in percent, that lies in the box of a surer hand.
        flip: farthest from the landmarks of the mirrored picture, mirrored back; there the side must be the other one.
        reprojection: farthest of the fitted hand's projected joints from the landmarks.
        joint: the same for a single joint; one that is farther off has no 2D label.
        tremble: in videos, largest second difference of the landmarks over three frames.
        tremble_mm: the same of the fitted joints relative to the wrist.
    """

    score: float = 0.9
    box_px: float = 32.0
    outside: int = 5
    overlap: float = 60.0
    flip: float = 4.0
    reprojection: float = 4.5
    joint: float = 8.0
    tremble: float = 3.0
    tremble_mm: float = 15.0


@dataclass(frozen=True)
class Evidence:
    """What is known of one hand; units as in `Limits`.

    Attributes:
        score: the detector's.
        box_px: longer side of the box.
        outside: landmarks outside the picture.
        overlap: percent of the box in that of a surer hand.
        flip: percent; infinity where the mirrored picture shows no hand there, or one of the same side.
        reprojection: percent.
        tremble: percent, 0 in a single picture; infinity where the hand is not seen in the frames before and after.
        tremble_mm: mm, likewise.
    """

    score: float
    box_px: float
    outside: int
    overlap: float
    flip: float
    reprojection: float
    tremble: float = 0.0
    tremble_mm: float = 0.0


def why_dropped(hand: Evidence, limits: Limits) -> str | None:
    """The first of `REASONS` that holds, None for a hand that is kept. A number that is NaN is no agreement."""
    passed = {
        "unsure": hand.score >= limits.score,
        "small": hand.box_px >= limits.box_px,
        "outside": hand.outside <= limits.outside,
        "overlap": hand.overlap <= limits.overlap,
        "flip": hand.flip <= limits.flip,
        "reprojection": hand.reprojection <= limits.reprojection,
        "unsteady": hand.tremble <= limits.tremble and hand.tremble_mm <= limits.tremble_mm,
    }
    return next((reason for reason in REASONS if not passed[reason]), None)
