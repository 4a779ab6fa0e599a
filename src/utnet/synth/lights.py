"""Lighting: ambient irradiance (quadratic in the normal), a key light, and a nearby lamp.

Ambient irradiance is E(n) = c + b . n + n^T A n per colour, equivalent to spherical harmonics of degree 2 (Ramamoorthi
and Hanrahan, An Efficient Representation for Irradiance Environment Maps, 2001).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Lights:
    """Lights of a scene.

    Attributes:
        around: (3, 10) ambient coefficients per colour: c, b (x, y, z), A (xx, yy, zz, xy, xz, yz).
        key: (3,) unit vector towards the key light, camera frame.
        key_rgb: (3,) its colour times its intensity.
        softness_m: width of shadow edges.
        lamp_m: (3,) position of the lamp relative to the middle of the hand, camera frame.
        lamp_rgb: (3,) its light at the middle of the hand.
        shadows, occlusion: darkness of shadows and ambient occlusion, 0 (none) to 1.
    """

    around: np.ndarray
    key: np.ndarray
    key_rgb: np.ndarray
    softness_m: float
    lamp_m: np.ndarray
    lamp_rgb: np.ndarray
    shadows: float
    occlusion: float

    @classmethod
    def sample(cls, rng: np.random.Generator, *, light: float, shadows: float, occlusion: float) -> Lights:
        """Draws random lights; `light` 0 gives a fixed soft white light from above the camera."""
        tones = _tones(rng, 8)
        directions = rng.normal(size=(7, 3))
        directions[0] = 0.5 * directions[0] + [0.0, -1.0, 0.0]
        directions[1] = -directions[0]
        directions[5] += [0.0, -0.7, -0.9]
        directions[6, 2] -= 0.5
        directions /= np.sqrt((directions * directions).sum(1, keepdims=True))
        u = rng.random(10)
        amounts = np.array([0.1 + 0.8 * u[0], 0.35 * u[1], *(-0.25 * np.log1p(-u[2:5]))])
        around = (tones[:5].T * amounts) @ _lobes(directions[:5])
        around[:, 0] += (0.05 + 0.3 * u[5]) * tones[5]
        lamp = -0.35 * np.log1p(-u[6]) if u[7] < 0.5 else 0.0
        return cls(
            around=light * around + (1 - light) * 0.45 * np.eye(1, 10),
            key=_unit((1 - light) * _STANDARD + light * directions[5]),
            key_rgb=(1 - light) * np.full(3, 0.55) + light * 1.35 * rng.beta(1.3, 1.2) * tones[6],
            softness_m=0.001 * 12 ** u[8],
            lamp_m=directions[6] * (0.15 + 0.65 * u[9]),
            lamp_rgb=light * lamp * tones[7],
            shadows=shadows,
            occlusion=occlusion,
        )


def _unit(v: np.ndarray) -> np.ndarray:
    return v / np.linalg.norm(v)


_STANDARD = _unit(np.array([-0.3, -0.6, -0.8]))


def _tones(rng: np.random.Generator, num: int) -> np.ndarray:
    """(num, 3) colours of lights with mean about 1: from candlelight to blue sky, occasionally saturated."""
    noise = rng.normal(size=(num, 4))
    colors = 1 + 0.11 * noise[:, :1] * [1.0, 0.0, -1.3] + 0.03 * noise[:, 1:]
    colors += (rng.random((num, 1)) < 0.05) * rng.uniform(-0.6, 0.6, (num, 3))
    return np.maximum(colors, 0.15)


def _lobes(directions: np.ndarray) -> np.ndarray:
    """(N, 10) coefficients of ((1 + n . d) / 2)^2: broad lights from (N, 3) directions d."""
    x, y, z = directions.T
    return np.stack([np.ones_like(x), 2 * x, 2 * y, 2 * z, x * x, y * y, z * z, 2 * x * y, 2 * x * z, 2 * y * z], 1) / 4
