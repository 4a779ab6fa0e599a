"""Plain appearance of synthetic pictures: skin, light, background, lens blur and sensor noise."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

# Skin tones from very light to very dark; others are linear mixtures of neighbours.
_SKIN = np.array(
    [
        [0.97, 0.86, 0.79],
        [0.93, 0.76, 0.65],
        [0.84, 0.63, 0.49],
        [0.66, 0.46, 0.33],
        [0.45, 0.30, 0.22],
        [0.27, 0.18, 0.14],
    ]
)
_NUM_TEXTURES, _TEXTURE_PX = 96, 256
_NOISE_LENGTH = 2**20


@dataclass(frozen=True)
class Appearance:
    """Appearance of a picture, without geometry. `sample` draws one at random; frames of a sequence share it.

    Attributes:
        skin_rgb: (3,) in [0, 1].
        mottle: (3, 4) random directions and phases of the variation of skin tone over the hand.
        light: (3,) unit vector towards the light, camera frame.
        ambient: fraction of ambient light.
        exposure: factor on all light.
        texture: index into the background textures.
        texture_affine: (2, 3) picture to texture.
        tint: (3,) factor on the background.
        background_m: distance of the background plane behind the hand, m.
        background_tilt: (2,) slope of that plane in x and y.
        blur_px: standard deviation of the lens blur.
        noise: standard deviation of the sensor's noise, of 255.
    """

    skin_rgb: np.ndarray
    mottle: np.ndarray
    light: np.ndarray
    ambient: float
    exposure: float
    texture: int
    texture_affine: np.ndarray
    tint: np.ndarray
    background_m: float
    background_tilt: np.ndarray
    blur_px: float
    noise: float

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Appearance:
        tone = rng.uniform(0, len(_SKIN) - 1)
        low = int(tone)
        skin = _SKIN[low] + (tone - low) * (_SKIN[min(low + 1, len(_SKIN) - 1)] - _SKIN[low])
        light = rng.normal(size=3) + np.array([0.0, -0.5, -1.2])  # mostly from above and from the camera's side
        angle, zoom = rng.uniform(-np.pi, np.pi), rng.uniform(0.25, 1.0)
        turn = zoom * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        return cls(
            skin_rgb=np.clip(skin * rng.normal(1, 0.05, 3), 0.05, 1),
            mottle=rng.normal(size=(3, 4)) * np.array([60.0, 60.0, 60.0, 3.0]),
            light=light / np.linalg.norm(light),
            ambient=rng.uniform(0.25, 0.6),
            exposure=rng.uniform(0.65, 1.25),
            texture=int(rng.integers(_NUM_TEXTURES)),
            texture_affine=np.concatenate([turn, rng.uniform(0, _TEXTURE_PX, (2, 1))], 1),
            tint=np.clip(rng.normal(1, 0.12, 3) * rng.uniform(0.5, 1.2), 0, 1.6),
            background_m=float(np.exp(rng.uniform(np.log(0.04), np.log(1.5)))),
            background_tilt=rng.normal(0, 0.3, 2),
            blur_px=rng.uniform(0.3, 1.0),
            noise=rng.uniform(0, 6),
        )


def shade(appearance: Appearance, vertices_m: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Shades the skin at every vertex: (V, 3) in [0, 1].

    Args:
        appearance: skin and light.
        vertices_m: (V, 3) hand frame (the mottling is fixed to the skin).
        normals: (V, 3) unit, camera frame, outwards.
    """
    diffuse = np.maximum(normals @ appearance.light.astype(np.float32), 0)
    light = appearance.exposure * (appearance.ambient + (1 - appearance.ambient) * diffuse)
    waves = np.sin(
        vertices_m @ appearance.mottle[:, :3].T.astype(np.float32) + appearance.mottle[:, 3].astype(np.float32)
    )
    mottle = 1 + 0.05 * waves  # a separate variation per channel, like blood and melanin
    return np.clip(light[:, None] * mottle * appearance.skin_rgb, 0, 1).astype(np.float32)


def background(appearance: Appearance, size_wh: tuple[int, int]) -> np.ndarray:
    """Returns a tinted patch of a procedural texture: (H, W, 3) float32 in [0, 1]."""
    affine = appearance.texture_affine.astype(np.float32).copy()
    affine[:, :2] *= 192 / max(size_wh)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    patch = cv2.warpAffine(_textures()[appearance.texture], affine, size_wh, flags=flags, borderMode=cv2.BORDER_REFLECT)
    tinted = patch * (appearance.tint / 255).astype(np.float32)
    return np.minimum(tinted, 1, out=tinted)


def finish(appearance: Appearance, rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Adds lens blur and sensor noise: (H, W, 3) float in [0, 1] -> uint8."""
    blurred = cv2.GaussianBlur(rgb, (3, 3), appearance.blur_px)
    noisy = blurred * np.float32(255) + white_noise(rng, rgb.shape) * np.float32(appearance.noise)
    return np.clip(noisy, 0, 255, out=noisy).astype(np.uint8)


def white_noise(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Normal noise, float32: a random section of one cached series, which saves a millisecond per picture."""
    num = int(np.prod(shape))
    series = _noise_series(max(_NOISE_LENGTH, 2 * num))
    start = int(rng.integers(len(series) - num))
    return series[start : start + num].reshape(shape)


@lru_cache(maxsize=2)
def _noise_series(length: int) -> np.ndarray:
    return np.random.default_rng(20260102).standard_normal(length, np.float32)


@lru_cache(maxsize=1)
def _textures() -> np.ndarray:
    """(N, 256, 256, 3) uint8 procedural backgrounds: clouds of several sizes, stripes, boxes and discs in two colours.

    Made once from a fixed seed, so a picture depends only on its own seed. Some colours are skin tones, so that a hand
    cannot be found by colour alone.
    """
    rng = np.random.default_rng(20260101)
    out = np.empty((_NUM_TEXTURES, _TEXTURE_PX, _TEXTURE_PX, 3), np.uint8)
    for texture in out:
        picture = np.zeros((_TEXTURE_PX, _TEXTURE_PX, 3), np.float32)
        for cells in (2, 5, 12, 40):
            noise = rng.uniform(0, 1, (cells, cells, 3)).astype(np.float32)
            grey = noise.mean(-1, keepdims=True)
            noise = grey + rng.uniform(0, 1) * (noise - grey)
            picture += (
                cv2.resize(noise, (_TEXTURE_PX, _TEXTURE_PX), interpolation=cv2.INTER_CUBIC) * rng.uniform(0.1, 1) / 2
            )
        for _ in range(rng.integers(0, 14)):
            skin = _SKIN[rng.integers(len(_SKIN))]
            color = tuple(float(c) for c in (skin if rng.random() < 0.3 else rng.uniform(0, 1, 3)))
            x, y = (int(v) for v in rng.integers(0, _TEXTURE_PX, 2))
            w, h = (int(v) for v in rng.integers(4, 90, 2))
            kind = rng.integers(3)
            if kind == 0:
                cv2.rectangle(picture, (x, y), (x + w, y + h), color, -1)
            elif kind == 1:
                cv2.ellipse(picture, (x, y), (w // 2, h // 2), float(rng.uniform(0, 180)), 0, 360, color, -1)
            else:
                end = (int(x + rng.integers(-200, 200)), int(y + rng.integers(-200, 200)))
                cv2.line(picture, (x, y), end, color, max(1, w // 6))
        texture[:] = np.clip(picture, 0, 1) * 255
    return out
