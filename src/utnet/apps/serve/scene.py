"""Hands drawn in their picture with boxes and numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from utnet.geometry import apply_affine
from utnet.predict.drawing import SIDE_COLORS, draw_hands
from utnet.predict.hand import Hand


def draw_boxes(image_rgb: np.ndarray, hands: Sequence[Hand]) -> np.ndarray:
    """A copy of (H, W, 3) uint8 with meshes, skeletons, boxes and the hands' numbers, sized to the picture."""
    out = draw_hands(image_rgb, hands)
    thickness = max(1, round(max(out.shape[:2]) / 500))
    scale, font = 0.35 * thickness, cv2.FONT_HERSHEY_SIMPLEX
    for i, hand in enumerate(hands):
        color = tuple(255 * channel for channel in SIDE_COLORS[hand.side])
        x0, y0, x1, y1 = (round(float(value)) for value in hand.box_px)
        cv2.rectangle(out, (x0, y0), (x1, y1), color, thickness, cv2.LINE_AA)
        text = f"{i + 1} {hand.side}"
        (width, height), _ = cv2.getTextSize(text, font, scale, thickness)
        x = min(max(x0, 0), max(out.shape[1] - width - 6 * thickness, 0))
        y = max(y0, height + 6 * thickness)
        cv2.rectangle(out, (x, y - height - 6 * thickness), (x + width + 6 * thickness, y), color, -1)
        at = (x + 3 * thickness, y - 3 * thickness)
        cv2.putText(out, text, at, font, scale, (25, 30, 40), thickness, cv2.LINE_AA)
    return out


def shrink(image_rgb: np.ndarray, hands: Sequence[Hand], max_px: int) -> tuple[np.ndarray, list[Hand]]:
    """A picture (H, W, 3) and its hands at the size at which its longer side is at most `max_px`."""
    height, width = image_rgb.shape[:2]
    if max(height, width) <= max_px:
        return image_rgb, list(hands)
    size_wh = tuple(max(1, round(side * max_px / max(height, width))) for side in (width, height))
    x, y = size_wh[0] / width, size_wh[1] / height
    A = np.array([[x, 0, x / 2 - 0.5], [0, y, y / 2 - 0.5], [0, 0, 1.0]])  # pixel centres are whole numbers
    small = [
        replace(
            hand,
            K_px=A @ hand.K_px,
            joints_px=apply_affine(A[:2], hand.joints_px),
            box_px=apply_affine(A[:2], hand.box_px.reshape(2, 2)).ravel(),
        )
        for hand in hands
    ]
    return cv2.resize(image_rgb, size_wh, interpolation=cv2.INTER_AREA), small
