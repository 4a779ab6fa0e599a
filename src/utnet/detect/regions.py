"""Rotated squares of a picture: crops for the networks and the transform back.

The hand is upright in a region's crop: the direction from the wrist to the fingers points to the top.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass

import cv2
import numpy as np

_PALM_SCALE, _PALM_SHIFT = 2.6, -0.5
_LANDMARK_SCALE, _LANDMARK_SHIFT = 2.0, -0.1
"""MediaPipe's regions: side over the longer side of the landmarks' box, and shift of the centre in heights of that box
(negative: towards the fingers)."""
_STEADY = (0, 1, 2, 3, 5, 6, 9, 10, 13, 14, 17, 18)
"""OpenPose-21 joints that define a hand's region: without the last two of each finger, as in MediaPipe."""
_SHRINK_BELOW = 0.5
"""Scale below which bilinear sampling would skip pixels, so the picture is first shrunk by area averaging."""


class Pyramid:
    """A picture and its halvings, each made when first needed; safe to use in several threads.

    Args:
        image_rgb: (H, W, 3) uint8.

    Raises:
        ValueError: a picture of another shape or type.
    """

    def __init__(self, image_rgb: np.ndarray):
        if image_rgb.ndim != 3 or image_rgb.shape[2] != 3 or image_rgb.dtype != np.uint8 or image_rgb.size == 0:
            raise ValueError(f"picture of shape {image_rgb.shape}, {image_rgb.dtype}; expected (H, W, 3) uint8")
        self._levels, self._lock = [image_rgb], threading.Lock()

    @classmethod
    def of(cls, image_rgb: np.ndarray | Pyramid) -> Pyramid:
        return image_rgb if isinstance(image_rgb, Pyramid) else cls(image_rgb)

    @property
    def rgb(self) -> np.ndarray:
        """The picture (H, W, 3)."""
        return self._levels[0]

    def level(self, scale: float) -> tuple[np.ndarray, int]:
        """The picture halved as often as it stays at `scale` times its size or larger, and the number of halvings n:
        x' + 0.5 = (x + 0.5) / 2^n. Pixels are means of squares; an odd last row or column is left out."""
        wanted = math.floor(-math.log2(scale)) if scale < 1 else 0
        with self._lock:
            while len(self._levels) <= wanted and min(self._levels[-1].shape[:2]) > 1:
                last = self._levels[-1]
                height, width = (side // 2 for side in last.shape[:2])
                even = last[: 2 * height, : 2 * width]
                self._levels.append(cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA))
            n = min(wanted, len(self._levels) - 1)
            return self._levels[n], n

    def resized(self, size_wh: tuple[int, int]) -> np.ndarray:
        """The picture in a size, by area averaging where that is smaller."""
        height, width = self.rgb.shape[:2]
        scale = max(size_wh[0] / width, size_wh[1] / height)
        way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        return cv2.resize(self.level(scale)[0], size_wh, interpolation=way)


@dataclass(frozen=True)
class Region:
    """A rotated square.

    Attributes:
        x: centre in pixels of the picture, pixel (0, 0) centred at 0.0.
        y: the same.
        side_px: length of its sides.
        angle_rad: rotation from the picture's axes to the region's, positive from x towards y.
    """

    x: float
    y: float
    side_px: float
    angle_rad: float = 0.0

    def to_picture(self, size_px: int) -> np.ndarray:
        """(2, 3) affine from the pixels of the region's crop (`size_px` square) to the picture's."""
        scale = self.side_px / size_px
        cos, sin = math.cos(self.angle_rad) * scale, math.sin(self.angle_rad) * scale
        middle = (size_px - 1) / 2
        return np.array([[cos, -sin, self.x - (cos - sin) * middle], [sin, cos, self.y - (sin + cos) * middle]], float)

    def cut(self, picture: np.ndarray | Pyramid, size_px: int, *, border: int = cv2.BORDER_REPLICATE) -> np.ndarray:
        """(S, S, 3) uint8 crop of the region; outside the picture by OpenCV's `border`."""
        to_picture = self.to_picture(size_px)
        scale = size_px / self.side_px
        image_rgb = Pyramid.of(picture).rgb
        if scale < _SHRINK_BELOW:
            image_rgb, shrunk = _shrunk_around(self, Pyramid.of(picture), scale)
            to_picture = shrunk @ np.vstack([to_picture, [0, 0, 1]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(image_rgb, to_picture, (size_px, size_px), flags=flags, borderMode=border)


@dataclass(frozen=True)
class Palm:
    """A palm (without the fingers), output of the palm detector.

    Attributes:
        box_px: (4,) x0, y0, x1, y1, a square.
        keypoints_px: (7, 2): wrist, index, middle, ring and little knuckle, thumb's base and knuckle.
        score: in [0, 1].
    """

    box_px: np.ndarray
    keypoints_px: np.ndarray
    score: float


def _shrunk_around(region: Region, picture: Pyramid, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """The part of the picture around a region, shrunk by area averaging to about the crop's resolution, and the (2, 3)
    affine from the picture's pixels to its pixels. It is read from a halving of twice to four times that resolution:
    from coarser ones, two of 20 hands of real pictures are lost."""
    level, n = picture.level(2 * scale)
    height, width = level.shape[:2]
    half = (region.side_px * math.sqrt(0.5) + 1 / scale) / 2**n
    x, y = ((at + 0.5) / 2**n - 0.5 for at in (region.x, region.y))
    x0, x1 = (int(np.clip(x + sign * half, 0, width - 1)) for sign in (-1, 1))
    y0, y1 = (int(np.clip(y + sign * half, 0, height - 1)) for sign in (-1, 1))
    part = level[y0 : y1 + 1, x0 : x1 + 1]
    size = tuple(max(round(side * scale * 2**n), 1) for side in part.shape[1::-1])
    sx, sy = size[0] / part.shape[1], size[1] / part.shape[0]
    part = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
    # Edges map to edges: x' + 0.5 = s ((x + 0.5) / 2^n - x0).
    return part, np.array([[sx / 2**n, 0, sx * (0.5 / 2**n - x0) - 0.5], [0, sy / 2**n, sy * (0.5 / 2**n - y0) - 0.5]])


def region_of_palm(palm: Palm) -> Region:
    """Region of the landmark network for a palm."""
    angle = _upright(palm.keypoints_px[0], palm.keypoints_px[2])
    low, high = palm.box_px[:2], palm.box_px[2:]
    return _grown((low + high) / 2, high - low, angle, scale=_PALM_SCALE, shift=_PALM_SHIFT)


def region_of_landmarks(joints_px: np.ndarray) -> Region:
    """Region of the landmark network for a hand with known landmarks (21, 2)."""
    knuckles = (joints_px[5] + joints_px[13]) / 4 + joints_px[9] / 2
    angle = _upright(joints_px[0], knuckles)
    cos, sin = math.cos(angle), math.sin(angle)
    turn = np.array([[cos, -sin], [sin, cos]])
    upright = joints_px[list(_STEADY)] @ turn  # the picture's axes to the region's
    low, high = upright.min(0), upright.max(0)
    centre = turn @ ((low + high) / 2)
    return _grown(centre, high - low, angle, scale=_LANDMARK_SCALE, shift=_LANDMARK_SHIFT)


def _grown(centre: np.ndarray, size: np.ndarray, angle: float, *, scale: float, shift: float) -> Region:
    along = shift * float(size[1])
    x = float(centre[0]) - math.sin(angle) * along
    y = float(centre[1]) + math.cos(angle) * along
    return Region(x, y, max(float(size.max()), 1.0) * scale, angle)


def _upright(wrist: np.ndarray, knuckle: np.ndarray) -> float:
    """Rotation (rad) of the region in which the knuckle is above the wrist."""
    x, y = knuckle - wrist
    return math.atan2(x, -y)
