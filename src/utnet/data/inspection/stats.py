"""Statistics of a source: colours, depth, distances, sizes, sides, views and poses (`utnet data stats`)."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from utnet.conventions import JOINT_NAMES, MANO_JOINT_NAMES, PARENTS
from utnet.data.inspection.check_report import spread_of
from utnet.data.inspection.decode import image_points
from utnet.data.inspection.scan import ScanResult, scan
from utnet.data.source import MIN_JOINT_Z_M
from utnet.types import Sample

VIEWS = ("palm", "palm, oblique", "side, palm", "side, back", "back, oblique", "back")
"""Ranges of the angle between the palm's normal and the line to the camera: six steps of 30 degrees from 0 (the palm
faces the camera)."""

BENDS = tuple(joint for joint, parent in enumerate(PARENTS) if parent >= 0 and joint not in (4, 8, 12, 16, 20))
"""The 15 joints between two bones, which have a bend angle."""

_EXPAND = 2.0
"""Side of the training crop over that of the box; colours are measured over the part of it inside the picture."""

_THUMBNAIL_PX = 64
"""Size of the thumbnail of the crop on which colours are measured: it has the crop's mean and is cheap."""


def stats_source(source: Any, *, workers: int = 0, progress: bool = False) -> dict[str, Any]:
    """Reads every sample and returns statistics of the source as plain JSON. Absent labels are left out.

    Args:
        source: a `Source`, or a `StreamSource` whose passes end.
        workers: number of reading processes.
        progress: show a progress bar.
    """
    scanned = scan(source, measure, workers=workers, progress=progress)
    numbers: dict[str, Any] = {
        "counts": {name: int(n) for name, n in getattr(source, "counts", {}).items()},
        "samples": len(scanned),
        "unreadable": {failure.key: failure.message for failure in scanned.failures},
    }
    if not len(scanned):
        return numbers
    a = scanned.arrays
    numbers["sides"] = {"right": int((~a["left"]).sum()), "left": int(a["left"].sum())}
    numbers["sequences"] = _sequences(scanned)
    numbers["rgb"] = _colors(a)
    for name in ("picture_width_px", "picture_height_px", "box_width_px", "box_height_px", "hand_px"):
        numbers[name] = spread_of(a[name])
    for name in ("distance_m", "depth_m", "depth_holes"):
        if np.isfinite(a[name]).any():
            numbers[name] = spread_of(a[name])
    view = a["view_deg"][np.isfinite(a["view_deg"])]
    if len(view):
        counts = np.histogram(view, bins=len(VIEWS), range=(0, 180))[0]
        numbers["views"] = dict(zip(VIEWS, counts.tolist(), strict=True))
    numbers["bend_deg"] = _by_name([JOINT_NAMES[joint] for joint in BENDS], a["bend_deg"])
    numbers["rotation_deg"] = _by_name(MANO_JOINT_NAMES[1:], a["rotation_deg"])
    return numbers


def measure(samples: list[Sample]) -> dict[str, np.ndarray]:
    """One row a sample, NaN where a sample does not have it."""
    with np.errstate(all="ignore"):  # unlabelled joints are NaN
        rows = [_row(sample) for sample in samples]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def _row(sample: Sample) -> dict[str, Any]:
    x0, y0, x1, y1 = sample.box_px
    height, width = sample.rgb.shape[:2]
    joints = np.where((sample.joints_3d_conf > 0)[:, None], sample.joints_cam_m, np.nan)
    points = image_points(sample)[sample.joints_2d_conf > 0]
    points = points[np.isfinite(points).all(1)]
    pixels = _crop_pixels(sample)
    depth, holes = _hand_depth(sample)
    return {
        "left": sample.side == "left",
        "picture_width_px": float(width),
        "picture_height_px": float(height),
        "box_width_px": float(x1 - x0),
        "box_height_px": float(y1 - y0),
        "hand_px": float(np.ptp(points, axis=0).max()) if len(points) else np.nan,
        "rgb_mean": pixels.mean(0),
        "rgb_square": (pixels**2).mean(0),
        "distance_m": float(joints[0, 2]) if sample.K_px is not None else np.nan,
        "depth_m": depth,
        "depth_holes": holes,
        "view_deg": _view_deg(joints, sample),
        "bend_deg": _bend_deg(joints),
        "rotation_deg": _rotation_deg(sample),
    }


def _crop_pixels(sample: Sample) -> np.ndarray:
    """(n, 3) in [0, 1]: a thumbnail of the square around the box, without what lies outside the picture."""
    x0, y0, x1, y1 = sample.box_px
    height, width = sample.rgb.shape[:2]
    half, x, y = max(x1 - x0, y1 - y0) * _EXPAND / 2, (x0 + x1) / 2, (y0 + y1) / 2
    edges = np.array([x - half, x + half, y - half, y + half])
    left, right, top, bottom = (edges if np.isfinite(edges).all() else np.array([0, width, 0, height])).astype(int)
    part = sample.rgb[max(0, top) : max(0, bottom), max(0, left) : max(0, right)]
    part = part if part.size else sample.rgb
    small = cv2.resize(part, (min(_THUMBNAIL_PX, part.shape[1]), min(_THUMBNAIL_PX, part.shape[0])))
    return small.reshape(-1, 3) / 255.0


def _hand_depth(sample: Sample) -> tuple[float, float]:
    """Median depth over the middle of the box in metres, and the share of its pixels without a reading."""
    if sample.depth_m is None or not np.isfinite(sample.box_px).all():
        return np.nan, np.nan
    x0, y0, x1, y1 = sample.box_px
    dx, dy = (x1 - x0) / 4, (y1 - y0) / 4
    left, right, top, bottom = np.rint(np.maximum([x0 + dx, x1 - dx + 1, y0 + dy, y1 - dy + 1], 0)).astype(int)
    part = sample.depth_m[top:bottom, left:right]
    read = part[part > 0]
    return (float(np.median(read)) if len(read) else np.nan), (
        float(1 - read.size / part.size) if part.size else np.nan
    )


def _view_deg(joints: np.ndarray, sample: Sample) -> float:
    """Angle between the palm's normal (out of the palm) and the line from the palm to the camera; 0: the palm faces it.

    The normal is that of the wrist and the knuckles of index and little finger. Without a known camera the line is the
    camera's axis.
    """
    wrist, index, little = joints[0], joints[5], joints[17]
    normal = np.cross(index - wrist, little - wrist) * (-1 if sample.side == "left" else 1)
    ahead = sample.K_px is not None and wrist[2] > MIN_JOINT_Z_M
    to_camera = -(wrist + index + little) if ahead else np.array([0.0, 0.0, -1.0])
    cos = normal @ to_camera / (np.linalg.norm(normal) * np.linalg.norm(to_camera))
    return float(np.rad2deg(np.arccos(np.clip(cos, -1, 1))))


def _bend_deg(joints: np.ndarray) -> np.ndarray:
    """(15,) angle between the bones before and after each of `BENDS`; a straight finger has 0."""
    before = joints[list(BENDS)] - joints[[PARENTS[j] for j in BENDS]]
    after = joints[[j + 1 for j in BENDS]] - joints[list(BENDS)]
    cos = (before * after).sum(1) / (np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1))
    return np.rad2deg(np.arccos(np.clip(cos, -1, 1)))


def _rotation_deg(sample: Sample) -> np.ndarray:
    """(15,) angle of each joint's rotation in the parameters, MANO order."""
    if sample.params is None:
        return np.full(len(MANO_JOINT_NAMES) - 1, np.nan)
    trace = np.trace(sample.params.hand_pose, axis1=1, axis2=2)
    return np.rad2deg(np.arccos(np.clip((trace - 1) / 2, -1, 1)))


def _sequences(scanned: ScanResult) -> dict[str, Any]:
    """How many recordings, and how many samples each; unnamed recordings are left out."""
    num = np.bincount(scanned.sequences, minlength=len(scanned.sequence_names))
    sizes = {name: int(n) for name, n in zip(scanned.sequence_names, num, strict=True) if name}
    frames = spread_of(np.array(list(sizes.values()), np.float64)) if sizes else {}
    return {"num": len(sizes), "samples_each": frames, "sizes": sizes}


def _colors(arrays: dict[str, np.ndarray]) -> dict[str, list[float]]:
    """Mean and standard deviation of red, green and blue over all pixels, in [0, 1]; every sample counts the same."""
    mean = arrays["rgb_mean"].mean(0)
    std = np.sqrt(np.maximum(arrays["rgb_square"].mean(0) - mean**2, 0))
    return {"mean": mean.tolist(), "std": std.tolist()}


def _by_name(names: Any, columns: np.ndarray) -> dict[str, dict[str, float]]:
    known = [(name, column) for name, column in zip(names, columns.T, strict=True) if np.isfinite(column).any()]
    return {name: spread_of(column) for name, column in known}
