"""What training changes in a crop's pixels: colours, sharpness and noise of the picture; noise, rounding and holes of
the depth. Labels stay. It is cheap beside decoding: one colour matrix, and noise cut from pools that are drawn once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import cv2
import numpy as np

from utnet.config import AugmentConfig
from utnet.types import Sample

_POOL_STD = 32.0
"""Deviation of the 8-bit noise: four deviations to either side of 128 fit."""

_GREY = np.array([0.299, 0.587, 0.114])
"""Luma of R, G, B (ITU-R BT.601)."""

_EDGE_M = 0.03
"""Neighbouring readings that differ by more belong to two surfaces."""

_NEARER = (0.5, 0.9)
"""Distance of an occluding patch over that of what it hides."""


def augment(sample: Sample, config: AugmentConfig, rng: np.random.Generator) -> Sample:
    """The sample with other pixels: a new picture and a new depth image.

    Args:
        sample: a crop (any size).
        config: how much of what.
        rng: draws it; the same one gives the same pixels.
    """
    rgb, depth = augment_colors(sample.rgb, config, rng), sample.depth_m
    if depth is not None:
        depth = augment_depth(depth, config, rng)
    if config.occlude_p > 0 and rng.random() < config.occlude_p:
        _occlude(rgb, depth, config, rng)
    return replace(sample, rgb=rgb, depth_m=depth)


def augment_colors(rgb: np.ndarray, config: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    """Gain (of all and of each channel), contrast about the mean, brightness, saturation, hue, blur and sensor noise.

    Args:
        rgb: (H, W, 3) uint8.

    Returns:
        A new (H, W, 3) uint8.
    """
    # Drawn whether used or not: switching one effect off leaves the others' draws as they were.
    draw = rng.uniform(-1, 1, 8)
    blurs, blur_px, noise = rng.random(3) * (1.0, config.blur_px, config.noise)
    gain = (1 + config.gain * draw[0]) * (1 + config.channel_gain * draw[1:4])
    contrast, brightness = 1 + config.contrast * draw[4], config.brightness * draw[5]
    M = _color_turn(1 + config.saturation * draw[6], np.deg2rad(config.hue_deg * draw[7]))
    M = gain[:, None] * M
    mean = M @ cv2.mean(rgb)[:3]
    offset = (1 - contrast) * mean + brightness
    out = cv2.transform(rgb, np.column_stack([contrast * M, offset]))
    if blurs < config.blur_p and blur_px > 0:
        out = cv2.GaussianBlur(out, (5, 5), blur_px)
    if noise > 0:
        weight = noise / _POOL_STD
        out = cv2.addWeighted(out, 1.0, _cut(_color_noise, rgb.shape, rng), weight, -128.0 * weight)
    return out


def augment_depth(depth_m: np.ndarray, config: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    """Noise that grows with the distance squared (a stereo sensor's), rounding, lost outlines and holes.

    Args:
        depth_m: (H, W) float32, 0 where there is no reading; that stays so.

    Returns:
        A new (H, W) float32.
    """
    noise, step, edges, holes = rng.random(4) * (config.depth_noise, config.depth_step_m, 1.0, 1.0)
    out = depth_m
    if noise > 0:
        squared = cv2.multiply(depth_m, depth_m)
        out = cv2.add(depth_m, cv2.multiply(squared, _cut(_depth_noise, depth_m.shape, rng), dst=squared, scale=noise))
        np.maximum(out, 0, out=out)
    if step > 1e-5:
        out = out * np.float32(1 / step)
        np.rint(out, out)
        out *= np.float32(step)
    if out is depth_m:
        out = depth_m.copy()
    if edges < config.depth_edges_p:
        nearest, farthest = cv2.erode(depth_m, _SQUARE), cv2.dilate(depth_m, _SQUARE)
        out[(farthest - nearest) > _EDGE_M] = 0
    if holes < config.depth_holes_p and config.depth_holes > 0:
        _punch(out, int(rng.integers(1, config.depth_holes + 1)), rng)
    return out


_SQUARE = np.ones((3, 3), np.uint8)


def _color_turn(saturation: float, hue_rad: float) -> np.ndarray:
    """(3, 3) matrix that moves colours away from grey and turns them about the grey axis; grey stays grey."""
    M = np.eye(3)
    if hue_rad:
        axis = np.full(3, 3**-0.5)
        cross = np.cross(np.eye(3), axis)
        M = np.cos(hue_rad) * M + np.sin(hue_rad) * cross + (1 - np.cos(hue_rad)) * np.outer(axis, axis)
    return saturation * M + (1 - saturation) * _GREY


def _punch(depth_m: np.ndarray, num: int, rng: np.random.Generator) -> None:
    """Blots without readings, a few per cent of the side large, in place."""
    height, width = depth_m.shape
    for x, y, a, b, angle in rng.random((num, 5)):
        axes = (1 + int(0.06 * width * a), 1 + int(0.06 * width * b))
        cv2.ellipse(depth_m, (int(width * x), int(height * y)), axes, 180 * angle, 0, 360, 0.0, cv2.FILLED)


def _occlude(rgb: np.ndarray, depth_m: np.ndarray | None, config: AugmentConfig, rng: np.random.Generator) -> None:
    """One patch of one colour before the picture, in place."""
    height, width = rgb.shape[:2]
    x, y = rng.random(2) * (width, height)
    w, h = (0.2 + 0.8 * rng.random(2)) * config.occlude_size * width / 2
    color, nearer = rng.integers(0, 256, 3), rng.uniform(*_NEARER)
    rows, columns = slice(max(0, int(y - h)), int(y + h) + 1), slice(max(0, int(x - w)), int(x + w) + 1)
    rgb[rows, columns] = color
    if depth_m is not None:
        hidden = depth_m[rows, columns]
        depth_m[rows, columns] = nearer * hidden[hidden > 0].min(initial=np.inf) if (hidden > 0).any() else 0


# -------------------------------------------------------------------------------------------------------------- noise


def _cut(draw_pool: Callable[[int], np.ndarray], shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """A window of (H, W) at a random place of a pool half as large again."""
    height, width = shape[:2]
    pool = draw_pool(max(height, width) * 3 // 2)  # small enough to stay in the processor's cache
    y, x = rng.integers(0, (len(pool) - height + 1, len(pool) - width + 1))
    return pool[y : y + height, x : x + width]


@lru_cache(maxsize=4)
def _color_noise(side: int) -> np.ndarray:
    """(side, side, 3) uint8 normal noise about 128. The same in every process: only where it is cut differs."""
    noise = np.random.default_rng(0).standard_normal((side, side, 3), np.float32)
    return np.clip(np.rint(noise * _POOL_STD + 128), 0, 255).astype(np.uint8)


@lru_cache(maxsize=4)
def _depth_noise(side: int) -> np.ndarray:
    """(side, side) float32 normal noise of deviation 1, a little smooth: neighbouring readings share their window."""
    noise = cv2.GaussianBlur(np.random.default_rng(1).standard_normal((side, side), np.float32), (3, 3), 0.6)
    return noise / noise.std()
