"""handtrack.js's SSD: boxes of hands in any pose, for hands missed by the palm detector."""

from __future__ import annotations

import numpy as np

from utnet.detect.boxes import suppress
from utnet.detect.networks import open_network, run
from utnet.detect.regions import Pyramid

SIZE_PX = 320
_FACE = 4
"""Classes: open hand, fist, pinch, point, face, tip, pinched tip."""


class SSDHandDetector:
    """Detects boxes of hands.

    Args:
        threshold: lowest score.
    """

    def __init__(self, *, threshold: float = 0.2):
        self._session = open_network("second")
        self.threshold = threshold

    def __call__(self, picture: np.ndarray | Pyramid) -> tuple[np.ndarray, np.ndarray]:
        """Returns boxes (N, 4) x0, y0, x1, y1 in pixels of (H, W, 3) uint8 and scores (N,), best first, without
        faces."""
        pyramid = Pyramid.of(picture)
        height, width = pyramid.rgb.shape[:2]
        resized = pyramid.resized((SIZE_PX, SIZE_PX)).astype(np.float32)
        boxes, scores = run(self._session, resized / 127.5 - 1)
        hand = np.delete(scores, _FACE, 1).max(1)
        hand[scores[:, _FACE] > hand] = 0
        found = np.flatnonzero(hand >= self.threshold)
        y0, x0, y1, x1 = boxes[found, 0].T.astype(float)
        corners = np.stack([x0 * width, y0 * height, x1 * width, y1 * height], 1) - 0.5  # edges at 0 -> centres at 0
        kept = suppress(corners, hand[found], iou=0.4)
        return corners[kept], hand[found][kept]
