"""A contact sheet of a source: joints, mesh and depth drawn over its pictures (`utnet data preview`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import cv2
import numpy as np

from utnet.conventions import FINGERS
from utnet.data.inspection.decode import Decoder, fitted_camera, image_points, projected
from utnet.data.source import BadSample, evenly_spaced, is_stream, read_sample
from utnet.errors import InputError
from utnet.geometry import apply_affine, crop_affine
from utnet.render.drawing import (
    FINGER_COLORS,
    WRIST_COLOR,
    color_depth,
    contact_sheet,
    draw_joints,
    draw_points,
    elide,
    overlay_mesh,
)
from utnet.types import Sample

_EXPAND = 1.7
"""Side of the square crops over the longer side of the box."""

_OPACITY = 0.65
"""Of the mesh: the hand's outline must remain visible, to see whether the mesh fits it."""

_DEPTH_RANGE_M = 0.12
_SHEET_PX = 2400
"""Width of the widest sheet, readable on a screen."""

_INK, _PAPER, _EMPTY = (235, 235, 235), (32, 32, 32), (58, 58, 58)
_SIDE_COLORS = {"right": (70, 130, 220), "left": (225, 120, 50)}
_CAPTION_PX = 20
_MAX_STREAM_FAILURES = 100


@dataclass(frozen=True)
class _Tiles:
    """The pictures of one sample, all of one size; None for labels that the sample does not have."""

    joints: np.ndarray
    mesh: np.ndarray | None
    depth: np.ndarray | None


def preview_sheet(
    source: Any, *, num: int = 24, tile_px: int = 224, whole: bool = False, mano: str | None = None
) -> np.ndarray:
    """`draw_sheet` of `read_samples`."""
    return draw_sheet(read_samples(source, num)[0], Decoder(source, mano), tile_px=tile_px, whole=whole)


def draw_sheet(samples: Sequence[Sample], decoder: Decoder, *, tile_px: int = 224, whole: bool = False) -> np.ndarray:
    """Draws samples beside and below each other.

    Each has up to three tiles: the picture with its joints, with its mesh (the decoded parameters, else the labelled
    mesh), and its depth around the hand. A kind of tile that no sample has is left out.

    Args:
        samples: at least one.
        decoder: of their source.
        tile_px: width of a tile.
        whole: draw full pictures with the box instead of square crops around it.

    Returns:
        (H, W, 3) uint8.
    """
    if not 48 <= tile_px <= 2048:
        raise InputError(f"--tile is {tile_px}; expected tiles of 48 to 2048 px")
    height = tile_px
    if whole:
        height = max(round(tile_px * s.rgb.shape[0] / s.rgb.shape[1]) for s in samples)
    tiles = [_draw(sample, decoder, (tile_px, height), whole=whole) for sample in samples]
    kinds = ["joints"]
    kinds += [kind for kind in ("mesh", "depth") if any(getattr(tile, kind) is not None for tile in tiles)]
    groups = [_group(sample, tile, kinds) for sample, tile in zip(samples, tiles, strict=True)]
    columns = max(1, min(len(groups), _SHEET_PX // groups[0].shape[1]))
    sheet = contact_sheet(groups, columns, gap=6)
    return np.concatenate([_legend(sheet.shape[1], kinds), sheet])


def read_samples(source: Any, num: int) -> tuple[list[Sample], dict[str, str]]:
    """Up to `num` samples, evenly spaced over a source (the first ones of a stream), and the messages of those that
    cannot be read, by key.

    Raises:
        InputError: not one sample can be read.
    """
    if num < 1:
        raise InputError(f"--num is {num}; expected at least 1 sample")
    samples: list[Sample] = []
    bad: dict[str, str] = {}
    for item in _items(source, num):
        if isinstance(item, Sample):
            samples.append(item)
        else:
            bad[item.key] = item.message
        if len(samples) == num:
            break
    if not samples:
        message = next(iter(bad.values()), "it is empty")
        raise InputError(f"{source.name}: none of the samples tried can be read, the first: {message}")
    return samples, bad


def _items(source: Any, num: int) -> Iterator[Sample | BadSample]:
    if is_stream(source):
        yield from islice(source.stream(seed=0, epoch=0, part=0, num_parts=1), num + _MAX_STREAM_FAILURES)
        return
    for i in evenly_spaced(len(source), num):
        yield read_sample(source, int(i))


def _draw(sample: Sample, decoder: Decoder, size_wh: tuple[int, int], *, whole: bool) -> _Tiles:
    A = _whole_affine(sample.rgb.shape, size_wh) if whole else _crop_affine(sample, size_wh[0])
    rgb = _warp_rgb(sample.rgb, A, size_wh)
    points = apply_affine(A, image_points(sample))
    mesh = _draw_mesh(sample, decoder, rgb, A)
    depth = None
    if sample.depth_m is not None:
        drawn = cv2.warpAffine(sample.depth_m, A[:2], size_wh, flags=cv2.INTER_NEAREST)
        colored = color_depth(drawn, _centre_m(sample), _DEPTH_RANGE_M)
        depth = draw_joints(colored, points, sample.joints_2d_conf, thickness=1, color=(255, 255, 255))
    joints = draw_joints(rgb, points, sample.joints_2d_conf)
    if whole:
        x0, y0, x1, y1 = (
            np.rint(apply_affine(A, np.nan_to_num(sample.box_px).reshape(2, 2))).astype(int).ravel().tolist()
        )
        cv2.rectangle(joints, (x0, y0), (x1, y1), _SIDE_COLORS[sample.side], 1, cv2.LINE_AA)
    return _Tiles(joints, mesh, depth)


def _crop_affine(sample: Sample, size_px: int) -> np.ndarray:
    """Of the square around the box, or of the full picture where the box is invalid."""
    try:
        return crop_affine(sample.box_px, size_px, expand=_EXPAND)
    except ValueError:
        return _whole_affine(sample.rgb.shape, (size_px, size_px))


def _whole_affine(shape: tuple[int, ...], size_wh: tuple[int, int]) -> np.ndarray:
    """Fits the full picture into the tile, centred."""
    height, width = shape[:2]
    scale = min(size_wh[0] / width, size_wh[1] / height)
    A = np.diag([scale, scale, 1.0])
    A[:2, 2] = [(size_wh[0] - 1) / 2 - scale * (width - 1) / 2, (size_wh[1] - 1) / 2 - scale * (height - 1) / 2]
    return A


def _warp_rgb(rgb: np.ndarray, A: np.ndarray, size_wh: tuple[int, int]) -> np.ndarray:
    """Bilinear; downscaling draws at a higher resolution first and averages, against aliasing."""
    k = max(1, int(np.ceil(1 / A[0, 0])))
    finer = np.array([[k, 0.0, (k - 1) / 2], [0.0, k, (k - 1) / 2], [0.0, 0.0, 1.0]]) @ A
    drawn = cv2.warpAffine(rgb, finer[:2], (size_wh[0] * k, size_wh[1] * k), flags=cv2.INTER_LINEAR)
    return cv2.resize(drawn, size_wh, interpolation=cv2.INTER_AREA)


def _draw_mesh(sample: Sample, decoder: Decoder, rgb: np.ndarray, A: np.ndarray) -> np.ndarray | None:
    """Draws the decoded parameters, else the labelled mesh (as points where its faces are unknown), or None."""
    posed = decoder.mesh(sample)
    if posed is not None and sample.K_px is not None and sample.params is not None:
        vertices = posed.vertices_m + sample.params.transl_m
        if np.isfinite(vertices).all():
            return overlay_mesh(rgb, vertices, posed.faces, A @ sample.K_px, opacity=_OPACITY)
    if posed is not None:
        fitted = fitted_camera(posed.joints_m, image_points(sample), sample.joints_2d_conf)
        if fitted is not None:
            K, transl = fitted
            return overlay_mesh(rgb, posed.vertices_m + transl, posed.faces, A @ K, opacity=_OPACITY)
    if sample.vertices_cam_m is not None and sample.K_px is not None:
        faces = decoder.faces(sample)
        if faces is not None and len(sample.vertices_cam_m) > faces.max():
            return overlay_mesh(rgb, sample.vertices_cam_m, faces, A @ sample.K_px, opacity=_OPACITY)
        points = apply_affine(A, projected(sample.vertices_cam_m, sample.K_px))
        return draw_points(rgb, points, (158, 194, 242))
    return None


def _centre_m(sample: Sample) -> float:
    """Distance of the hand: median of its joints, else of the depth in the middle of the box."""
    z = sample.joints_cam_m[(sample.joints_3d_conf > 0) & np.isfinite(sample.joints_cam_m[:, 2]), 2]
    if len(z) and sample.K_px is not None:
        return float(np.median(z))
    x0, y0, x1, y1 = np.rint(np.nan_to_num(sample.box_px)).astype(int)
    x, y = (x1 - x0) // 4, (y1 - y0) // 4
    read = sample.depth_m[max(0, y0 + y) : max(0, y1 - y), max(0, x0 + x) : max(0, x1 - x)]  # type: ignore[index]
    read = read[read > 0]
    return float(np.median(read)) if len(read) else 1.0


# ---------------------------------------------------------------------------------------------------- tiles to a sheet


def _group(sample: Sample, tiles: _Tiles, kinds: Sequence[str]) -> np.ndarray:
    """A sample's tiles side by side under one caption: the side in its colour, and the key."""
    empty = np.full_like(tiles.joints, _EMPTY)
    pictures = []
    for kind in kinds:
        picture = getattr(tiles, kind)
        pictures.append(_write(empty, f"no {kind}", (10, empty.shape[0] // 2)) if picture is None else picture)
    row = np.concatenate(pictures, 1)
    strip = np.full((_CAPTION_PX, row.shape[1], 3), _PAPER, np.uint8)
    strip[:, :_CAPTION_PX] = _SIDE_COLORS[sample.side]
    strip = _write(strip, sample.side[0].upper(), (6, 14), scale=0.45)
    strip = _write(strip, elide(sample.key, row.shape[1] - _CAPTION_PX - 10), (_CAPTION_PX + 6, 14))
    return np.concatenate([strip, row])


def _legend(width: int, kinds: Sequence[str]) -> np.ndarray:
    """Legend of the colours, wrapped to the width."""
    entries: list[tuple[tuple[int, int, int] | None, str]] = [
        (_SIDE_COLORS["right"], "R right hand"),
        (_SIDE_COLORS["left"], "L left hand"),
        (WRIST_COLOR, "wrist"),
    ]
    entries += [(FINGER_COLORS[finger], finger) for finger in FINGERS]
    entries += [(None, "hollow: confidence 0")]
    if "depth" in kinds:
        entries += [
            (None, f"depth: +-{_DEPTH_RANGE_M * 100:.0f} cm around the hand, red: near, violet: far, black: no reading")
        ]
    lines, x = [np.full((24, width, 3), _PAPER, np.uint8)], 8
    for color, text in entries:
        needed = 8 * len(text) + 34
        if x + needed > width and x > 8:
            lines.append(np.full((24, width, 3), _PAPER, np.uint8))
            x = 8
        if color is not None:
            cv2.circle(lines[-1], (x + 6, 12), 6, color, -1, cv2.LINE_AA)
            x += 18
        lines[-1] = _write(lines[-1], text, (x, 16), scale=0.42)
        x += cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.42, 1)[0][0] + 18
    return np.concatenate(lines)


def _write(rgb: np.ndarray, text: str, origin: tuple[int, int], *, scale: float = 0.38) -> np.ndarray:
    out = np.ascontiguousarray(rgb).copy()
    cv2.putText(out, text, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, _INK, 1, cv2.LINE_AA)
    return out
