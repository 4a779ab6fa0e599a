"""MediaPipe's palm detector: a picture -> palms with a box, seven keypoints and a score."""

from __future__ import annotations

import math

import cv2
import numpy as np

from utnet.detect.boxes import suppress
from utnet.detect.networks import open_network, run
from utnet.detect.regions import Palm, Pyramid, Region

SIZE_PX = 192
_GRIDS = ((24, 2), (12, 6))
"""Cells a side and anchors a cell."""


class PalmDetector:
    """Palms in a square region of a picture.

    Args:
        threshold: lowest score.
    """

    def __init__(self, *, threshold: float = 0.15):
        self._session = open_network("palm")
        self._anchors = anchors()
        self.threshold = threshold

    def __call__(self, picture: np.ndarray | Pyramid, region: Region | None = None) -> list[Palm]:
        """Palms of (H, W, 3) uint8, best first, in its pixels; `region`: the searched square (None: the picture)."""
        region = region or whole(Pyramid.of(picture).rgb)
        crop = region.cut(picture, SIZE_PX, border=cv2.BORDER_CONSTANT).astype(np.float32) / 255
        raw, logits = run(self._session, crop)
        points, scores = decode(raw, logits[:, 0], self._anchors, self.threshold)
        kept = suppress(points[:, :2].reshape(-1, 4), scores)
        to_picture = region.to_picture(SIZE_PX)
        points = (points[kept] - 0.5) @ to_picture[:, :2].T + to_picture[:, 2]  # edges at 0 -> pixel centres at 0
        return [_palm(*pair, region) for pair in zip(points, scores[kept].tolist(), strict=True)]


def _palm(points: np.ndarray, score: float, region: Region) -> Palm:
    """A palm from (9, 2) points in the picture. Its box is a square along the picture's axes, also for a rotated
    region."""
    cos, sin = math.cos(region.angle_rad), math.sin(region.angle_rad)
    half = (points[1] - points[0]) @ np.array([[cos, -sin], [sin, cos]]) / 2
    middle = points[:2].mean(0)
    return Palm(np.concatenate([middle - half, middle + half]), points[2:], score)


def whole(image_rgb: np.ndarray) -> Region:
    """The square around a picture."""
    height, width = image_rgb.shape[:2]
    return Region((width - 1) / 2, (height - 1) / 2, max(width, height))


def anchors() -> np.ndarray:
    """(2016, 2) centres x, y of the anchors in pixels of the network's picture (edges at 0 and 192), row by row."""
    rows = []
    for cells, count in _GRIDS:
        centres = (np.arange(cells) + 0.5) * (SIZE_PX / cells)
        y, x = np.meshgrid(centres, centres, indexing="ij")
        rows.append(np.repeat(np.stack([x.ravel(), y.ravel()], 1), count, 0))
    return np.concatenate(rows)


def decode(raw: np.ndarray, logits: np.ndarray, centres: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Raw outputs to palms above a threshold, best first.

    Args:
        raw: (A, 18): centre and size of the box, then seven keypoints, relative to the anchor, in pixels.
        logits: (A,).
        centres: (A, 2) of the anchors.
        threshold: lowest sigmoid(logit).

    Returns:
        (N, 9, 2) points (the box's two corners, then the keypoints), in pixels with edges at 0, and (N,) scores.
    """
    scores = 1 / (1 + np.exp(-np.clip(logits, -80, 80)))
    best = np.flatnonzero(scores >= threshold)
    best = best[np.argsort(-scores[best], kind="stable")]
    points = raw[best].reshape(-1, 9, 2).astype(float)
    size = points[:, 1].copy()
    points[:, 2:] += centres[best, None]
    middle = points[:, 0] + centres[best]
    points[:, 0], points[:, 1] = middle - size / 2, middle + size / 2
    return points, scores[best]
