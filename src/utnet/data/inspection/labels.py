"""The labels of a set as arrays, and findings about them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from utnet.geometry import project


@dataclass(frozen=True)
class Finding:
    """An error in the data that makes training wrong, and its remedy.

    Attributes:
        what: the key, the number of samples, and the probable convention of their labels.
        remedy: what to change.
        convert: a shell command that converts the data, or "".
    """

    what: str
    remedy: str
    convert: str = ""


@dataclass(frozen=True)
class Labels:
    """The labels of N samples of one source, float, NaN where a sample has none.

    Attributes:
        source: `Source.name`.
        joints_m: (N, 21, 3) in the camera's frame.
        points_px: (N, 21, 2) the source's own 2D labels.
        K_px: (N, 3, 3).
        size_wh: (N, 2) of the stored pictures.
        box_px: (N, 4).
        left: (N,) bool.
        depth_agrees: (N,) bool, depth lies at the joints' distance.
        turn: (N,) int, EXIF orientation of the picture (1: none), for sources that do not apply it.
        turn_scores: mean detection scores in the labelled boxes, in the stored and in the upright pictures
            (`data.inspection.exif_orientation`); NaN without turned pictures.
    """

    source: str
    joints_m: np.ndarray
    points_px: np.ndarray
    K_px: np.ndarray
    size_wh: np.ndarray
    box_px: np.ndarray
    left: np.ndarray
    depth_agrees: np.ndarray
    turn: np.ndarray
    turn_scores: tuple[float, float] = (np.nan, np.nan)

    def __len__(self) -> int:
        return len(self.left)

    @property
    def projected_px(self) -> np.ndarray:
        """(N, 21, 2) projections of the joints in front of the camera."""
        ahead = self.joints_m[..., 2] > 0
        with np.errstate(all="ignore"):
            return np.where(ahead[..., None], project(self.joints_m, self.K_px), np.nan)

    @property
    def image_px(self) -> np.ndarray:
        """(N, 21, 2) the 2D labels, else the projected joints."""
        return np.where(known(self.points_px)[:, None, None], self.points_px, self.projected_px)


def known(points: np.ndarray) -> np.ndarray:
    """(N,) whether anything is labelled."""
    return np.isfinite(points[..., 0]).any(1)


def share(wrong: np.ndarray, judged: np.ndarray) -> float:
    return float(wrong.sum() / max(1, judged.sum()))


def extent(points: np.ndarray) -> np.ndarray:
    """(N,) longer side of the bounding box of points, NaN without any."""
    filled = np.isfinite(points)
    high = np.where(filled, points, -np.inf).max(1)
    low = np.where(filled, points, np.inf).min(1)
    return np.where(known(points), (high - low).max(1), np.nan)


def largest(points: np.ndarray) -> np.ndarray:
    """(N,) largest absolute coordinate; NaN without points."""
    largest = np.where(np.isfinite(points), np.abs(points), -np.inf).max((1, 2))
    return np.where(known(points), largest, np.nan)


def middle(joints: np.ndarray) -> np.ndarray:
    """(N, D) mean of the labelled joints, NaN without any."""
    num = np.isfinite(joints).sum(1)
    return np.where(num > 0, np.nansum(joints, axis=1) / np.maximum(num, 1), np.nan)


def inside(points: np.ndarray, size_wh: np.ndarray) -> float:
    """Share of the labelled points that lie in their pictures."""
    with np.errstate(invalid="ignore"):
        held = np.all((points > -1) & (points < size_wh[:, None]), axis=-1)
    return float(held.sum() / max(1, np.isfinite(points[..., 0]).sum()))


def in_box(points: np.ndarray, box: np.ndarray) -> np.ndarray:
    """(N,) share of the points in the box enlarged by a tenth of its side on all sides; NaN without points."""
    margin = 0.1 * np.abs(box[:, 2:] - box[:, :2]).max(1)[:, None, None] + 1
    with np.errstate(invalid="ignore"):
        held = ((points > box[:, None, :2] - margin) & (points < box[:, None, 2:] + margin)).all(-1)
    num = np.isfinite(points[..., 0]).sum(1)
    return np.where(num > 0, held.sum(1) / np.maximum(num, 1), np.nan)


def apart(points: np.ndarray, labels: np.ndarray, side: np.ndarray) -> float:
    """Median distance in box sides."""
    with np.errstate(invalid="ignore"):
        off = np.linalg.norm(points - labels, axis=-1) / side[:, None]
    return float(np.median(off[np.isfinite(off)])) if np.isfinite(off).any() else np.nan
