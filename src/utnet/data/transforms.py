"""Geometric transforms of samples: picture, depth, K, box, joints and parameters are transformed together."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from utnet.geometry import (
    apply_affine,
    crop_affine,
    crop_camera,
    jittered_crop_affine,
    mirror_camera,
    mirror_params,
    mirror_points,
    rotate_params,
)
from utnet.types import Sample

if TYPE_CHECKING:
    from utnet.config import CropConfig

_SHARP = 1.1
"""A picture that shrinks by less than this is sampled as it is: bilinear interpolation averages enough."""

_HALVED = 1.7
"""It is halved beforehand as long as it still shrinks by this much afterwards: halving is cheap, but a little soft."""

_OPPOSITE = {"left": "right", "right": "left"}


def mirror(sample: Sample, *, copy: bool = True) -> Sample:
    """The sample seen in a mirror: picture and labels flipped left to right, the other side.

    Mirroring twice gives the sample back. Mirrored parameters decode with the mirrored hand model, so betas stay.
    `copy=False` gives the picture as a view with its columns in reverse.
    """

    def flip(picture: np.ndarray | None) -> np.ndarray | None:
        return None if picture is None else np.ascontiguousarray(picture[:, ::-1])

    return replace(
        sample,
        rgb=cv2.flip(sample.rgb, 1) if copy else sample.rgb[:, ::-1],  # ten times faster than numpy's copy
        depth_m=flip(sample.depth_m),
        hand_mask=flip(sample.hand_mask),
        **_mirrored_labels(sample),
    )


def to_right(sample: Sample, *, copy: bool = True) -> Sample:
    """Makes every hand a right hand; right hands pass unchanged. `copy` as in `mirror`."""
    return sample if sample.side == "right" else mirror(sample, copy=copy)


def in_mirror(sample: Sample) -> Sample:
    """A crop of a right hand as that of a left hand which is taken for a right one: picture, prompts and mask flipped,
    without labels of joints and parameters."""
    flipped, prompts, cells = mirror(sample), sample.landmarks, sample.mask_cells
    return replace(
        flipped,
        side="right",
        in_mirror=True,
        joints_2d_conf=np.zeros_like(sample.joints_2d_conf),
        joints_3d_conf=np.zeros_like(sample.joints_3d_conf),
        params=None,
        vertices_cam_m=None,
        landmarks=None if prompts is None else prompts * [-1.0, 1.0, -1.0, 1.0, 1.0, 1.0],
        mask_cells=None if cells is None else np.ascontiguousarray(cells[:, ::-1]),
    )


def crop(sample: Sample, size_px: int, config: CropConfig, rng: np.random.Generator | None = None) -> Sample:
    """Crops a square around the hand's box, with one affine for picture and labels.

    Turning the picture turns the camera about its axis (`geometry.crop_camera`), so depth keeps its values.

    Args:
        sample: a picture with a box.
        size_px: side of the crop.
        config: size of the square over the box, and the jitters.
        rng: draws the jitters (training); None is the fixed crop of evaluation.
    """
    A = _affine(sample, size_px, config, rng)
    return replace(sample, **_turned_labels(sample, A), **_warped_pictures(sample, A, size_px, config.recipe))


def right_crop(sample: Sample, size_px: int, config: CropConfig, rng: np.random.Generator | None = None) -> Sample:
    """`crop(to_right(sample), ...)` with the flip inside the affine, without copying the full picture.

    A sample that is a crop already (`is_crop`) passes unchanged.

    Raises:
        ValueError: a ready crop of another size.
    """
    if sample.is_crop:
        if sample.rgb.shape[:2] != (size_px, size_px):
            raise ValueError(f"{sample.key}: a ready crop of {sample.rgb.shape[1]} px, the model takes {size_px} px")
        return sample
    if sample.side == "right":
        return crop(sample, size_px, config, rng)
    flip = np.array([[-1.0, 0.0, sample.rgb.shape[1] - 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    right = replace(sample, **_mirrored_labels(sample))  # labels of the mirrored picture beside the picture as it is
    A = _affine(right, size_px, config, rng)
    return replace(right, **_turned_labels(right, A), **_warped_pictures(sample, A @ flip, size_px, config.recipe))


def warp(sample: Sample, A: np.ndarray, size_px: int) -> Sample:
    """The sample under a (3, 3) similarity A of pixels, as a square of `size_px`."""
    return replace(sample, **_turned_labels(sample, A), **_warped_pictures(sample, A, size_px))


def _affine(sample: Sample, size_px: int, config: CropConfig, rng: np.random.Generator | None) -> np.ndarray:
    if rng is None:
        return crop_affine(sample.box_px, size_px, expand=config.expand, aspect=config.aspect)
    return jittered_crop_affine(sample.box_px, size_px, config, rng)


# ------------------------------------------------------------------------------------------------------------- labels


def _mirrored_labels(sample: Sample) -> dict[str, Any]:
    """Everything of `mirror` but the pictures."""
    width, points = sample.rgb.shape[1], sample.joints_px
    x0, y0, x1, y1 = sample.box_px
    return {
        "K_px": None if sample.K_px is None else mirror_camera(sample.K_px, width),
        "box_px": np.array([width - 1 - x1, y0, width - 1 - x0, y1]),
        "joints_cam_m": mirror_points(sample.joints_cam_m),
        "joints_px": None if points is None else np.stack([width - 1 - points[:, 0], points[:, 1]], 1),
        "landmarks_m": None if sample.landmarks_m is None else mirror_points(sample.landmarks_m),
        "vertices_cam_m": None if sample.vertices_cam_m is None else mirror_points(sample.vertices_cam_m),
        "params": None if sample.params is None else mirror_params(sample.params),
        "side": _OPPOSITE[sample.side],
    }


def _turned_labels(sample: Sample, A: np.ndarray) -> dict[str, Any]:
    """Everything of `warp` but the pictures. Labels that are NaN stay NaN."""
    K, R = crop_camera(A, sample.K_px)
    x0, y0, x1, y1 = sample.box_px.tolist()
    (a, b, x), (c, d, y) = A[:2].tolist()
    columns = [a * u + b * v + x for u in (x0, x1) for v in (y0, y1)]
    rows = [c * u + d * v + y for u in (x0, x1) for v in (y0, y1)]
    joints, vertices, points, params = sample.joints_cam_m, sample.vertices_cam_m, sample.joints_px, sample.params
    return {
        "K_px": K,
        "box_px": np.array([min(columns), min(rows), max(columns), max(rows)]),
        "joints_cam_m": (joints @ R.T).astype(joints.dtype),
        "joints_px": None if points is None else apply_affine(A, points).astype(points.dtype),
        "landmarks_m": None if sample.landmarks_m is None else sample.landmarks_m @ R.T,
        "vertices_cam_m": None if vertices is None else (vertices @ R.T).astype(vertices.dtype),
        "params": None if params is None else rotate_params(params, R, joints[0].astype(np.float64)),
    }


# ----------------------------------------------------------------------------------------------------------- pictures


def _warped_pictures(sample: Sample, A: np.ndarray, size_px: int, recipe: str = "utnet") -> dict[str, Any]:
    """rgb, depth and mask under A. Depth and mask take the nearest pixel: mixing hand and background would make depths
    that nothing has.

    The recipe "wilor" puts the box's centre on pixel `size_px / 2`, half a pixel right and below of where labels have
    it, and blurs as that project does.
    """
    depth, mask = sample.depth_m, sample.hand_mask
    warp_rgb = _warp_rgb
    if recipe == "wilor":
        A, warp_rgb = A + np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]]), _warp_rgb_wilor
    size_wh = (size_px, size_px)
    if depth is not None:
        depth = cv2.warpAffine(depth, A[:2], size_wh, flags=cv2.INTER_NEAREST)
    if mask is not None:
        mask = cv2.warpAffine(mask.view(np.uint8), A[:2], size_wh, flags=cv2.INTER_NEAREST).view(bool)
    return {"rgb": warp_rgb(sample.rgb, A, size_px), "depth_m": depth, "hand_mask": mask}


def _warp_rgb(rgb: np.ndarray, A: np.ndarray, size_px: int) -> np.ndarray:
    """Bilinear; where it shrinks, smoothed first (and halved, where it shrinks a lot), so that nothing aliases.

    Against exact averaging that is 54 dB on our renderings, at half the cost of sampling twice finer (56 dB). OpenCV
    warps four channels more than twice as fast as three.
    """
    (p, q), (r, s) = A[:2, :2].tolist()
    shrink = 1.0 / math.sqrt(abs(p * s - q * r))
    halvings = max(0, int(math.log2(shrink / _HALVED)))
    k = 2**halvings
    part, x0, y0 = _needed_part(rgb, A, size_px, k)
    for _ in range(halvings):
        part = cv2.resize(part, (part.shape[1] // 2, part.shape[0] // 2), interpolation=cv2.INTER_AREA)
    if shrink >= _SHARP:
        taps = 3 if shrink < 2.8 * k else 5
        # 0.1 + 0.3 shrink was found best by trial; averaging k x k pixels has a variance of (k^2 - 1) / 12 already.
        part = cv2.GaussianBlur(part, (taps, taps), math.sqrt((0.1 + 0.3 * shrink) ** 2 - (k * k - 1) / 12) / k)
    part = cv2.cvtColor(part, cv2.COLOR_RGB2RGBA)
    # Pixel centres: the k x k pixels under pixel x of the part are centred at x0 + k x + (k - 1) / 2.
    from_part = np.array([[k, 0.0, x0 + (k - 1) / 2], [0.0, k, y0 + (k - 1) / 2], [0.0, 0.0, 1.0]])
    out = cv2.warpAffine(part, (A @ from_part)[:2], (size_px, size_px), flags=cv2.INTER_LINEAR)
    return cv2.cvtColor(out, cv2.COLOR_RGBA2RGB)


def _warp_rgb_wilor(rgb: np.ndarray, A: np.ndarray, size_px: int) -> np.ndarray:
    """Bilinear; a picture that shrinks by more than 2.2 is first blurred, with half of (half its shrinking - 1) for a
    deviation: what HaMeR's and WiLoR's demos do (skimage's Gaussian, cut off at four deviations)."""
    halved = 0.5 / math.sqrt(abs(np.linalg.det(A[:2, :2])))
    part = rgb
    if halved > 1.1:
        sigma = (halved - 1) / 2
        reach = int(4 * sigma + 0.5)
        part = cv2.GaussianBlur(
            rgb.astype(np.float32), (2 * reach + 1, 2 * reach + 1), sigma, borderType=cv2.BORDER_REPLICATE
        )
    out = cv2.warpAffine(part, A[:2], (size_px, size_px), flags=cv2.INTER_LINEAR)
    return np.rint(out).astype(np.uint8)


def _needed_part(rgb: np.ndarray, A: np.ndarray, size_px: int, multiple: int) -> tuple[np.ndarray, int, int]:
    """The part of the picture that the crop shows, its sides multiples of `multiple`, and its first column and row."""
    (p, q, u), (r, s, v) = A[:2].tolist()
    det = p * s - q * r
    a, b, c, d = s / det, -q / det, -r / det, p / det  # the inverse, from the crop to the picture
    x, y = -(a * u + b * v), -(c * u + d * v)
    height, width = rgb.shape[:2]
    low, high = -1.0, float(size_px)  # the outermost pixels and one more

    def span(p: float, q: float, at: float, limit: int) -> tuple[int, int]:
        """What `at + p * column + q * row` covers, rounded outwards."""
        least = at + min(p * low, p * high) + min(q * low, q * high)
        most = at + max(p * low, p * high) + max(q * low, q * high)
        first = int(min(max(least - 1, 0), limit - 1)) // multiple * multiple
        last = int(min(max(most + 3, first + 1), limit))
        return first, min(first + -(-(last - first) // multiple) * multiple, limit)

    (x0, x1), (y0, y1) = span(a, b, x, width), span(c, d, y, height)
    part = rgb[y0:y1, x0:x1]
    if part.strides[1] < 0:  # `mirror` without a copy; OpenCV turns it round ten times faster than numpy
        part = cv2.flip(part[:, ::-1], 1)
    lacks_y, lacks_x = -part.shape[0] % multiple, -part.shape[1] % multiple
    if lacks_x or lacks_y:  # the picture ends there: black, as everything beyond it
        part = cv2.copyMakeBorder(part, 0, lacks_y, 0, lacks_x, cv2.BORDER_CONSTANT)
    return part, x0, y0
