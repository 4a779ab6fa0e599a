"""Drawing of skeletons, mesh overlays, coloured depth and contact sheets. Pictures are (H, W, 3) uint8 RGB."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from utnet.conventions import FINGERS, PARENTS
from utnet.errors import InputError
from utnet.geometry import project
from utnet.io.atomic import atomic_write
from utnet.render.raster import NEAR_M, blend, rasterize, render_light

FINGER_COLORS = dict(
    zip(FINGERS, ((235, 87, 87), (242, 201, 76), (39, 174, 96), (47, 128, 237), (187, 107, 217)), strict=True)
)
WRIST_COLOR = (235, 235, 235)
MESH_COLOR = (0.62, 0.76, 0.95)
_MAX_SAMPLES = 1024
"""Samples along the longer side of a hand's box, which bound the time. A hand of 512 px has two a pixel."""
MAX_JPEG_PX = 65_500
"""Maximum side of a JPEG."""
_STRIPE = 64
"""Rows that are converted at once."""


def draw_skeleton(rgb: np.ndarray, joints_px: np.ndarray, *, thickness: int | None = None) -> np.ndarray:
    """Draws the skeleton of (21, 2) joints on a copy, one colour per finger; anti-aliased, sized to the hand."""
    if not np.isfinite(joints_px).all():
        raise ValueError("joints_px is not finite")
    return draw_joints(rgb, joints_px, np.ones(len(joints_px)), thickness=thickness)


def draw_skeleton_(rgb: np.ndarray, joints_px: np.ndarray) -> None:
    """`draw_skeleton` in place."""
    _draw_joints(rgb, joints_px, np.ones(len(joints_px)))


def draw_joints(
    rgb: np.ndarray,
    joints_px: np.ndarray,
    conf: np.ndarray,
    *,
    thickness: int | None = None,
    color: tuple[int, int, int] | None = None,
) -> np.ndarray:
    """Draws the labelled part of a skeleton on a copy, one colour per finger.

    Args:
        rgb: (H, W, 3) uint8.
        joints_px: (21, 2) pixels, NaN where missing.
        conf: (21,) confidence; joints with confidence 0 are drawn hollow, without bones.
        thickness: of the bones, in pixels (default: sized to the hand).
        color: one RGB colour for all bones (default: one per finger).
    """
    out = np.array(rgb, order="C")
    _draw_joints(out, joints_px, conf, thickness, color)
    return out


def _draw_joints(
    out: np.ndarray,
    joints_px: np.ndarray,
    conf: np.ndarray,
    thickness: int | None = None,
    color: tuple[int, int, int] | None = None,
) -> None:
    known = np.isfinite(joints_px).all(1)
    if not known.any():
        return
    extent = float(np.ptp(joints_px[known], axis=0).max())
    radius_px = thickness + 1.0 if thickness else max(1.0, min(extent / 60, round(extent / 90) + 1))
    thickness = thickness or max(1, round(extent / 90))
    shift = 4  # OpenCV draws at 1/16 px with this many fractional bits
    points = np.rint(np.clip(np.nan_to_num(joints_px), -1e5, 1e5) * 2**shift).astype(int)
    colors = [WRIST_COLOR] + [FINGER_COLORS[FINGERS[(joint - 1) // 4]] for joint in range(1, len(PARENTS))]
    if color is not None:
        colors = [color] * len(colors)
    sure = known & (conf > 0)
    for joint, parent in enumerate(PARENTS):
        if parent >= 0 and sure[joint] and sure[parent]:
            start, end = tuple(points[parent].tolist()), tuple(points[joint].tolist())
            cv2.line(out, start, end, colors[joint], thickness, cv2.LINE_AA, shift)
    for joint in np.flatnonzero(known).tolist():
        radius, fill = round(radius_px * 2**shift), -1 if sure[joint] else 1
        cv2.circle(out, tuple(points[joint].tolist()), radius, colors[joint], fill, cv2.LINE_AA, shift)


def draw_points(rgb: np.ndarray, points_px: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    """Draws small dots at the finite ones of (N, 2) points on a copy."""
    out = np.array(rgb, order="C")
    for x, y in np.clip(points_px[np.isfinite(points_px).all(1)], -1e5, 1e5).tolist():
        cv2.circle(out, (round(x), round(y)), 1, color, -1, cv2.LINE_AA)
    return out


def overlay_mesh(
    rgb: np.ndarray,
    vertices_cam_m: np.ndarray,
    faces: np.ndarray,
    K_px: np.ndarray,
    *,
    opacity: float = 0.85,
    color: tuple[float, float, float] = MESH_COLOR,
) -> np.ndarray:
    """Draws a shaded mesh over a copy of the picture, in the camera `K_px` of the picture."""
    out = np.array(rgb, order="C")
    overlay_mesh_(out, vertices_cam_m, faces, K_px, opacity=opacity, color=color)
    return out


def overlay_mesh_(
    rgb: np.ndarray,
    vertices_cam_m: np.ndarray,
    faces: np.ndarray,
    K_px: np.ndarray,
    *,
    opacity: float = 0.85,
    color: tuple[float, float, float] = MESH_COLOR,
) -> None:
    """`overlay_mesh` in place."""
    x0, y0, x1, y1 = _drawn_part(vertices_cam_m, K_px, rgb.shape)
    if x0 >= x1 or y0 >= y1:
        return
    K_part = np.array([[1.0, 0.0, -x0], [0.0, 1.0, -y0], [0.0, 0.0, 1.0]]) @ K_px
    density = min(2.0, _MAX_SAMPLES / max(x1 - x0, y1 - y0))
    light, alpha = render_light(vertices_cam_m, faces, K_part, (x1 - x0, y1 - y0), density)
    blend(rgb[y0:y1, x0:x1], light, alpha, color, opacity)


def outline_mesh(
    rgb: np.ndarray,
    vertices_cam_m: np.ndarray,
    faces: np.ndarray,
    K_px: np.ndarray,
    *,
    color: tuple[int, int, int] = (0, 230, 255),
    thickness: int = 1,
) -> np.ndarray:
    """Draws the outline of a mesh as a thin line on a copy, to compare it with the hand in the picture."""
    out = np.array(rgb, order="C")
    x0, y0, x1, y1 = _drawn_part(vertices_cam_m, K_px, rgb.shape)
    if x0 >= x1 or y0 >= y1:
        return out
    n = 4  # supersampling
    K_part = np.array([[n, 0.0, (n - 1) / 2 - n * x0], [0.0, n, (n - 1) / 2 - n * y0], [0.0, 0.0, 1.0]]) @ K_px
    mask = rasterize(vertices_cam_m, faces, K_part, (n * (x1 - x0), n * (y1 - y0))).mask.astype(np.uint8)
    lines, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    shift = 4  # OpenCV draws at 1/16 px with this many fractional bits
    points = [np.rint(((line + 0.5) / n - 0.5 + [x0, y0]) * 2**shift).astype(np.int32) for line in lines]
    cv2.polylines(out, points, True, color, thickness, cv2.LINE_AA, shift)
    return out


def _drawn_part(vertices_cam_m: np.ndarray, K_px: np.ndarray, shape: Sequence[int]) -> tuple[int, int, int, int]:
    """Bounds x0, y0, x1, y1 (exclusive ends) of the pixels that a mesh can cover."""
    seen = vertices_cam_m[vertices_cam_m[:, 2] >= NEAR_M]
    if not len(seen):
        return 0, 0, 0, 0
    points, limits = project(seen, K_px), (shape[1], shape[0])
    x0, y0 = (int(min(max(np.floor(low) - 1, 0), end)) for low, end in zip(points.min(0), limits, strict=True))
    x1, y1 = (int(min(max(np.ceil(high) + 2, 0), end)) for high, end in zip(points.max(0), limits, strict=True))
    return x0, y0, x1, y1


def color_depth(depth_m: np.ndarray, centre_m: float, range_m: float = 0.12) -> np.ndarray:
    """Colours depth within `range_m` of `centre_m`, nearer is warmer; black where there is no reading."""
    near = 1 - np.clip((depth_m - centre_m + range_m) / (2 * range_m), 0, 1)
    picture = cv2.applyColorMap((near * 255).astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]
    return np.where((depth_m > 0)[..., None], picture, 0).astype(np.uint8)


def label(rgb: np.ndarray, text: str) -> np.ndarray:
    """Adds a line of text on a dark strip above a copy of the picture."""
    strip = np.full((18, rgb.shape[1], 3), 32, np.uint8)
    cv2.putText(strip, text, (4, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.38, (235, 235, 235), 1, cv2.LINE_AA)
    return np.concatenate([strip, rgb])


def elide(text: str, width_px: int, *, scale: float = 0.38) -> str:
    """Shortens a text at its start, with two dots, to at most `width_px` in the font of `label`."""
    for start in range(len(text)):
        shown = text if start == 0 else ".." + text[start:]
        if cv2.getTextSize(shown, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)[0][0] <= width_px:
            return shown
    return ""


def contact_sheet(pictures: Sequence[np.ndarray], columns: int, *, gap: int = 4) -> np.ndarray:
    """Arranges pictures of one size in rows of `columns`, on white."""
    height, width = pictures[0].shape[:2]
    rows = -(-len(pictures) // columns)
    sheet = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), 255, np.uint8)
    for i, picture in enumerate(pictures):
        y, x = gap + (i // columns) * (height + gap), gap + (i % columns) * (width + gap)
        sheet[y : y + height, x : x + width] = picture
    return sheet


def save_picture(path, rgb: np.ndarray, *, overwrite: bool = False) -> None:
    """Writes a PNG or JPEG, by the suffix of the path, atomically.

    Args:
        path: the file.
        rgb: (H, W, 3) uint8.
        overwrite: `rgb` may be overwritten, which saves a copy of a large picture.

    Raises:
        InputError: a JPEG with a side of more than `MAX_JPEG_PX`.
    """
    path = str(path)
    ending = path[path.rindex(".") :]
    if ending.lower() in (".jpg", ".jpeg") and max(rgb.shape) > MAX_JPEG_PX:
        size = f"{rgb.shape[1]} x {rgb.shape[0]}"
        raise InputError(f"{path}: {size} px is too large for a JPEG (at most {MAX_JPEG_PX} a side); write a PNG")
    if overwrite and rgb.flags.c_contiguous:
        bgr = rgb
        for start in range(0, len(rgb), _STRIPE):
            bgr[start : start + _STRIPE] = rgb[start : start + _STRIPE, :, ::-1].copy()
    else:
        bgr = np.ascontiguousarray(rgb[..., ::-1])
    ok, data = cv2.imencode(ending, bgr)
    if not ok:
        raise OSError(f"{path}: the picture cannot be encoded")
    atomic_write(path, data.tobytes())
