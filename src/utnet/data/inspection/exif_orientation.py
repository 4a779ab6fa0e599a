"""Whether labels of pictures rotated by EXIF data refer to the stored or the upright pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from utnet.data.inspection.decode import image_points
from utnet.data.source import BadSample, evenly_spaced, read_sample
from utnet.detect import HandDetector
from utnet.geometry import box_of

_LOOKED_AT = 12
_UPRIGHT = {
    2: lambda rgb: rgb[:, ::-1],
    3: lambda rgb: rgb[::-1, ::-1],
    4: lambda rgb: rgb[::-1],
    5: lambda rgb: rgb.swapaxes(0, 1),
    6: lambda rgb: np.rot90(rgb, -1),
    7: lambda rgb: rgb[::-1, ::-1].swapaxes(0, 1),
    8: lambda rgb: np.rot90(rgb),
}
"""Orientation (Exif 2.32) -> function that makes the stored picture upright."""


def hands_seen(source: Any, indices: Sequence[int]) -> tuple[float, float]:
    """Mean detection scores in the labelled boxes: in the stored and in the upright pictures.

    Args:
        source: must have `picture_turn(index)`.
        indices: of samples in turned pictures; a dozen of them are used.

    Returns:
        Means of the scores, in [0, 1]; NaN where no sample can be read.
    """
    detector, scores = HandDetector(), []
    for index in np.asarray(indices)[evenly_spaced(len(indices), _LOOKED_AT)].tolist():
        sample = read_sample(source, index)
        if isinstance(sample, BadSample):
            continue
        points = image_points(sample)
        points = points[np.isfinite(points).all(1)]
        box = box_of(points) if len(points) > 1 else sample.box_px
        upright = np.ascontiguousarray(_UPRIGHT[source.picture_turn(index)](sample.rgb))
        scores.append([_score(detector, rgb, box) for rgb in (sample.rgb, upright)])
    stored, seen = np.mean(scores, axis=0) if scores else (np.nan, np.nan)
    return float(stored), float(seen)


def _score(detector: HandDetector, rgb: np.ndarray, box: np.ndarray) -> float:
    height, width = rgb.shape[:2]
    if not (box[0] < width and box[1] < height and box[2] > 0 and box[3] > 0):
        return 0.0
    return detector.in_boxes(rgb, [box.tolist()])[0].score
