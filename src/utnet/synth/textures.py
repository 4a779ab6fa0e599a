"""Tileable procedural grey textures of cloth, wood, print and grain."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

TEXTURE_PX = 256
KINDS = ("plain", "grain", "weave", "stripes", "checks", "knit", "wood", "print", "scratches", "clouds")
_EACH = 4


def texture_of(rng: np.random.Generator, *kinds: str) -> int:
    """Draws the index of a random texture of one of the kinds."""
    return KINDS.index(kinds[rng.integers(len(kinds))]) * _EACH + int(rng.integers(_EACH))


@lru_cache(maxsize=1)
def textures() -> np.ndarray:
    """(len(KINDS) * 4, 256, 256) uint8, made once from a fixed seed."""
    rng = np.random.default_rng(20260104)
    return np.stack([_paint(rng, kind) for kind in KINDS for _ in range(_EACH)])


def tiling_clouds(rng: np.random.Generator, cells: tuple[int, ...], falloff: float = 0.6) -> np.ndarray:
    """(256, 256) float32 tileable multi-scale noise in about [0, 1]; amplitudes decrease by `falloff`."""
    out = np.zeros((TEXTURE_PX, TEXTURE_PX), np.float32)
    for k, n in enumerate(cells):
        grid = np.pad(rng.normal(size=(n, n)).astype(np.float32), 2, "wrap")
        scale = n / TEXTURE_PX  # the middle n x n of the padded grid fills the picture
        affine = np.array([[scale, 0, 1.5 + scale / 2], [0, scale, 1.5 + scale / 2]])
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        out += falloff**k * cv2.warpAffine(grid, affine, (TEXTURE_PX, TEXTURE_PX), flags=flags)
    return np.clip(0.5 + 0.2 * out / max(float(out.std()), 1e-6), 0, 1)


def _paint(rng: np.random.Generator, kind: str) -> np.ndarray:
    y, x = np.meshgrid(np.arange(TEXTURE_PX), np.arange(TEXTURE_PX), indexing="ij")
    clouds = tiling_clouds(rng, (4, 8, 16, 32))
    grain = rng.uniform(0, 1, x.shape).astype(np.float32)

    def wave(n: float, along: np.ndarray, sharp: float) -> np.ndarray:
        return np.clip(0.5 + sharp * np.sin(2 * np.pi * n * along / TEXTURE_PX), 0, 1)

    n = float(rng.choice([4, 8, 16]))
    if kind == "plain":
        out = 0.3 + 0.4 * clouds
    elif kind == "grain":
        out = 0.5 * grain + 0.5 * clouds
    elif kind == "weave":
        out = 0.35 * wave(64, x, 0.5) + 0.35 * wave(64, y, 0.5) + 0.3 * clouds
    elif kind == "stripes":
        out = wave(n, x if rng.random() < 0.5 else y, 4) * 0.85 + 0.15 * grain
    elif kind == "checks":
        out = 0.45 * wave(n, x, 4) + 0.45 * wave(n, y, 4) + 0.1 * grain
    elif kind == "knit":
        rows = 32.0
        out = wave(rows, y + 3 * np.abs(np.sin(np.pi * rows * x / TEXTURE_PX)), 0.5) * 0.7 + 0.3 * clouds
    elif kind == "wood":
        rings = tiling_clouds(rng, (2, 4)) * 60 + tiling_clouds(rng, (64,)) * 2
        out = 0.6 * (0.5 + 0.5 * np.sin(rings + y * 2 * np.pi * 8 / TEXTURE_PX)) + 0.4 * cv2.blur(grain, (31, 1))
    elif kind == "print":
        out = np.full(x.shape, rng.uniform(0.7, 1.0), np.float32)
        for _ in range(rng.integers(6, 18)):
            left, top = (int(v) for v in rng.integers(0, TEXTURE_PX, 2))
            w, h = int(rng.integers(8, 120)), int(rng.choice([4, 8, 30]))
            cv2.rectangle(out, (left, top), (left + w, top + h), float(rng.uniform(0, 0.8)), -1)
    elif kind == "scratches":
        out = 0.4 + 0.3 * clouds
        for _ in range(40):
            a, b = rng.integers(0, TEXTURE_PX, (2, 2))
            cv2.line(out, tuple(a.tolist()), tuple(b.tolist()), float(rng.uniform(0.2, 1)), 1, cv2.LINE_AA)
    else:
        out = tiling_clouds(rng, (2, 4, 8, 16, 32, 64), 0.7)
    return (np.clip(out, 0, 1) * 255).astype(np.uint8)
