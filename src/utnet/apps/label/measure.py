"""Agreement between estimates of a hand: its landmarks, the mirrored picture's, the fitted hand, neighbouring
frames."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from utnet.apps.label.agreement import QualityScores
from utnet.detect import Detection, HandDetector
from utnet.detect.boxes import covered
from utnet.geometry import longer_side, normalized_distance_percent
from utnet.predict import Hand


def observe(
    detector: HandDetector,
    image_rgb: np.ndarray,
    detections: Sequence[Detection],
    hands: Sequence[Hand],
    index: int,
) -> QualityScores:
    """Agreement scores of a detection and the hand fitted to it, from one picture."""
    detection = detections[index]
    return QualityScores(
        score=detection.score,
        box_px=longer_side(detection.joints_px),
        outside=int((~inside(detection.joints_px, image_rgb.shape)).sum()),
        overlap=overlap_percent(detections, index),
        flip=flip_percent(detector, image_rgb, detection),
        reprojection=float(normalized_distance_percent(detection.joints_px, hands[index].joints_px).mean()),
    )


def flip_percent(detector: HandDetector, image_rgb: np.ndarray, detection: Detection) -> float:
    """Mean distance of the landmarks from those of the mirrored picture, mirrored back, in percent of the box; infinity
    if no hand, or one of the same side, is detected there."""
    flipped = np.ascontiguousarray(image_rgb[:, ::-1])
    mirrored = detector.follow(flipped, mirrored_px(detection.joints_px, image_rgb.shape[1]))
    if mirrored is None or (mirrored.right >= 0.5) == (detection.side == "right"):
        return float("inf")
    back = mirrored_px(mirrored.joints_px, image_rgb.shape[1])
    return float(normalized_distance_percent(detection.joints_px, back).mean())


def mirrored_px(joints_px: np.ndarray, width: int) -> np.ndarray:
    """Joints (21, 2) in the mirrored picture."""
    return np.stack([width - 1 - joints_px[:, 0], joints_px[:, 1]], 1)


def inside(joints_px: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """(21,) bool: joints within a picture's edges."""
    height, width = shape[:2]
    x, y = joints_px.T
    return (x > -0.5) & (y > -0.5) & (x < width - 0.5) & (y < height - 0.5)


def overlap_percent(detections: Sequence[Detection], index: int) -> float:
    """The largest percentage of a hand's box inside the box of a hand with a higher score."""
    this = detections[index]
    surer = (
        other
        for i, other in enumerate(detections)
        if (-other.score, i) < (-this.score, index)  # of equal scores, the first
    )
    return 100 * max((covered(this.box_px, other.box_px) for other in surer), default=0.0)


def second_difference(before: np.ndarray, now: np.ndarray, after: np.ndarray) -> float:
    """Mean length of before - 2 now + after over (21, D) joints: 0 at constant velocity."""
    return float(np.linalg.norm(before - 2 * now + after, axis=1).mean())
