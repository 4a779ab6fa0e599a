"""Squares of a picture for the palm detector, and pictures with found hands hidden."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from utnet.detect.landmark import Landmarks
from utnet.detect.palm import whole
from utnet.detect.regions import Region

_TILED_FROM_PX = 960
"""Pictures with a longer side above this are also searched in tiles."""
_SMALLEST_TILE_PX, _SMALLEST_TILE = 900, 0.75
"""Lower bounds of the tiles' side: in pixels, and as a share of the picture's shorter side."""
_MOST_TILES = 128
"""No finer tiles where there would be more in all: a picture of 48 megapixels has 114."""
_TOO_THIN_PX = 32
"""Pictures with a shorter side below this are not tiled."""
_GREY = (128, 128, 128)


def tiles(width: int, height: int) -> Iterator[Region]:
    """Overlapping square tiles of a picture of `width` x `height` pixels, coarse to fine; none of a small one."""
    side = max(width, height) / 2
    if 2 * side <= _TILED_FROM_PX or min(width, height) < _TOO_THIN_PX:
        return
    smallest = min(_SMALLEST_TILE_PX, _SMALLEST_TILE * min(width, height))
    left = _MOST_TILES
    while True:
        middles = list(itertools.product(_middles(width, side), _middles(height, side)))
        left -= len(middles)
        if left < 0:
            return
        yield from (Region(x, y, side) for x, y in middles)
        side /= 2
        if side < smallest:
            return


def hidden(image_rgb: np.ndarray, hands: Sequence[Landmarks]) -> np.ndarray:
    """The picture (H, W, 3) with the convex hulls of the hands' landmarks painted grey, to detect hands next to and
    behind them. Without hands the picture itself is returned."""
    if not hands:
        return image_rgb
    picture = image_rgb.copy()
    for hand in hands:
        cv2.fillConvexPoly(picture, cv2.convexHull(np.rint(hand.joints_px).astype(np.int32)), _GREY)
    return picture


def farther(image_rgb: np.ndarray, scale: float) -> Region:
    """The square around a picture with a margin."""
    square = whole(image_rgb)
    return Region(square.x, square.y, square.side_px * scale)


def _middles(length: int, side: float) -> list[float]:
    """Centres of the tiles along one axis of the picture, overlapping by at least a quarter, all inside."""
    if length <= side:
        return [(length - 1) / 2]
    count = 1 + math.ceil((length - side) / (0.75 * side))
    return list(np.linspace(side / 2, length - side / 2, count) - 0.5)
