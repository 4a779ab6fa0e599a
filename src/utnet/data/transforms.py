"""Samples to samples. What moves the picture moves depth, K, box, 3D joints and parameters, in the same object."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from utnet.config import CropConfig
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

_MAX_SHRINK = 16
"""Finest supersampling when shrinking: a crop of 128 px from a square of 2,048 px and more."""


def mirror(sample: Sample) -> Sample:
    """The sample seen in a mirror: rgb, depth, K, box, joints and params flipped left to right, the other side.

    Mirroring twice gives the sample back. Mirrored parameters decode with the mirrored hand model, so betas stay.
    """
    width = sample.rgb.shape[1]
    x0, y0, x1, y1 = sample.box_px
    return replace(
        sample,
        rgb=np.ascontiguousarray(sample.rgb[:, ::-1]),
        depth_m=None if sample.depth_m is None else np.ascontiguousarray(sample.depth_m[:, ::-1]),
        K_px=mirror_camera(sample.K_px, width),
        box_px=np.array([width - 1 - x1, y0, width - 1 - x0, y1]),
        joints_cam_m=mirror_points(sample.joints_cam_m),
        params=None if sample.params is None else mirror_params(sample.params),
        side="left" if sample.side == "right" else "right",
    )


def to_right(sample: Sample) -> Sample:
    """Makes every hand a right hand, the one place that does so; right hands pass unchanged."""
    return sample if sample.side == "right" else mirror(sample)


def crop(sample: Sample, size_px: int, config: CropConfig, rng: np.random.Generator | None = None) -> Sample:
    """Cuts a square around the hand's box: ONE affine carries rgb, depth, K, box, joints and params together.

    Turning the picture turns the camera about its axis (`geometry.crop_camera`), so depth keeps its values.

    Args:
        sample: a picture with a box.
        size_px: side of the crop.
        config: size of the square over the box, and the jitters.
        rng: draws the jitters (training); None is the fixed crop of evaluation.

    Returns:
        The sample in its crop. What lies outside the picture is black and has no depth; `box_px` is the tight box of
        the old box's corners.
    """
    if rng is None:
        A = crop_affine(sample.box_px, size_px, expand=config.expand)
    else:
        A = jittered_crop_affine(sample.box_px, size_px, config, rng)
    return warp(sample, A, size_px)


def warp(sample: Sample, A: np.ndarray, size_px: int) -> Sample:
    """The sample under a (3, 3) similarity A of pixels, as a square of `size_px`."""
    K, R = crop_camera(A, sample.K_px)
    x0, y0, x1, y1 = sample.box_px
    corners = apply_affine(A, np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]))
    joints, params = sample.joints_cam_m, sample.params
    return replace(
        sample,
        rgb=_warp_rgb(sample.rgb, A, size_px),
        depth_m=None if sample.depth_m is None else _warp_nearest(sample.depth_m, A, size_px),
        K_px=K,
        box_px=np.concatenate([corners.min(0), corners.max(0)]),
        joints_cam_m=(joints @ R.T).astype(joints.dtype),
        params=None if params is None else rotate_params(params, R, joints[0].astype(np.float64)),
    )


def _warp_rgb(rgb: np.ndarray, A: np.ndarray, size_px: int) -> np.ndarray:
    """Bilinear; where it shrinks, drawn `k` times finer first and averaged over k x k, so that nothing aliases."""
    shrink = 1.0 / np.sqrt(abs(np.linalg.det(A[:2, :2])))
    k = 1 if shrink < 1.1 else min(int(np.ceil(shrink)), _MAX_SHRINK)
    # Pixel centres: the k fine pixels of crop pixel x are centred at k x + (k - 1) / 2.
    finer = np.array([[k, 0.0, (k - 1) / 2], [0.0, k, (k - 1) / 2], [0.0, 0.0, 1.0]]) @ A
    fine = cv2.warpAffine(rgb, finer[:2], (size_px * k, size_px * k), flags=cv2.INTER_LINEAR)
    return fine if k == 1 else cv2.resize(fine, (size_px, size_px), interpolation=cv2.INTER_AREA)


def _warp_nearest(depth_m: np.ndarray, A: np.ndarray, size_px: int) -> np.ndarray:
    """Nearest pixel: mixing hand and background would make depths that nothing has."""
    return cv2.warpAffine(depth_m, A[:2], (size_px, size_px), flags=cv2.INTER_NEAREST)


def augment_colors(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Light photometric changes: gain of each channel, brightness, contrast about the mean, and sensor noise.

    Args:
        rgb: (H, W, 3) uint8.
        rng: draws them.

    Returns:
        A new (H, W, 3) uint8.
    """
    gain = rng.uniform(0.8, 1.2) * rng.uniform(0.9, 1.1, 3)
    contrast, brightness = rng.uniform(0.8, 1.2), rng.uniform(-20, 20)
    noise = rng.standard_normal(rgb.shape, np.float32) * np.float32(rng.uniform(0, 5))
    scale = (gain * contrast).astype(np.float32)
    offset = np.float32(brightness) + (1 - contrast) * gain.astype(np.float32) * rgb.mean((0, 1), dtype=np.float32)
    return np.clip(rgb * scale + offset.astype(np.float32) + noise, 0, 255).astype(np.uint8)
