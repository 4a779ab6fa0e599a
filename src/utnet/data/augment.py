"""Augmentation of a crop's pixels: colours, sharpness and noise of the picture; noise, rounding and holes of the depth.
Labels are unchanged. It is cheap compared with decoding: one colour matrix, two loops over the depth, and noise cut
from precomputed pools."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import cv2
import numpy as np

from utnet.compiled import njit
from utnet.config import AugmentConfig
from utnet.types import Sample

_POOL_STD = 32.0
"""Standard deviation of the 8-bit noise: four deviations on either side of 128 fit."""

_GREY = np.array([0.299, 0.587, 0.114])
"""Luma of R, G, B (ITU-R BT.601)."""

_EYE = np.eye(3)

_EDGE_M = 0.03
"""Difference of neighbouring readings above which they belong to two surfaces."""

_NEARER = (0.5, 0.9)
"""Distance of an occluding patch over that of the hand."""


def augment(sample: Sample, config: AugmentConfig, rng: np.random.Generator) -> Sample:
    """Returns the sample with an augmented picture and depth image.

    Args:
        sample: a crop (any size).
        config: strengths.
        rng: random generator; determines the result.
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
    # Always drawn, so that disabling one effect does not change the others.
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
    """Noise proportional to the distance squared (a stereo sensor's), rounding, lost outlines and holes.

    Args:
        depth_m: (H, W) float32, 0: no reading (unchanged).

    Returns:
        A new (H, W) float32.
    """
    noise, step, edges, holes = rng.random(4) * (config.depth_noise, config.depth_step_m, 1.0, 1.0)
    out = np.empty_like(depth_m)
    window = _cut(_depth_noise, depth_m.shape, rng)
    _read_again(depth_m, window, np.float32(noise / _POOL_STD), np.float32(step if step > 1e-5 else 0), out)
    if edges < config.depth_edges_p:
        _lose_edges(depth_m, np.float32(_EDGE_M), out)
    if holes < config.depth_holes_p and config.depth_holes > 0:
        _punch(out, int(rng.integers(1, config.depth_holes + 1)), rng)
    return out


@njit()
def _read_again(depth_m, noise, strength, step, out):
    """Every reading with its noise (`strength` times the distance squared), rounded to whole steps (0: not rounded)."""
    height, width = depth_m.shape
    for y in range(height):
        for x in range(width):
            z = depth_m[y, x]
            out[y, x] = max(z + z * z * (np.float32(noise[y, x]) * strength), np.float32(0))
        if step > 0:
            per_step = np.float32(1) / step
            for x in range(width):
                out[y, x] = np.rint(out[y, x] * per_step) * step


@njit()
def _lose_edges(depth_m, edge_m, out):
    """No reading where those of the 3 x 3 around differ by more than `edge_m`, holes included."""
    height, width = depth_m.shape
    low, high = np.empty(width, np.float32), np.empty(width, np.float32)
    for y in range(height):
        above, here, below = depth_m[max(y - 1, 0)], depth_m[y], depth_m[min(y + 1, height - 1)]
        for x in range(width):
            low[x] = min(above[x], here[x], below[x])
            high[x] = max(above[x], here[x], below[x])
        for x in range(width):
            left, right = max(x - 1, 0), min(x + 1, width - 1)
            if max(high[left], high[x], high[right]) - min(low[left], low[x], low[right]) > edge_m:
                out[y, x] = 0


def _color_turn(saturation: float, hue_rad: float) -> np.ndarray:
    """(3, 3) matrix that moves colours away from grey and turns them about the grey axis; grey stays grey."""
    M = _EYE
    if hue_rad:
        axis = np.full(3, 3**-0.5)
        cross = np.cross(_EYE, axis)
        M = np.cos(hue_rad) * M + np.sin(hue_rad) * cross + (1 - np.cos(hue_rad)) * np.outer(axis, axis)
    return saturation * M + (1 - saturation) * _GREY


def _punch(depth_m: np.ndarray, num: int, rng: np.random.Generator) -> None:
    """Blots without readings, a few per cent of the side large, in place."""
    height, width = depth_m.shape
    for x, y, a, b, angle in rng.random((num, 5)):
        axes = (1 + int(0.06 * width * a), 1 + int(0.06 * width * b))
        cv2.ellipse(depth_m, (int(width * x), int(height * y)), axes, 180 * angle, 0, 360, 0.0, cv2.FILLED)


def _occlude(rgb: np.ndarray, depth_m: np.ndarray | None, config: AugmentConfig, rng: np.random.Generator) -> None:
    """Draws one patch of one colour over the picture, in place."""
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
    """A random window of (H, W) from a pool 1.5 times as large."""
    height, width = shape[:2]
    pool = draw_pool(max(height, width) * 3 // 2)  # small enough to stay in the processor's cache
    u, v = rng.random(2).tolist()
    y, x = int(u * (len(pool) - height + 1)), int(v * (len(pool) - width + 1))
    return pool[y : y + height, x : x + width]


@lru_cache(maxsize=4)
def _color_noise(side: int) -> np.ndarray:
    """(side, side, 3) uint8 normal noise about 128. The same in every process: only where it is cut differs."""
    noise = np.random.default_rng(0).standard_normal((side, side, 3), np.float32)
    return np.clip(np.rint(noise * _POOL_STD + 128), 0, 255).astype(np.uint8)


@lru_cache(maxsize=4)
def _depth_noise(side: int) -> np.ndarray:
    """(side, side) int8 normal noise of deviation `_POOL_STD`, a little smooth: neighbouring readings share their
    window. Bytes, so that it stays in the cache beside the pictures."""
    noise = cv2.GaussianBlur(np.random.default_rng(1).standard_normal((side, side), np.float32), (3, 3), 0.6)
    return np.clip(np.rint(noise * (_POOL_STD / noise.std())), -127, 127).astype(np.int8)
