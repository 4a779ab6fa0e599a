"""Camera model: exposure, white balance, lens and motion blur, noise, tone curve, scaling, JPEG."""

from __future__ import annotations

import cv2
import numba
import numpy as np

from utnet.config import FactorsConfig
from utnet.synth.appearance import white_noise

_CURVE = 4096
_LIGHT = np.linspace(0, 1, _CURVE)
# Highlights are rolled off softly before they saturate.
_LOG_LIGHT = np.log(
    np.where(_LIGHT < 0.8, np.maximum(_LIGHT, 1e-6), 0.8 + 0.2 * np.tanh((_LIGHT - 0.8) / 0.2) / np.tanh(1.0))
).astype(np.float32)
_METERING = 0.6
"""Strength of automatic exposure; at 1 all hands would have equal brightness regardless of skin tone."""
_1, _HALF = np.float32(1), np.float32(0.5)  # numba promotes float32 with a literal to float64


def soften_edges(light: np.ndarray, face: np.ndarray, part_of_face: np.ndarray) -> np.ndarray:
    """Mixes pixels on outlines with their neighbours (anti-aliasing): (H, W, 3) -> (H, W, 3)."""
    out = light.copy()
    _soften_edges(light, face, part_of_face, out)
    return out


def take_picture(rng: np.random.Generator, light: np.ndarray, hand: np.ndarray, factors: FactorsConfig) -> np.ndarray:
    """Simulates a camera: (H, W, 3) linear light -> uint8 picture.

    Args:
        rng: of this picture.
        light: (H, W, 3) float32, linear.
        hand: (H, W) bool, used with the whole picture to set the exposure.
        factors: strengths of exposure, white_balance, lens_blur, motion_blur, rescale, vignette, noise, jpeg.
    """
    height, width = light.shape[:2]
    sharp = max(width, height) / 224  # blurs are defined for 224 px
    gain = _gain(rng, light, hand, factors.exposure)
    balance = np.exp(factors.white_balance * rng.normal(0, 0.07, 3)) * gain
    if rng.random() < 0.25 * factors.motion_blur:
        light = _motion_blur(rng, light, 1 + rng.exponential(3.5) * sharp)
    sigma = 0.35 + factors.lens_blur * rng.gamma(1.6, 0.35) * sharp
    light = cv2.GaussianBlur(light, (0, 0), sigma)
    scale = 1.0
    if rng.random() < 0.4 * factors.rescale:
        scale = rng.uniform(0.3, 0.95)
        size = (max(16, round(width * scale)), max(16, round(height * scale)))
        light = cv2.resize(light, size, interpolation=cv2.INTER_AREA)
    iso = factors.noise * rng.exponential(1.0)
    centre = (np.array(light.shape[1::-1]) - 1) / 2 + rng.normal(0, 0.3, 2) * light.shape[1]
    out: np.ndarray = np.empty(light.shape, np.uint8)
    _develop(
        light, balance.astype(np.float32), centre.astype(np.float32),
        np.float32(factors.vignette * rng.exponential(0.25) / (0.5 * light.shape[1]) ** 2),
        white_noise(rng, light.shape), np.float32((0.007 * iso) ** 2), np.float32((0.003 * iso) ** 2),
        _tone_curve(rng, factors.exposure), out,
    )  # fmt: skip
    if scale != 1.0:
        how = (cv2.INTER_LINEAR, cv2.INTER_CUBIC)[int(rng.integers(2))]
        out = cv2.resize(out, (width, height), interpolation=how)
    if rng.random() < 0.5 * factors.jpeg:
        quality = int(np.clip(95 - factors.jpeg * rng.exponential(22), 12, 97))
        data = cv2.imencode(".jpg", cv2.cvtColor(out, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
        assert decoded is not None
        out = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
    return out


def _gain(rng: np.random.Generator, light: np.ndarray, hand: np.ndarray, strength: float) -> float:
    """Automatic exposure with a random error; the hand is never overexposed."""
    all_of_it = sum(cv2.mean(light)) / 3
    subject = sum(cv2.mean(light, hand.view(np.uint8))) / 3 or all_of_it  # 0 where the hand is hidden
    metered = max(0.7 * subject + 0.3 * all_of_it, 0.02)
    gain = (0.2 / metered) ** _METERING * np.exp(strength * rng.normal(0, 0.3))
    return float(min(gain, 0.42 / max(subject, 0.02)))


def _tone_curve(rng: np.random.Generator, strength: float) -> np.ndarray:
    """(4096,) uint8 tone curve for light in [0, 1]: gamma with random contrast and black level."""
    gamma = np.float32(np.exp(strength * rng.normal(0, 0.1)) / 2.2)
    y = np.exp(gamma * _LOG_LIGHT)
    y += np.float32(strength * rng.uniform(-0.25, 0.5)) * (y * y * (3 - 2 * y) - y)
    black = np.float32(strength * max(rng.normal(-0.01, 0.03), 0))
    return np.clip((255 * (1 - black)) * y + (255 * black + np.float32(0.5)), 0, 255).astype(np.uint8)


def _motion_blur(rng: np.random.Generator, light: np.ndarray, length: float) -> np.ndarray:
    size = 2 * int(np.ceil(min(length, 15) / 2)) + 1
    kernel: np.ndarray = np.zeros((size * 4, size * 4), np.float32)
    angle = rng.uniform(0, np.pi)
    reach, middle = np.array([np.cos(angle), np.sin(angle)]) * min(length, 15) * 2, (size * 4 - 1) / 2
    ends = [tuple(int(v) for v in np.rint(middle + sign * reach)) for sign in (-1, 1)]
    cv2.line(kernel, ends[0], ends[1], 1.0, 3)
    kernel = cv2.resize(kernel, (size, size), interpolation=cv2.INTER_AREA)
    return cv2.filter2D(light, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT)


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _soften_edges(light, face, part_of_face, out):
    height, width = face.shape
    for y in range(1, height - 1):
        for x in range(1, width - 1):
            own = part_of_face[face[y, x]] if face[y, x] >= 0 else -1
            a, b, c, d = face[y, x - 1], face[y, x + 1], face[y - 1, x], face[y + 1, x]
            same = (part_of_face[a] if a >= 0 else -1) == own and (part_of_face[b] if b >= 0 else -1) == own
            same = same and (part_of_face[c] if c >= 0 else -1) == own and (part_of_face[d] if d >= 0 else -1) == own
            if same:
                continue
            for k in range(3):
                around = light[y, x - 1, k] + light[y, x + 1, k] + light[y - 1, x, k] + light[y + 1, x, k]
                out[y, x, k] = 0.5 * light[y, x, k] + np.float32(0.125) * around


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _develop(light, balance, centre, vignette, noise, shot, read, curve, out):
    height, width = light.shape[:2]
    top, last = np.float32(curve.shape[0] - 1), curve.shape[0] - 1
    for y in range(height):
        dy = np.float32(y) - centre[1]
        for x in range(width):
            dx = np.float32(x) - centre[0]
            fall = _1 / (_1 + vignette * (dx * dx + dy * dy))
            for k in range(3):
                value = light[y, x, k] * balance[k] * fall
                value += noise[y, x, k] * np.sqrt(shot * value + read)
                out[y, x, k] = curve[min(max(int(value * top + _HALF), 0), last)]
