"""Conversion of HDR video (HLG, PQ) to sRGB.

Transfer functions: ITU-R BT.2100-2, tables 4 and 5; HLG is rendered for a display of 1000 cd/m2. SDR white is
HDR reference white, 203 cd/m2 (ITU-R BT.2408-7); brighter values are rolled off smoothly. Primaries are converted from
BT.2020 to BT.709 (ITU-R BT.2087-0).
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

PQ, HLG = 16, 18
"""Transfer characteristics of HDR (ITU-T H.273)."""

_WHITE_CD = 203.0
_HLG_PEAK_CD, _HLG_GAMMA = 1000.0, 1.2
_KNEE = 0.6
"""Start of the roll-off, relative to white."""

_TO_BT709 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32)
_LUMINANCE = np.array([[0.2627, 0.6780, 0.0593]], np.float32)
_STEPS = 4096


def hdr_to_srgb(signal: np.ndarray, transfer: int) -> np.ndarray:
    """(H, W, 3) uint16 BT.2020 signal of full range, `PQ` or `HLG` -> (H, W, 3) uint8 sRGB."""
    light = _linear(transfer)[signal >> 4]
    if transfer == HLG:  # scene light to display light (OOTF)
        gain = cv2.pow(np.maximum(cv2.transform(light, _LUMINANCE), 1e-6), _HLG_GAMMA - 1)
        light *= (gain * np.float32(_HLG_PEAK_CD / _WHITE_CD))[..., None]
    light = np.maximum(cv2.transform(light, _TO_BT709), 0)
    peak = light.max(2)
    bright = peak > _KNEE
    light[bright] *= (_rolled_off(peak[bright]) / peak[bright])[:, None]
    return _srgb()[np.minimum(light * (_STEPS - 1) + 0.5, _STEPS - 1).astype(np.uint16)]


def _rolled_off(light: np.ndarray) -> np.ndarray:
    """Compresses light above the knee smoothly (equal slope at the knee) towards 1."""
    return 1 - (1 - _KNEE) * np.exp((_KNEE - light) / (1 - _KNEE))


@lru_cache(maxsize=2)
def _linear(transfer: int) -> np.ndarray:
    """Linear light of 4096 signal values: HLG relative to the scene's peak, PQ relative to white."""
    signal = np.linspace(0, 1, _STEPS)
    if transfer == HLG:
        a = 0.17883277
        b, c = 1 - 4 * a, 0.5 - a * np.log(4 * a)
        light = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    else:
        m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
        power = signal ** (1 / m2)
        light = (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1) * 10_000 / _WHITE_CD
    return light.astype(np.float32)


@lru_cache(maxsize=1)
def _srgb() -> np.ndarray:
    """8-bit sRGB values of 4096 steps of linear light (IEC 61966-2-1)."""
    light = np.linspace(0, 1, _STEPS)
    signal = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.rint(255 * signal).astype(np.uint8)
