"""Model of a depth sensor: noise, quantisation, displaced and bleeding outlines, holes.

Noise and quantisation grow with the square of the distance, as in triangulation. Readings near an outline are displaced
or lie between both sides (flying pixels). There are no readings in the stereo shadow beside the nearer side, and on
surfaces that are dark or nearly edge-on.
"""

from __future__ import annotations

import cv2
import numba
import numpy as np

from utnet.config import FactorsConfig
from utnet.synth.appearance import white_noise

# Constants are float32 by name, since numba promotes float32 with a literal to float64.
_0, _1, _2, _HALF, _QUARTER, _THIRD = (np.float32(v) for v in (0, 1, 2, 0.5, 0.25, 1 / 3))
_OUTLINE_M, _RARE, _OFTEN, _NO_LIMIT = (np.float32(v) for v in (0.015, -1.2, 0.3, 1e8))
_SHADE_M_PX, _SHADE_M, _PER_M, _M = (np.float32(v) for v in (0.012, 0.02, 1000, 0.001))


def background_depth(rng: np.random.Generator, size_wh: tuple[int, int], K_px: np.ndarray, hand_m: float) -> np.ndarray:
    """(H, W) float32 z of the background: a tilted plane, half of the time with a nearer plane beside it."""
    inverse = np.linalg.inv(K_px)
    x = (np.arange(size_wh[0]) * inverse[0, 0] + inverse[0, 2]).astype(np.float32)
    y = (np.arange(size_wh[1]) * inverse[1, 1] + inverse[1, 2]).astype(np.float32)[:, None]

    def plane(behind_m: float, slopes: np.ndarray) -> np.ndarray:
        # n . (X - X0) = 0 for the plane through (0, 0, d): z = d / (1 - slope . (x, y))
        return np.float32(hand_m + 0.1 + behind_m) / np.maximum(1 - slopes[0] * x - slopes[1] * y, np.float32(0.2))

    slopes = rng.normal(0, 0.35, (2, 2)).astype(np.float32)
    far = float(np.exp(rng.uniform(np.log(0.04), np.log(2.5))))
    out = plane(far, slopes[0])
    if rng.random() < 0.5:
        normal, edge = rng.normal(size=2).astype(np.float32), np.float32(rng.normal(0, 0.15))
        beside = normal[0] * x > edge - normal[1] * y
        np.copyto(out, plane(far * rng.uniform(0.2, 0.9), slopes[1]), where=beside)
    return out


def sense_depth(
    rng: np.random.Generator, depth_m: np.ndarray, light: np.ndarray, factors: FactorsConfig, noise_m: float
) -> np.ndarray:
    """Simulates a depth sensor: (H, W) float32 readings in metres, 0 where there is none.

    Args:
        rng: of this picture.
        depth_m: (H, W) float32 true depth.
        light: (H, W, 3) linear light of the picture.
        factors: strengths; those named `depth_...` are used.
        noise_m: standard deviation of the noise at 1 m.
    """
    shape = depth_m.shape
    scale = shape[1] / 224
    coarse = white_noise(rng, (max(shape[0] // 3, 2), max(shape[1] // 3, 2), 2))
    coarse = coarse * np.float32(1.1 * factors.depth_edges * rng.uniform(0.2, 1.4) * scale)
    wander = cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_LINEAR)
    holes = factors.depth_holes
    dark = np.float32(holes * rng.uniform(0, 0.02)) if rng.random() < 0.5 else np.float32(0)
    steep = np.float32(np.tan(np.deg2rad(90 - 14 * holes * rng.uniform(0.2, 1.2)))) if holes > 0 else np.float32(1e9)
    shade_px = round(factors.depth_holes * rng.uniform(0, 5) * scale) if rng.random() < 0.6 else 0
    out = np.empty(shape, np.float32)
    _sense(
        depth_m, light, white_noise(rng, shape), white_noise(rng, shape), wander,
        np.float32(noise_m * factors.depth_noise * rng.uniform(0.3, 2.0)),
        np.float32(factors.depth_steps * rng.choice([0.0, 0.0015, 0.004])),
        np.float32(0.3 * factors.depth_edges), dark, steep, shade_px, 1 if rng.random() < 0.5 else -1, out,
    )  # fmt: skip
    if rng.random() < 0.25 * factors.depth_patches:
        _drop_patches(rng, out, factors.depth_patches)
    return out


def _drop_patches(rng: np.random.Generator, depth: np.ndarray, strength: float) -> None:
    """Removes patches of readings, in place, as on specular, dark or transparent surfaces."""
    cells = int(rng.integers(4, 24))
    field = cv2.resize(white_noise(rng, (cells, cells)), depth.shape[::-1], interpolation=cv2.INTER_CUBIC)
    depth[field > rng.uniform(1.3, 2.4) / max(strength, 0.3)] = 0


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _sense(depth, light, noise, chance, wander, sigma, step, bleed, dark, steep, shade_px, side, out):
    height, width = depth.shape
    per_width = _2 / np.float32(width)
    shaded_m = _SHADE_M_PX * np.float32(shade_px) + _SHADE_M
    for y in range(height):
        for x in range(width):
            i = min(max(int(np.float32(y) + wander[y, x, 0] + _HALF), 0), height - 1)
            j = min(max(int(np.float32(x) + wander[y, x, 1] + _HALF), 0), width - 1)
            z, here = depth[i, j], depth[y, x]
            if abs(z - here) > _OUTLINE_M and chance[y, x] < _RARE + _2 * bleed:  # a flying pixel
                share = _HALF + _QUARTER * noise[y, x]
                z = here + min(max(share, _0), _1) * (z - here)
            lost = False
            if shade_px > 0:
                other = depth[i, min(max(j + side * shade_px, 0), width - 1)]
                lost = z - other > shaded_m
            if steep < _NO_LIMIT and 0 < j < width - 1 and 0 < i < height - 1:
                # Slope of the surface, for pixels of a camera with a field of view of 60 degrees.
                gx, gy = abs(depth[i, j + 1] - depth[i, j - 1]), abs(depth[i + 1, j] - depth[i - 1, j])
                lost = lost or (max(gx, gy) > steep * z * per_width and chance[y, x] < _OFTEN)
            if dark > 0:
                value = (light[i, j, 0] + light[i, j, 1] + light[i, j, 2]) * _THIRD
                lost = lost or value < dark * (_1 + _HALF * chance[y, x])
            square = z * z
            z += noise[y, x] * sigma * square
            if step > 0:
                bins = step * square
                z = np.floor(z / bins + _HALF) * bins
            out[y, x] = _0 if lost else np.floor(z * _PER_M + _HALF) * _M
