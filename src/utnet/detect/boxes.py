"""Boxes x0, y0, x1, y1 that overlap."""

from __future__ import annotations

import numpy as np


def suppress(boxes: np.ndarray, scores: np.ndarray, *, iou: float = 0.3) -> np.ndarray:
    """Indices of the boxes (N, 4) that overlap no better one by more than `iou`, best first (greedy suppression)."""
    order = list(np.argsort(-scores, kind="stable"))
    kept: list[int] = []
    while order:
        best = order.pop(0)
        kept.append(int(best))
        order = [i for i in order if overlap(boxes[best], boxes[i]) <= iou]
    return np.array(kept, int)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes (4,), 0 where both are empty."""
    common = _common(a, b)
    union = _area(a) + _area(b) - common
    return common / union if union > 0 else 0.0


def contained(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over the smaller of two boxes (4,), 0 where one is empty."""
    smaller = min(_area(a), _area(b))
    return _common(a, b) / smaller if smaller > 0 else 0.0


def covered(a: np.ndarray, b: np.ndarray) -> float:
    """The share of box a (4,) that lies in box b, 0 where a is empty."""
    return _common(a, b) / _area(a) if _area(a) > 0 else 0.0


def _area(box: np.ndarray) -> float:
    return float(np.prod(box[2:] - box[:2]))


def _common(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.prod(np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0)))
